"""What a step needs: floating-point operations, and bytes of memory traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from robustness_lib.methods.pgd import Adversary
from robustness_lib.models.architectures import build
from robustness_lib.training.config import TrainingConfig

with FakeTensorMode():
    pass  # the first entry replaces a device guard, which ends the process where a thread has trained before

NO_TRAFFIC = ("aten::empty", "aten::_unsafe_view")
"""Operators (beginnings of their names) that are no views and yet move nothing: they only reserve or relabel memory."""


class TrafficCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that operators read and write.

    Every operator is taken to read each of its inputs from memory once and to write each of its outputs once; views
    cost nothing. Nothing is taken to be fused, and no operator to find its input in a cache: more than an
    implementation that fuses operators has to move, so an upper estimate.

    Attributes:
        bytes: The sum.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and not func.is_view and not func._schema.name.startswith(NO_TRAFFIC):
            changed = [
                value
                for value, argument in zip(args, func._schema.arguments, strict=False)
                if argument.alias_info is not None and argument.alias_info.is_write
            ]
            written = {id(leaf): leaf for leaf in tree_leaves((result, changed))}
            for leaf in (*tree_leaves((args, kwargs)), *written.values()):
                self.bytes += leaf.nbytes if isinstance(leaf, Tensor) else 0
        return result


def count(step: Callable[[], object]) -> tuple[int, int]:
    """Floating-point operations (a multiply and an add are two) and bytes of traffic of one call.

    Operations are those of matrix products and convolutions, which are all but a few thousandths.
    """
    with FlopCounterMode(display=False) as operations, TrafficCounter() as traffic:
        step()
    return int(operations.get_total_flops()), traffic.bytes


def count_step(work: str, recipe: TrainingConfig, precision: str, *, classes: int, size: int = 32) -> tuple[int, int]:
    """What one step needs, counted on tensors without content, so in no time.

    Args:
        work: ``"training"``, ``"adversarial training"`` or ``"evaluation"``.
        recipe: Architecture and batch size.
        precision: ``"bfloat16"`` (autocast) or ``"float32"``.
        classes: Logits.
        size: Pixels along a side.

    Returns:
        Operations and bytes of a whole batch: in training forward, backward and update, in adversarial training the
        attack too.
    """
    with FakeTensorMode():
        network = build(recipe.architecture, classes)
        images = torch.rand(recipe.batch_size, 3, size, size)
        labels = torch.zeros(recipe.batch_size, dtype=torch.int64)

        def forward(images: Tensor, /) -> Tensor:
            logits: Tensor = network(2 * images - 1)
            return logits.float()

        half_precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
        if work == "evaluation":
            network.eval()
            with torch.no_grad(), half_precision:
                return count(lambda: forward(images))
        optimiser = torch.optim.SGD(
            network.parameters(), recipe.learning_rate, recipe.momentum, nesterov=True, weight_decay=1e-4, fused=True
        )

        attack = Adversary(steps=recipe.attack_steps)

        def step() -> None:
            with half_precision:
                batch = attack(forward, images, labels) if work == "adversarial training" else images
                loss = F.cross_entropy(forward(batch), labels)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()

        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()  # the first makes the momentum
        return count(step)
