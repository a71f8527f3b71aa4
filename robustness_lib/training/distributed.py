"""Several processes that train one network, as ``torchrun`` starts them: distributed data parallel.

Every batch is divided between them; order, crops and the mean gradient are those of one process, and on GPUs the
statistics of batch normalisation too. On CPUs, which ``SyncBatchNorm`` does not know, each normalises its own part.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robustness_lib.errors import UserError, first_line


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many train together: 0 and 1 unless within :func:`join`."""
    joined = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)


def local_device(device: str) -> str:
    """The GPU of this process where ``torchrun`` started several on one machine, else ``device``."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextlib.contextmanager
def join(device: str) -> Iterator[int]:
    """Join the processes that ``torchrun`` started, if it did, while the context lasts; give this one's number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if on_gpu := device.startswith("cuda"):
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of torchrun did not find each other ({first_line(error)}); start them with "
            "'torchrun --nproc-per-node N -m robustness_lib pretrain …'"
        ) from error
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes within :func:`join` are here."""
    if rank_and_count()[1] > 1:
        dist.barrier()


def distributed(network: nn.Module) -> nn.Module:
    """What training calls instead of ``network``, which is on its device and gets the first process's weights."""
    if rank_and_count()[1] == 1:
        return network
    if next(network.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # in place: no network is one
    return DistributedDataParallel(network)
