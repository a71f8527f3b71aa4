"""What holds for all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# files that start child processes: the server that forks these takes seconds to start
CHILDREN = ["benchmarks", "cli", "dask_executor", "distributed", "edit_examples", "records", "sweep", "sync", "trainer"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: tests run side by side
gc.disable()  # until all is imported: a fifth of the time that takes


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadscope`` one process runs all files that have children."""
    from xdist.scheduler import LoadScopeScheduling

    class OneServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "children" if Path(file).stem.removeprefix("test_") in CHILDREN else file

    return OneServer(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_configure(config: pytest.Config) -> None:
    """How long one of hypothesis's examples takes says nothing on a busy machine."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):  # else others run the tests
        from hypothesis import settings

        settings.register_profile("any machine", deadline=None)
        settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """What the libraries and tests have made so far stays; collecting the rest less often saves a twentieth of all."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The server that forks children starts beside the first tests of the files that have them."""
    if item.path.stem.removeprefix("test_") in CHILDREN:
        import toys

        toys.start_server()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side; and numbers that are compared bit for bit are made with one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def few_test_images() -> Iterator[None]:
    """The synthetic sets have 100 test images until the end of the module: evaluating takes most of a short job."""
    from robustness_lib.data.synthetic import COUNTS

    with pytest.MonkeyPatch.context() as patch:
        for name, counts in COUNTS.items():
            patch.setitem(COUNTS, name, counts | {"test": 100})
        yield
