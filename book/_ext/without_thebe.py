"""Takes Thebe out of the pages: Jupyter Book loads it always, twice, and its second script is an error in the browser.

Thebe runs a page's code on a server elsewhere, which this book does not offer.
"""

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Forget what the extension has asked for: its listeners and its style sheet."""
    app.setup_extension("sphinx_thebe")
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    styles = app.registry.css_files
    styles[:] = [one for one in styles if "thebe" not in one[0]]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
