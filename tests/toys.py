"""Small data, trainings and child processes for tests.

Children are forked from a server that has imported the library, so that one costs milliseconds; what they run must be
a function of a module.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import typer
from torch import nn

from robustness_lib import cli
from robustness_lib.data import ImageDataset
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build
from robustness_lib.models.checkpoints import weights_checksum
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, save_trained
from robustness_lib.runner.records import Job, Record, Store
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime
from robustness_lib.training.trainer import History, train

if TYPE_CHECKING:
    import pandas as pd

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(  # this folder is not on its path: what tests and commands import
    ["robustness_lib.experiments.calibration", "torchvision", "pandas", "pytest", "hypothesis", "typer", "distributed"]
)

PLAIN = Runtime(precision="float32", threads=1)
RECIPE = TrainingConfig(architecture="wrn-10-1", epochs=2, batch_size=16, learning_rate=0.05)


def images(count: int = 40, classes: int = 4, size: int = 16, seed: int = 0) -> ImageDataset:
    """Noise whose mean tells the class, so that a network can learn something."""
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 128, (count, 3, size, size), generator=generator(seed, "toys"))
    pixels = (noise + (labels * 127 // max(classes - 1, 1))[:, None, None, None]).to(torch.uint8)
    return ImageDataset("toys", pixels, labels, tuple(f"class {k}" for k in range(classes)))


def write_bundle(root: Path, name: str, count: int, classes: int, size: int = 16) -> None:
    """A data set of one's own: ``<root>/<name>/{train,test}.npz``."""
    (root / name).mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        data = images(count, classes, size, seed=number)
        arrays = {
            "images": data.images.numpy(),
            "labels": data.labels.numpy(),
            "class_names": np.array(data.class_names),
        }
        np.savez(root / name / f"{split}.npz", **arrays)


def keep_checkpoint(store: Path, name: str = "tiny", network: str = "wrn-10-1", classes: int = 7) -> None:
    """A checkpoint of another task, with random weights."""
    save_trained(store / "checkpoints" / f"{name}.safetensors", build(network, classes, 0.0, 1), History(), {})


def trained(
    recipe: TrainingConfig = RECIPE, seed: int = 0, data: ImageDataset | None = None, **options: object
) -> nn.Module:
    """A tiny network after a training."""
    return run_training(recipe, seed, data, **options)[0]


def run_training(
    recipe: TrainingConfig = RECIPE,
    seed: int = 0,
    data: ImageDataset | None = None,
    runtime: Runtime = PLAIN,
    **options: object,
) -> tuple[nn.Module, History]:
    data = images() if data is None else data
    network = build(recipe.architecture, data.num_classes, recipe.dropout, seed)
    return network, train(network, data, recipe, seed=seed, runtime=runtime, **options)


def checksum(network: nn.Module) -> str:
    return weights_checksum(network.state_dict())


def toy_job(seed: int = 0, **changes: object) -> Job:
    fields: dict[str, object] = {
        "section": "toy",
        "profile": "smoke",
        "dataset": "toys",
        "init": "scratch",
        "method": "train",
        "level": None,
        "seed": seed,
        "recipe": {"architecture": "wrn-10-1", "epochs": 2, "train_images": 40},
    }
    return Job(**(fields | changes))


def toy_run(job: Job, context: Context) -> Metrics:
    """Train a tiny network; with other methods sleep, or do nothing.

    Who ran what is appended to the file ``ran`` of the store: one line of seed and process id.
    """
    with open(context.store / "ran", "a") as file:
        file.write(f"{job.seed} {os.getpid()}\n")
    if job.method == "sleep":
        time.sleep(600)
    if job.method == "nothing":
        time.sleep(0.02)
        return {"seed": float(job.seed)}
    settings = {name: value for name, value in job.recipe.items() if name != "train_images"}
    network, history = run_training(TrainingConfig(**settings), job.seed)
    return {"weights": float(int(checksum(network)[:12], 16)), "losses": list(history.losses)}


def ran(store: Path) -> list[tuple[int, int]]:
    """Seed and process id of every run, in order."""
    lines = (store / "ran").read_text().splitlines() if (store / "ran").exists() else []
    return [(int(seed), int(pid)) for seed, pid in (line.split() for line in lines)]


def die(job: Job, context: Context) -> Metrics:
    """Job 1 kills its process always, job 2 the first time."""
    metrics = toy_run(job, context)
    times = [seed for seed, _ in ran(context.store)].count(job.seed)
    if job.seed == 1 or (job.seed == 2 and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return metrics


def context(store: Path, **changes: object) -> Context:
    store.mkdir(parents=True, exist_ok=True)
    return Context(**({"store": store, "runtime": PLAIN, "progress": False} | changes))


def frame(records: Iterable[Record | None]) -> pd.DataFrame:
    """A row a record: what the job is, and its metrics."""
    import pandas as pd  # children do without

    return pd.DataFrame([{**r.job.as_dict(), "arm": r.job.arm, **r.metrics} for r in records if r is not None])


def start_server() -> None:
    """What forks the children of :data:`CHILDREN`, and imports for seconds before the first one."""
    multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def child(target: Callable[..., None], *arguments: object) -> Iterator[multiprocessing.process.BaseProcess]:
    """A started child that does not outlive the test, however that ends."""
    process = CHILDREN.Process(target=_interruptible, args=(target, *arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _interruptible(target: Callable[..., None], *arguments: object) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    target(*arguments)


def exit_code(target: Callable[..., None], *arguments: object) -> int | None:
    """How a child ended (minus the signal that ended it)."""
    with child(target, *arguments) as process:
        process.join(300)
        assert not process.is_alive(), "the child does not end"
        return process.exitcode


def sweep_child(jobs: Sequence[Job], store: Path, workers: int) -> None:
    torch.set_num_threads(1)
    sweep(jobs, toy_run, context(store), workers=workers)


def train_child(recipe: TrainingConfig, checkpoint: Path, result: Path) -> None:
    torch.set_num_threads(1)
    network, history = run_training(recipe, 3, checkpoint=checkpoint, checkpoint_every=0.0)
    result.write_text(f"{checksum(network)} {history.losses}")


def command_child(arguments: Sequence[str], folder: Path) -> None:
    """The ``robustness`` command, its two outputs in files."""
    os.chdir(folder)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    sys.argv = ["robustness", *arguments]
    cli.main()


get_command = functools.cache(typer.main.get_command)
"""Making it takes longer than most commands."""

Command = Callable[..., tuple[int, str, str]]
"""The ``robustness`` command in this process: arguments to status, output and errors."""


def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command, in the folder where the test is."""

    def run(*arguments: str) -> tuple[int, str, str]:
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", ["robustness", *arguments])
        monkeypatch.setattr(typer.main, "get_command", get_command)
        capfd.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        torch.set_num_threads(threads)
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


def forbid(*arguments: object, **options: object) -> None:
    """In place of a training that must not be done."""
    raise AssertionError("trained again")


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    """Wait until a function returns true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended but was not yet waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stored(store: Path) -> dict[str, Metrics]:
    """Metrics by key."""
    return {record.job.key: record.metrics for record in Store(store).records()}


def refused(command: Command, *arguments: str) -> str:
    """The one sentence of a mistake."""
    status, out, err = command(*arguments)
    assert (status, out) == (2, ""), err
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line
