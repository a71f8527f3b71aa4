"""Training by several processes is training by one: same loss curve, same weights, within rounding."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import PLAIN, images

from robustness_lib.runner.records import Store
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.distributed import join, rank_and_count
from robustness_lib.training.trainer import train

RECIPE = TrainingConfig(epochs=3, batch_size=16, learning_rate=0.05, observations=3)


def network(seed: int) -> nn.Module:
    """Without batch normalisation, whose statistics are of a process's own images on a CPU."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 4))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


class Stop(Exception):
    @classmethod
    def after(cls, looks: int) -> Callable[[nn.Module], dict[str, Tensor]]:
        left = iter(range(looks))

        def observe(network: nn.Module) -> dict[str, Tensor]:
            if next(left, None) is None:
                raise cls
            return {}

        return observe


def process(rank: int, port: int, work: Callable[..., None], *arguments: object) -> None:
    """Work as one of two processes that ``torchrun`` starts."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    torch.set_num_threads(1)
    work(rank, *arguments)


def in_two_processes(work: Callable[..., None], *arguments: object) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(toys.child(process, rank, port, work, *arguments)) for rank in range(2)]
        for child in children:
            child.join(240)
            assert child.exitcode == 0


def train_together(rank: int, result: Path) -> None:
    with join("cpu") as joined:
        assert (joined, 2) == rank_and_count() == (rank, 2)
        options = {"seed": 3, "runtime": PLAIN, "checkpoint": result / "unfinished", "checkpoint_every": 0.0}
        with pytest.raises(Stop):  # the first process's weights count
            train(network(rank), images(43), RECIPE, observe=Stop.after(1), **options)
        trained = network(5)
        history = train(trained, images(43), RECIPE, **options)
    torch.save([trained.state_dict(), history.losses], result / f"{rank}.pt")


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    in_two_processes(train_together, tmp_path)
    alone = network(0)
    expected = train(alone, images(43), RECIPE, seed=3, runtime=PLAIN).losses
    for rank in range(2):
        weights, losses = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert losses == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(weights, dict(alone.state_dict()), rtol=1e-4, atol=1e-6)


def pretrain_together(rank: int, command: list[str], folder: Path) -> None:
    (folder / str(rank)).mkdir()
    toys.command_child([*command, str(folder / "two")], folder / str(rank))


def test_the_command_pretrains_one_checkpoint_with_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys.write_bundle(tmp_path / "data", "corpus", 160, 4)
    options = ["--corpus", "corpus", "--data-root", str(tmp_path / "data"), "--precision", "float32"]
    command = ["pretrain", *options, "--set", "epochs=2", "--store"]
    in_two_processes(pretrain_together, command, tmp_path)
    said = [(tmp_path / str(rank) / "stdout").read_text() for rank in range(2)]
    assert [text.count("validation error") for text in said] == [1, 0]

    monkeypatch.chdir(tmp_path)
    assert toys.command(monkeypatch, capfd)(*command, "one")[0] == 0
    (one,), (two,) = (Store(tmp_path / store).records("pretraining") for store in ("one", "two"))
    assert two.job == one.job
    assert two.metrics["losses"] == pytest.approx(one.metrics["losses"], rel=0.25)  # batch normalisation differs
    assert (one.provenance.get("processes"), two.provenance["processes"]) == (None, 2)
    assert [path.name for path in (tmp_path / "two/checkpoints").iterdir()] == [
        path.name for path in (tmp_path / "one/checkpoints").iterdir()
    ]
