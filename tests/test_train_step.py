"""The ways to run an update: op by op, compiled, recorded and replayed.

CUDA graphs are imitated on the CPU by :class:`Recording`, which keeps the operators that ran with the memory they read
and wrote, and replays them there: whatever a step had taken from the host would be replayed as it was then. The tests
named ``cuda`` do the same with real graphs, where there is a GPU.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from toys import PLAIN, checksum, images, run_training

from robustness_lib.methods.interfaces import Forward
from robustness_lib.randomness import generator
from robustness_lib.training import train_step
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime, full_float32
from robustness_lib.training.trainer import train, weighted_cross_entropy

RECORDED = dataclasses.replace(PLAIN, graphs=True)
RECIPE = TrainingConfig(architecture="wrn-10-1", epochs=2, batch_size=16, learning_rate=0.05, dropout=0.3)


@pytest.fixture
def _full_float32() -> Iterator[None]:
    """What two ways differ by is then a mistake, not rounding: with TF32 an H200's losses differed by up to 0.25 %."""
    with full_float32():
        yield


def on_a_gpu(test: Callable[..., None]) -> Callable[..., None]:
    without = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    return without(pytest.mark.usefixtures("_full_float32")(test))


class Recording(TorchDispatchMode):
    """The operators that run within it, to be run again on the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.operators:
            there = {t.untyped_storage().data_ptr() for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)}
            again = tree_flatten(func(*args, **kwargs))[0]
            for old, new in zip(tree_flatten(result)[0], again, strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in there:
                    old.copy_(new)


def imitated(work: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    with Recording() as recording:
        work()

    def replay() -> None:
        with train_step._random_numbers(generator):
            recording.replay()

    return replay


def noisy(network: Forward, batch: Tensor, labels: Tensor) -> Tensor:
    """An attack in one step with a random start."""
    start = (batch + 0.03 * torch.rand_like(batch)).requires_grad_()
    loss = nn.functional.cross_entropy(network(start).float(), labels)
    return (batch + 0.02 * torch.autograd.grad(loss, start)[0].sign()).clamp(0, 1)


def run(
    seed: int, runtime: Runtime = PLAIN, recipe: TrainingConfig = RECIPE, **options: Any
) -> tuple[str, list[float]]:
    """Weights and losses of a fresh network's training."""
    network, history = run_training(recipe, seed, runtime=runtime, **options)
    return checksum(network), history.losses


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "attacked": {"perturb": noisy},
    "weighted": {"loss": weighted_cross_entropy(torch.arange(40) / 20)},
}


@pytest.mark.parametrize(
    ("option", "trainable"), [("plain", "all"), ("plain", "head"), ("attacked", "all"), ("weighted", "all")]
)
def test_a_recorded_step_needs_nothing_from_the_host(
    option: str, trainable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = []

    def counting(work: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        recorded.append(work)
        return imitated(work, generator)

    monkeypatch.setattr(train_step, "record", counting)
    recipe = dataclasses.replace(RECIPE, trainable=trainable)
    expected = run(1, recipe=recipe, **OPTIONS[option])
    assert run(1, RECORDED, recipe, **OPTIONS[option]) == expected
    assert len(recorded) == 2  # one a batch size: 40 images are two batches of 16 and one of 8, twice


def test_what_cannot_be_recorded_runs_all_the_same_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(work: Callable[[], None], generator: object) -> Callable[[], None]:
        work()
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(train_step, "record", refuse)
    monkeypatch.setattr(train_step, "unavailable", set())
    expected = run(2)
    with pytest.warns(UserWarning, match="without CUDA graphs.*not permitted"):
        assert run(2, RECORDED) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(2, RECORDED) == expected


def test_a_loss_of_varying_shapes_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def split(network: Forward, batch: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        first = labels < 2
        losses = [nn.functional.cross_entropy(network(batch[part]), labels[part]) for part in (first, ~first)]
        return torch.stack(losses).mean()

    split.static_shapes = False  # type: ignore[attr-defined]
    monkeypatch.setattr(train_step, "record", lambda *_: pytest.fail("recorded"))
    recipe = dataclasses.replace(RECIPE, epochs=1)
    assert run(1, RECORDED, recipe, loss=split) == run(1, recipe=recipe, loss=split)


def linear(seed: int, runtime: Runtime = PLAIN) -> tuple[nn.Module, list[float]]:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    nn.init.normal_(network[1].weight, std=0.01, generator=generator(seed, "test"))
    nn.init.zeros_(network[1].bias)
    return network, train(network, images(), RECIPE, seed=seed, runtime=runtime).losses


def test_compiled_training_equals_plain_training_and_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # without a pool of processes to start
    compiled = dataclasses.replace(PLAIN, compile=True)
    torch._dynamo.utils.counters.clear()
    for seed in range(2):
        (plain, expected), (fast, found) = linear(seed), linear(seed, compiled)
        assert found == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(fast.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not train_step.unavailable


def test_where_nothing_can_be_compiled_training_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler was found")

    monkeypatch.setattr(train_step, "_compiler", lambda: broken)
    monkeypatch.setattr(train_step, "unavailable", set())
    with pytest.warns(UserWarning, match=r"without compilation.*no C\+\+ compiler"):
        assert linear(1, dataclasses.replace(PLAIN, compile=True))[1] == linear(1)[1]


@on_a_gpu
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("compile", [False, True])
def test_cuda_graphs_equal_op_by_op(option: str, compile: bool) -> None:
    plain = Runtime(device="cuda")
    expected = run(1, plain, **OPTIONS[option])
    found = run(1, dataclasses.replace(plain, graphs=True, compile=compile), **OPTIONS[option])
    assert found[1] == pytest.approx(expected[1], rel=1e-3)
    assert not train_step.unavailable


@on_a_gpu
@pytest.mark.parametrize("wrong", ["waits for the device", "raises"])
def test_cuda_after_a_broken_recording_all_goes_on(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(network: Forward, batch: Tensor, labels: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            if wrong == "raises":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            batch.sum().item()
        return noisy(network, batch, labels)

    monkeypatch.setattr(train_step, "unavailable", set())
    plain = Runtime(device="cuda")
    expected = run(1, plain, perturb=noisy)
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        found = run(1, dataclasses.replace(plain, graphs=True), perturb=breaking)
    assert found[1] == pytest.approx(expected[1], rel=1e-3)
    again = run(1, dataclasses.replace(plain, graphs=True), perturb=noisy)
    assert again[1] == pytest.approx(expected[1], rel=1e-3)


@on_a_gpu
def test_cuda_steps_do_not_wait_for_the_device() -> None:
    seen = []

    def strict(network: Forward, batch: Tensor, labels: Tensor) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        seen.append(len(batch))
        return batch

    try:
        with pytest.raises(RuntimeError, match="synchroniz"):  # the look at the losses after an epoch, nothing before
            run(0, Runtime(device="cuda"), perturb=strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seen == [16, 16, 8]
