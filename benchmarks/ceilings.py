"""What the device can do at most: a large matrix product, and a large copy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch

from robustness_lib.metrics import Metrics
from robustness_lib.training.device import Runtime

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def measure(runtime: Runtime, *, matrix: int, copied: int, rounds: int, least: float = 0.2) -> Metrics:
    """The device's two ceilings.

    Args:
        runtime: Device and precision.
        matrix: Rows and columns of the square matrices that are multiplied; random ones, since zeros are faster.
        copied: Bytes that are copied within the device's memory; far more than its caches hold.
        rounds: How often each is measured.
        least: Seconds that a measurement takes at least.

    Returns:
        ``teraflops``: 10¹² floating-point operations a second of the product, in the precision and as convolutions
        compute (on a GPU in TF32, where PyTorch lets float32 convolutions do so); ``gigabytes_per_second``: 10⁹ bytes
        a second, read and written; each a median over rounds, with ``_by_round``.
    """
    dtype = DTYPES[runtime.precision]
    left, right = (torch.randn(matrix, matrix, device=runtime.device).to(dtype) for _ in range(2))
    source = torch.ones(copied // 4, device=runtime.device)
    target = torch.empty_like(source)
    with _as_convolutions_compute():
        products = [_rate(lambda: torch.mm(left, right), runtime.device, least) for _ in range(rounds)]
    copies = [_rate(lambda: target.copy_(source), runtime.device, least) for _ in range(rounds)]
    teraflops = [2 * matrix**3 * rate / 1e12 for rate in products]
    gigabytes = [2 * source.nbytes * rate / 1e9 for rate in copies]
    return {
        "teraflops": median(teraflops),
        "teraflops_by_round": teraflops,
        "gigabytes_per_second": median(gigabytes),
        "gigabytes_per_second_by_round": gigabytes,
    }


def _rate(work: Callable[[], object], device: str, least: float) -> float:
    """Calls a second, when called again and again for ``least`` seconds or more."""

    def seconds(calls: int) -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds(3)
    calls = 1
    while (taken := seconds(calls)) < least:
        calls = max(calls + 1, int(calls * min(10.0, 1.2 * least / max(taken, 1e-9))))
    return calls / taken


@contextlib.contextmanager
def _as_convolutions_compute() -> Iterator[None]:
    """Let float32 matrix products round as PyTorch lets float32 convolutions round."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
