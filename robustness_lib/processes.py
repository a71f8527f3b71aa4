"""Several processes that train one network together, as ``torchrun`` starts them.

Every batch is divided between them and everything else is the same as in one process: the order and the crops, the
statistics of batch normalisation (taken over the whole batch) and the mean gradient. So the recipe, and within
rounding the result, does not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustness_lib.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    def share(self, size: int) -> int:
        """How many images of a batch of ``size`` are this process's."""
        return len(range(self.rank, size, self.count))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def tell(self, value: T) -> T:
        """The first process's value, in every process.

        Args:
            value: Anything that can be pickled; only the first process's matters.
        """
        if self.count == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        told: T = box[0]
        return told


def started() -> bool:
    """Whether ``torchrun`` started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def joined() -> Processes:
    """The processes that this one has joined: itself alone unless within :func:`join`."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes()


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, for as long as the context lasts.

    Args:
        device: Where networks run; GPUs talk through NCCL, CPUs through Gloo.

    Raises:
        UserError: The processes do not find each other.
    """
    if not started():
        yield Processes()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of torchrun did not find each other ({str(error).splitlines()[0]}); start them with "
            "'torchrun --nproc-per-node N -m robustness_lib pretrain …'"
        ) from error
    try:
        yield joined()
    finally:
        dist.destroy_process_group()


def synchronise(network: nn.Module) -> None:
    """Let batch normalisation use the whole batch's statistics, and all processes the first one's weights.

    Args:
        network: On its device; changed in place, its parameters and their names stay.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                if child.weight.device.type == "cuda":
                    shared = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                else:  # which PyTorch's own does not know
                    shared = _SharedBatchNorm.of(child)
                setattr(module, name, shared)
    for value in network.state_dict().values():
        dist.broadcast(value, 0)


class _Sum(torch.autograd.Function):
    """The sum over processes of a value that a loss depends on; the gradient is summed likewise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' images."""

    @classmethod
    def of(cls, other: nn.BatchNorm2d) -> _SharedBatchNorm:
        shared = cls(other.num_features, other.eps, other.momentum)
        shared.weight, shared.bias = other.weight, other.bias
        for name, buffer in other.named_buffers():
            setattr(shared, name, buffer)
        return shared.train(other.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        images = input.float()
        here = torch.stack([images.sum((0, 2, 3)), torch.full_like(self.weight, images.numel() / images.shape[1])])
        total, count = _Sum.apply(here)  # type: ignore[no-untyped-call]
        mean = total / count
        centred = images - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * count / (count - 1), momentum)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        result: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return result.to(input.dtype)
