"""A Dask cluster as the executor of a sweep.

Dask itself hands out the jobs, and again those whose worker died. Workers share the file system with the process that
submits: the store, the image sets and this repository lie at the same paths.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from robustness_lib.data import data_root
from robustness_lib.errors import UserError, first_line, shortened
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.provenance import REVISION
from robustness_lib.training.device import Runtime

if TYPE_CHECKING:
    from distributed import Client

_Place: TypeAlias = tuple[str, str, Mapping[str, Any]]  # revision and folder of the submitter, and options
_ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?[\w.\-\[\]:%]+:\d{1,5}|inproc://.+")

CONNECT_SECONDS = 5.0


class DaskExecutor(Executor):
    """Runs the jobs of a sweep on a cluster, each with the runtime that :meth:`Runtime.detect` finds on its worker."""

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        self._executor = client.get_executor(pure=False)
        self._place = REVISION, str(Path.cwd()), dict(options)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        """Begin ``function(run, job, context, ...)`` on a worker."""
        run, job, context, *others = arguments
        shared = replace(context, data=data_root(context.data).absolute())
        future: Future[Any] = self._executor.submit(_on_worker, self._place, function, run, job, shared, *others)
        return future


@contextlib.contextmanager
def connect(scheduler: str | Client | None, **options: Any) -> Iterator[DaskExecutor | None]:
    """A Dask cluster's executor, for as long as the context lasts.

    ``scheduler`` is its address, or a client, which stays open; None to do nothing. The options are for
    :meth:`robustness_lib.training.device.Runtime.detect` on every worker; all take the precision that one finds best.
    """
    if scheduler is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(scheduler)) if isinstance(scheduler, str) else scheduler
        if not client.scheduler_info(n_workers=-1)["workers"]:
            print(f"{client.scheduler.address} has no workers yet; waiting for one", file=sys.stderr)
        precision = DaskExecutor(client, options).submit(_precision, None, None, Context()).result()
        if isinstance(precision, UserError):
            raise precision
        yield DaskExecutor(client, {**options, "precision": precision})


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            f"a Dask cluster needs the package distributed ({error}); install it with pip install "
            "'robustness-lib[dask]', here and on the workers"
        ) from error
    reason = "it is no address"
    if _ADDRESS.fullmatch(address):
        try:
            return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # of many kinds: no such host, nothing listens, another protocol
            reason = first_line(error)
        gc.collect()  # a client that did not connect must not be collected while another starts: distributed deadlocks
    raise UserError(
        f"no Dask scheduler answers at {shortened(address)} ({reason}); start one with 'dask scheduler' and give the "
        "address that it prints, for example tcp://host:8786"
    )


def _precision(_run: None, _job: None, context: Context) -> str:
    return context.runtime.precision


def _on_worker(place: _Place, function: Callable[..., Any], run: Any, job: Any, context: Context, *others: Any) -> Any:
    """Call a function in the submitter's folder, with this worker's runtime; an unfit worker gives an error."""
    from distributed import get_worker

    revision, folder, options = place
    worker = get_worker()
    try:
        if worker.state.nthreads != 1:
            raise UserError(
                f"it would have {worker.state.nthreads} jobs at once; start workers with --nthreads 1, and give CPU "
                "threads with --threads"
            )
        if revision != REVISION:
            raise UserError(f"it runs the code {REVISION}, not {revision}; start it again")
        os.chdir(folder)
        runtime = Runtime.detect(**options)
    except OSError as error:
        words = "workers share the file system with the process that submits"
        return UserError(f"the worker {worker.address} cannot enter {folder} ({error.strerror}); {words}")
    except UserError as error:
        return UserError(f"the worker {worker.address}: {error}")
    return function(run, job, replace(context, runtime=runtime), *others)
