"""Measures again what two papers found about pre-training and robustness.

From data to page: an image set (:mod:`robustness_lib.data`) and a job (:mod:`robustness_lib.runner.records`) become a
trained network (:mod:`robustness_lib.runner.model_cache`, :mod:`robustness_lib.training.trainer`), its metrics a
record, records a table, a figure and a verdict (:mod:`robustness_lib.report`, :mod:`robustness_lib.paper`). A section
of the papers is one module with ``jobs`` and ``run``.
"""

import getpass as _getpass
import os as _os
import tempfile as _tempfile

__version__ = "0.1.0"

try:
    _getpass.getuser()
except (KeyError, OSError):  # a user id without a name, as in containers: PyTorch would find no folder for its cache
    _os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{_tempfile.gettempdir()}/torchinductor_{_os.getuid()}")
