"""One update of a network, and the ways to run it: op by op, compiled, or as a replayed CUDA graph.

Everything that an update reads and writes stays at one place in the device's memory for the whole training, so that an
update needs nothing from the host: on a GPU a whole step, attack and optimiser included, is recorded as a CUDA graph.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.errors import UserError, first_line
from robustness_lib.methods.interfaces import Forward, Loss, Perturb
from robustness_lib.models.architectures import freeze_all_but_head, train_mode
from robustness_lib.training.config import TrainingConfig, learning_rate_at
from robustness_lib.training.data_loader import DeviceImages, mean_and_std, to_unit_range
from robustness_lib.training.device import Runtime
from robustness_lib.training.distributed import distributed, rank_and_count

WARM_UPS = 3  # runs of a step before it is recorded, in which libraries choose algorithms and compilers compile


class Update:
    """The update step of one network, which is on the device in channels-last memory and trained in place."""

    def __init__(
        self,
        network: nn.Module,
        images: DeviceImages,
        labels: Tensor,
        recipe: TrainingConfig,
        runtime: Runtime,
        *,
        per_epoch: int,
        loss: Loss,
        perturb: Perturb | None,
    ) -> None:
        self.network, self.images, self.labels = network, images, labels
        self.recipe, self.runtime, self.loss, self.perturb = recipe, runtime, loss, perturb
        self.per_epoch = per_epoch
        self.rank, self.processes = rank_and_count()
        self.steps = math.ceil(per_epoch / recipe.batch_size)
        if self.size(self.steps - 1) < self.processes:
            raise UserError(
                f"the last batch of an epoch has {self.size(self.steps - 1)} images, fewer than the {self.processes} "
                "processes that share it; choose another number of processes or batch_size"
            )
        device = torch.device(runtime.device)
        self.mean, self.std = mean_and_std(recipe.normalisation, device, torch.float32)
        network.requires_grad_(True)
        if recipe.trainable == "head":
            freeze_all_but_head(network)
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.called = distributed(network)

        # float64 is what the CPU's optimiser computes with, float32 what the GPU's reads
        self.rate = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        momentum, nesterov = recipe.momentum, recipe.nesterov and recipe.momentum > 0
        settings: dict[str, Any] = {"weight_decay": recipe.weight_decay, "momentum": momentum, "nesterov": nesterov}
        self.optimiser = torch.optim.SGD(self.trained.values(), lr=self.rate, fused=True, **settings)
        self.momentum = {name: torch.zeros_like(value) for name, value in self.trained.items() if recipe.momentum}
        for name, buffer in self.momentum.items():  # zero is what the first update makes of no momentum at all
            self.optimiser.state[self.trained[name]]["momentum_buffer"] = buffer

        whole = {"dtype": torch.int64, "device": device}
        self.order, self.top, self.left = (torch.zeros(per_epoch, **whole) for _ in range(3))  # type: ignore[call-overload]
        self.mirrored = torch.zeros(per_epoch, dtype=torch.bool, device=device)
        self.rates = self.rate.new_zeros(self.steps)
        self.losses = torch.zeros(self.steps, device=device)  # filled in during an epoch
        self.step = torch.zeros(1, **whole)  # type: ignore[call-overload]
        self.of_batch = torch.arange(self.rank, recipe.batch_size, self.processes, device=device)
        self.random = torch.Generator(device)
        self.replays: dict[int, Callable[[], None]] = {}
        able = "graphs" not in unavailable  # a recording that CUDA broke off leaves traces in its allocator
        self.recorded = runtime.graphs and able and getattr(loss, "static_shapes", True) and self.processes == 1

    def begin_epoch(self, epoch: int, augmentation: Sequence[Tensor], random_seed: int) -> None:
        """Put in place the order, tops, lefts and flips, each [per_epoch], and the seed of dropout and attacks."""
        for here, value in zip((self.order, self.top, self.left, self.mirrored), augmentation, strict=True):
            here.copy_(value)
        first, total = (epoch - 1) * self.steps, self.recipe.epochs * self.steps
        rates = [learning_rate_at(first + k, total, self.recipe) for k in range(1, self.steps + 1)]
        self.rates.copy_(torch.tensor(rates, dtype=self.rates.dtype))
        self.losses.zero_()
        self.step.zero_()
        self.random.manual_seed(random_seed)

    def size(self, step: int) -> int:
        """Images in batch number ``step`` (from 0), of all processes together."""
        return min(self.recipe.batch_size, self.per_epoch - step * self.recipe.batch_size)

    def advance(self, size: int) -> None:
        """Do the next update, of a batch of ``size`` images: replay it where it can be recorded, else run it."""
        if self.recorded and size not in self.replays:
            try:
                self.replays[size] = self._record(size)
            except Exception as error:  # what cannot be recorded can still run, and then says what is wrong with it
                _without("graphs", error)
                self.recorded = False
                if self.random.device.type != "cpu":
                    self.random = _renewed(self.random)
                    default = _default_generator(self.random.device)
                    default.graphsafe_set_state(_renewed(default))
        if self.recorded:
            self.replays[size]()
        else:
            self.run(size)

    def _record(self, size: int) -> Callable[[], None]:
        kept, drawn = [value.clone() for value in self._state()], self.random.get_state()

        def restore() -> None:
            with torch.no_grad():
                for here, value in zip(self._state(), kept, strict=True):
                    here.copy_(value)
            self.random.set_state(drawn)

        try:
            with aside(self.step.device):
                for _ in range(WARM_UPS):
                    self.run(size)
                    restore()
            return record(functools.partial(self.run, size), self.random)
        finally:
            self.optimiser.zero_grad(set_to_none=True)
            restore()

    def _state(self) -> list[Tensor]:
        """Everything that a step changes."""
        return [*self.network.state_dict().values(), *self.momentum.values(), self.losses, self.step]

    def run(self, size: int) -> None:
        """The next update; nothing in it waits for the device."""
        part = self.of_batch[: len(range(self.rank, size, self.processes))]
        position = part + self.step * self.recipe.batch_size
        indices = self.order[position]
        crops = self.images.crop(indices, self.top[position], self.left[position], self.mirrored[position])
        batch = to_unit_range(crops)
        labels = self.labels[indices]
        self.rate.copy_(self.rates[self.step].view(()))
        self.optimiser.zero_grad(set_to_none=True)
        with _random_numbers(self.random), self.runtime.autocast():
            if self.perturb is not None:
                with _as_attacked(self.network, self.trained.values(), self.perturb):
                    batch = self.perturb(self._forward(self.network), batch, labels)
            value = self.loss(self._forward(self.called), batch, labels, indices)
        share = len(part) * self.processes / size
        (value if share == 1 else value * share).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses.index_copy_(0, self.step, value.detach().float().view(1) * (len(part) / size))
        self.step += 1

    def _forward(self, network: nn.Module) -> Forward:
        def forward(images: Tensor, /) -> Tensor:
            whole = len(images) == self.recipe.batch_size  # another size would be compiled anew
            call = _compiled if self.runtime.compile and whole and network is self.network else _call
            return call(network, images, self.mean, self.std)

        return forward


@contextlib.contextmanager
def _as_attacked(network: nn.Module, parameters: Collection[nn.Parameter], perturb: Perturb) -> Iterator[None]:
    """In the mode in which it is attacked, without gradients of parameters, which a compiled attack would compute."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    evaluation_mode = getattr(perturb, "evaluation_mode", False)
    if evaluation_mode:
        network.eval()
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        if evaluation_mode:
            train_mode(network)


@contextlib.contextmanager
def _random_numbers(own: torch.Generator) -> Iterator[None]:
    """Let PyTorch's default generator of the device be ``own``."""
    if own.device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(own.get_state())
            try:
                yield
            finally:
                own.set_state(torch.get_rng_state())
    else:
        default = _default_generator(own.device)
        kept = default.graphsafe_get_state()
        default.graphsafe_set_state(own)
        try:
            yield
        finally:
            default.graphsafe_set_state(kept)


def _default_generator(device: torch.device) -> torch.Generator:
    index = torch.cuda.current_device() if device.index is None else device.index
    generator: torch.Generator = torch.cuda.default_generators[index]
    return generator


def _renewed(generator: torch.Generator) -> torch.Generator:
    """One with the same numbers ahead, for CUDA where a recording with the old one was broken off."""
    return torch.Generator(generator.device).set_state(generator.get_state())


def _call(network: nn.Module, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    logits: Tensor = network((images - mean) / std)
    return logits


@functools.cache
def _compiler() -> Callable[..., Tensor]:
    """One compiled function for all networks of a process; its random numbers are those that are drawn without."""
    torch._dynamo.config.recompile_limit = 128  # each kind of network, attack and number of classes is compiled once
    return torch.compile(_call, dynamic=False, fullgraph=True, options={"fallback_random": True})


def _compiled(network: nn.Module, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if "compile" not in unavailable:
        try:
            return _compiler()(network, images, mean, std)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            _without("compile", error)
    return _call(network, images, mean, std)


unavailable: set[str] = set()
"""The ways, ``"compile"`` or ``"graphs"``, that a training of this process was asked to run in and could not."""


def _without(way: str, error: Exception) -> None:
    """Say once that trainings run without ``way``."""
    if way not in unavailable:
        unavailable.add(way)
        words = {"compile": "compilation", "graphs": "CUDA graphs"}[way]
        reason = f"more slowly but to the same result: {first_line(error)}"
        warnings.warn(f"training runs without {words}, {reason}", stacklevel=2)


@contextlib.contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """On another stream of the device, as what precedes a recording must be."""
    if device.type == "cpu":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def record(work: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record what ``work`` does on the GPU, with random numbers of ``generator``, as a CUDA graph; give its replay."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):  # left even where recording fails
        work()
    replay: Callable[[], None] = graph.replay
    return replay
