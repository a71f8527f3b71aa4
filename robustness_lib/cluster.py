"""The same sweep on a Dask cluster, whose workers may join, leave and die while it goes on.

Which job comes next and where records are kept stays with :func:`robustness_lib.sweep.sweep`; Dask carries jobs to
workers and results back. Each worker is used through its own ``concurrent.futures`` executor and has one job at a time,
so what a worker's death costs is known: that job, which runs again elsewhere.

A worker uses image sets that it has itself, if their checksums agree with those of the submitting side. The others,
and pre-trained checkpoints, it is sent when a job first asks for them. Networks that it trains stay in a folder of its
own for its later jobs; records, outputs and new checkpoints come back. A worker whose library differs is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import queue
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from robustness_lib.data import SOURCES, ImageSet, data_root, load
from robustness_lib.data.files import MissingData
from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically
from robustness_lib.networks import Context
from robustness_lib.records import Job, Metrics, Record, code_revision
from robustness_lib.runtime import Runtime

if TYPE_CHECKING:
    from distributed import Client, Worker

T = TypeVar("T")
_Run: TypeAlias = Callable[[Job, Context], Metrics]
_Perform: TypeAlias = Callable[[_Run, Job, Context], Record]

LIVES = 3
"""How many workers may be lost under one job before it counts as failed."""

CONNECT_SECONDS = 5.0
"""How long a scheduler may take to answer."""

PATIENCE_SECONDS = 20.0
"""How long there may be no worker for a job before the user is told."""


def source_checksum(folder: Path) -> str:
    """SHA-256 (hexadecimal) of the names and contents of a package's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".csv", ".txt")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


VERSION = source_checksum(Path(__file__).resolve().parent)
"""The checksum of this library as the process has loaded it, whatever is edited later."""


# --------------------------------------------------------------------------------------------- submitting side


@dataclass(frozen=True)
class _Visit:
    """What a worker has to know of the sweep that its jobs belong to."""

    token: str
    data: Path
    checkpoint_every: float
    options: Mapping[str, Any]


@dataclass(eq=False)
class _Hand:
    """A worker as the submitting side sees it."""

    executor: Executor
    greeting: Future[tuple[str, str] | None]
    accepted: bool | None = None
    up: bool = False
    busy: bool = False
    lost: bool = False


class Cluster:
    """A Dask cluster while it is used, from :func:`connect`.

    Args:
        client: Of ``distributed``.
        context: Data and store of the submitting side.
        options: How workers choose their runtime.
    """

    def __init__(self, client: Client, context: Context, options: Mapping[str, Any]) -> None:
        self.client = client
        self._context = replace(context, _used={})
        token = f"robustness-{uuid.uuid4().hex}"
        self._visit = _Visit(token, data_root(context.data).absolute(), context.checkpoint_every, options)
        self._revision = code_revision()
        self._hands: dict[str, _Hand] = {}
        self._changed = threading.Condition()
        self._stopped = self._welcomed = self._told = False
        self._busy_at = time.monotonic()
        self._lookout, self._clerks, self._library = ThreadPoolExecutor(1), ThreadPoolExecutor(8), threading.Lock()
        client.subscribe_topic(token, self._on_request)

    # ---- workers

    def room(self) -> int:
        """How many jobs can be in flight: one for each worker that may work. Looks at who has joined and who has left.

        Raises:
            UserError: The scheduler is gone, or there are workers and none of them may work.
        """
        # Not in this thread, where Ctrl-C in the midst of Dask's own waiting would leave a traceback behind.
        return self._lookout.submit(self._look_around).result()

    def _look_around(self) -> int:
        there = self._workers()
        with self._changed:
            if self._stopped:
                return 0
            for address in self._hands.keys() - there.keys():
                hand = self._hands.pop(address)
                hand.lost = True  # so that the thread that waits for its job tries another worker
                hand.executor.shutdown(wait=False)
            for address, description in there.items():
                if address not in self._hands:
                    executor = self.client.get_executor(workers=[address], pure=False)
                    greeting = executor.submit(_greeting(), dict(self._visit.options))
                    self._hands[address] = _Hand(executor, greeting)
                hand = self._hands[address]
                hand.up = description["status"] == "running"
                if hand.accepted is None and hand.greeting.done():
                    self._judge(address, hand)
            self._changed.notify_all()
            count = sum(hand.busy or (hand.up and hand.accepted is True) for hand in self._hands.values())
        self._tell_of_waiting(count, len(there))
        return count

    def _tell_of_waiting(self, count: int, there: int) -> None:
        now = time.monotonic()
        if count > 0:
            self._told, self._busy_at = False, now
        elif not self._told and now - self._busy_at > PATIENCE_SECONDS:
            self._told = True
            self._say(f"none of the {there} workers of {self.client.scheduler.address} is ready for a job yet; waiting")

    def _workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)
        if self.client.status != "running" or "workers" not in found:
            raise UserError(
                "the connection to the Dask scheduler was lost; what was recorded is kept: see why it ended, start "
                "it and its workers again, and run the same command again"
            )
        workers: dict[str, Any] = found["workers"]
        return workers

    def _judge(self, address: str, hand: _Hand) -> None:
        """Accept a worker that runs this library, and say why not otherwise."""
        try:
            found = hand.greeting.result()
        except UserError as error:
            reason = str(error)
        except Exception as error:
            reason = f"it could not be asked for its version of robustness_lib ({_first_line(error)})"
        else:
            hand.accepted = found is not None and found[0] == VERSION
            if found is not None and hand.accepted:
                self._welcomed = True
                if self._visit.options.get("precision", "auto") == "auto":  # arms that are compared share it
                    self._visit = replace(self._visit, options={**self._visit.options, "precision": found[1]})
                return
            theirs = "has no robustness_lib of this kind" if found is None else f"runs another ({found[0][:12]})"
            reason = (
                f"it {theirs} than the submitting side ({VERSION[:12]}), so its numbers would not be ours; install the "
                "same version there and start the worker again"
            )
        hand.accepted = False
        sentence = f"the worker {address} is left out: {reason}"
        if not self._welcomed and all(other.accepted is False for other in self._hands.values()):
            raise UserError(sentence)
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    # ---- jobs

    def measure(self, perform: _Perform, run: _Run, job: Job, context: Context) -> Record:
        """Measure one job on a free worker, and on another where that is lost.

        Blocks until the job has ended. The record is returned, not stored.

        Args:
            perform: Measures a job where it is called.
            run: The section's ``run``; it must be possible to import it on workers.
            job: What to measure.
            context: Its store receives what the job wrote beside its record.

        Returns:
            The record, with the worker's device and the submitting side's revision.

        Raises:
            UserError: The job failed, or several workers were lost under it.
            CancelledError: :meth:`stop` was called.
        """
        from distributed import KilledWorker

        for _ in range(LIVES):
            hand, future = self._start(perform, run, job)
            try:
                while not wait([future], timeout=0.5).done:
                    if hand.lost or self._stopped:  # Dask does not end every wait for a result that cannot come
                        raise CancelledError
                record, files = future.result()
            except (CancelledError, KilledWorker):
                continue
            finally:
                with self._changed:
                    hand.busy = False
                    self._changed.notify_all()
            for name, content in files.items():
                write_atomically(context.store / name, content)
            return replace(record, provenance={**record.provenance, "revision": self._revision})
        raise UserError(
            f"{LIVES} workers were lost while they measured it (out of memory, or at the end of their time?), so it "
            "was given up; give workers more memory or time, and run the same command again"
        )

    def _start(self, perform: _Perform, run: _Run, job: Job) -> tuple[_Hand, Future[tuple[Record, dict[str, bytes]]]]:
        """Give the job to a free worker, when there is one."""
        with self._changed:
            while not self._stopped:
                for hand in self._hands.values():
                    if hand.up and hand.accepted and not hand.busy:
                        hand.busy = True
                        return hand, hand.executor.submit(_opened(), _pickled(_work, perform, run, job, self._visit))
                self._changed.wait()
        raise CancelledError

    def stop(self) -> None:
        """Cancel what runs; workers end it where it is, within a second or so."""
        with self._changed:
            self._stopped = True
            for hand in self._hands.values():
                with contextlib.suppress(Exception):  # a scheduler that is gone
                    hand.executor.shutdown(wait=False)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the workers forget the sweep: its images, networks and files."""
        self.stop()
        for pool in (self._lookout, self._clerks):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.client.status == "running":
            used = [address for address, hand in self._hands.items() if hand.accepted]
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(self._visit.token)
                self.client.run(_forget, self._visit.token, workers=used, on_error="ignore")

    # ---- what workers ask for

    def _on_request(self, event: tuple[float, Mapping[str, Any]]) -> None:
        with contextlib.suppress(RuntimeError):  # closed
            self._clerks.submit(self._answer, event[1])

    def _answer(self, request: Mapping[str, Any]) -> None:
        number, address = request["id"], request["worker"]
        with self._library:
            answer = self._look_up(request["wants"], request["has"])
        try:
            [place] = self.client.scatter([answer], workers=[address], hash=False)
            self.client.run(_deliver, number, place.key, workers=[address])
        except Exception as error:  # the worker takes nothing for want of memory, or is lost
            what = "/".join(request["wants"][1:])
            problem = (
                f"{what} could not be sent to the worker {address} ({_first_line(error)}); has it too little memory?"
            )
            with contextlib.suppress(Exception):
                self.client.run(_deliver, number, _Answer(problem=problem), workers=[address])

    def _look_up(self, wants: list[str], has: str | None) -> _Answer:
        kind, name, *split = wants
        try:
            if kind == "images":
                images = self._context.images(name, *split)
                content = images.name, images.images.numpy(), images.labels.numpy(), images.class_names
                return _Answer(images.checksum, None if has else content)
            path = self._context.checkpoint(name)
            return _Answer(content=None if path is None else path.read_bytes())
        except Exception as error:
            return _Answer(problem=str(error) or type(error).__name__)


Scheduler: TypeAlias = "str | Client | Cluster"
"""The address of a Dask scheduler, a ``distributed.Client``, or what :func:`connect` gives."""


@contextlib.contextmanager
def connect(scheduler: Scheduler | None, context: Context, **options: Any) -> Iterator[Cluster | None]:
    """Use a Dask cluster for as long as the context lasts.

    Args:
        scheduler: The address of its scheduler, or a client of it, which stays open; or what this function gave
            before, which is used as it is, as is None.
        context: Data and store of the submitting side. Its runtime is not used: workers have other hardware.
        **options: What every worker gives to :meth:`robustness_lib.runtime.Runtime.detect`: ``device``,
            ``precision`` and so on. By default each takes the best device that it has, as many CPU threads as Dask
            counts for it, and all the precision that the first of them finds best.

    Yields:
        The cluster; None for None.

    Raises:
        UserError: Dask is not installed, or no scheduler answers.
    """
    if scheduler is None or isinstance(scheduler, Cluster):
        yield scheduler
        return
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(scheduler)) if isinstance(scheduler, str) else scheduler
        if client.asynchronous:
            raise UserError("the client is asynchronous, but a sweep needs one that was made without asynchronous=True")
        cluster = Cluster(client, context, options)
        stack.callback(cluster.close)
        yield cluster


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            f"a Dask cluster needs the package distributed ({error}); install it with pip install "
            "'robustness-lib[dask]', here and on the workers"
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # of many kinds: no such host, nothing listens, another protocol, no such scheme
        raise UserError(
            f"no Dask scheduler answers at {address!r} ({_first_line(error)}); start one with 'dask scheduler' and "
            "give the address that it prints, for example tcp://host:8786"
        ) from error


# --------------------------------------------------------------------------------------------- on a worker

# Dask unpickles functions in the scheduler too, and on workers of any version. So it is given functions without a
# module, which import nothing until they run.


def _greeting() -> Callable[[Mapping[str, Any]], tuple[str, str] | None]:
    def greet(options: Mapping[str, Any]) -> tuple[str, str] | None:
        try:
            from robustness_lib.cluster import introduction
        except ImportError:
            return None
        return introduction(options)

    return greet


def _opened() -> Callable[[bytes], Any]:
    def call(content: bytes) -> Any:
        import pickle

        from robustness_lib.errors import UserError

        try:
            function, arguments = pickle.loads(content)
        except Exception as error:
            raise UserError(
                f"a worker cannot load the code of the job ({error}); install there what is imported here"
            ) from error
        return function(*arguments)

    return call


def _pickled(function: Callable[..., Any], *arguments: Any) -> bytes:
    import cloudpickle

    content: bytes = cloudpickle.dumps((function, arguments))
    return content


def introduction(options: Mapping[str, Any]) -> tuple[str, str]:
    """What a worker says of itself: the checksum of its library, and the precision that it finds best.

    Args:
        options: For :meth:`robustness_lib.runtime.Runtime.detect`.

    Raises:
        UserError: It lacks the device that is asked for.
    """
    return VERSION, Runtime.detect(**options).precision


_GUESTS: dict[str, Context] = {}
_INBOX: dict[str, queue.SimpleQueue[_Answer]] = {}
_ONE_JOB = threading.Lock()


def _work(perform: _Perform, run: _Run, job: Job, visit: _Visit) -> tuple[Record, dict[str, bytes]]:
    """Measure a job in a worker; image sets and networks stay from one job to the next."""
    from distributed import get_worker

    worker = get_worker()

    def call() -> tuple[Record, dict[str, bytes]]:
        folder = Path(worker.local_directory) / visit.token
        if visit.token not in _GUESTS:
            folder.mkdir(parents=True, exist_ok=True)
            _GUESTS[visit.token] = Context(
                store=folder,
                progress=False,
                checkpoint_every=visit.checkpoint_every,
                supplier=_Submitter(visit, worker, folder),
            )
        threads = visit.options.get("threads") or worker.state.nthreads
        runtime = Runtime.detect(**{**visit.options, "threads": threads})
        before = torch.get_num_threads()
        torch.set_num_threads(runtime.threads)
        try:
            return perform(run, job, replace(_GUESTS[visit.token], runtime=runtime)), _made(folder)
        finally:
            torch.set_num_threads(before)

    with _ONE_JOB:
        return _while_wanted(worker, call)


def _while_wanted(worker: Worker, call: Callable[[], T]) -> T:
    """Call a function, and end it as Ctrl-C would when nobody waits for its result any more.

    Dask itself lets a function go on whose result was cancelled, or whose client is gone.
    """
    key, thread, over = worker.get_current_task(), threading.get_ident(), threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
                return

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        try:
            return call()
        finally:
            over.set()
            watcher.join()
            time.sleep(0)  # an interrupt that is on its way arrives here at the latest
    except KeyboardInterrupt:
        raise RuntimeError("cancelled") from None


def _made(store: Path) -> dict[str, bytes]:
    """The files that a job made for the one store, by their names there; they are not kept here."""
    files = {}
    for folder in ("outputs", "checkpoints"):
        for path in sorted((store / folder).rglob("*")):
            if path.is_file() and not path.name.startswith(".") and ".partial." not in path.name:
                files[path.relative_to(store).as_posix()] = path.read_bytes()
                path.unlink()
    return files


def _forget(token: str, dask_worker: Worker) -> None:
    _GUESTS.pop(token, None)
    shutil.rmtree(Path(dask_worker.local_directory) / token, ignore_errors=True)


@dataclass(frozen=True)
class _Answer:
    """The submitting side's copy of something: its checksum, its content if the worker has none, or what is wrong."""

    checksum: str | None = None
    content: Any = None
    problem: str = ""


@dataclass(frozen=True)
class _Submitter:
    """The submitting side as a worker sees it: the supplier of what the worker lacks."""

    visit: _Visit
    worker: Worker
    folder: Path

    def images(self, name: str, split: str) -> ImageSet:
        own = self._own_images(name, split)
        answer = self._ask(("images", name, split), None if own is None else own.checksum)
        if own is not None and answer.checksum not in (None, own.checksum):
            raise UserError(
                f"{name}/{split} on the worker {self.worker.address} has SHA-256 {own.checksum}, but that of the "
                f"submitting side has {answer.checksum}; make them equal, or remove one of them to use the other"
            )
        if own is not None:
            return own
        if answer.content is None:
            raise UserError(f"{answer.problem} (nor is {name} on the worker {self.worker.address})")
        name, images, labels, class_names = answer.content
        images, labels = (torch.from_numpy(np.require(array, requirements="W")) for array in (images, labels))
        return ImageSet(name, images, labels, class_names)

    def _own_images(self, name: str, split: str) -> ImageSet | None:
        for root in (data_root(), self.visit.data):
            if name in SOURCES or (root / name / f"{split}.npz").is_file():
                with contextlib.suppress(MissingData):
                    return load(name, split, root)
        return None

    def checkpoint(self, checkpoint: str) -> Path | None:
        path = self.folder / "received" / f"{checkpoint}.safetensors"
        if not path.is_file():
            answer = self._ask(("checkpoint", checkpoint), None)
            if answer.problem:
                raise UserError(answer.problem)
            if answer.content is None:
                return None
            write_atomically(path, answer.content)
        return path

    def _ask(self, wants: tuple[str, ...], has: str | None) -> _Answer:
        number, inbox = uuid.uuid4().hex, queue.SimpleQueue[_Answer]()
        _INBOX[number] = inbox
        try:
            request = {"id": number, "worker": self.worker.address, "wants": list(wants), "has": has}
            self.worker.log_event(self.visit.token, request)
            while True:
                with contextlib.suppress(queue.Empty):
                    return inbox.get(timeout=0.3)
        finally:
            del _INBOX[number]


def _deliver(number: str, answer: _Answer | str, dask_worker: Worker) -> None:
    """Take an answer, or the key under which Dask holds it."""
    if number in _INBOX:
        _INBOX[number].put(dask_worker.data[answer] if isinstance(answer, str) else answer)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
