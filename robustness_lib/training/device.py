"""Where networks run: the device, its arithmetic, and how both are named in a record."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustness_lib.errors import UserError, choose


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and with which arithmetic networks run; :meth:`detect` finds what the machine has."""

    device: str = "cpu"  # or "cuda", or "cuda:<n>"
    precision: str = "float32"  # or "bfloat16": autocast during training
    threads: int = 1  # CPU threads that PyTorch uses
    compile: bool = False  # whether networks are compiled for training (torch.compile)
    graphs: bool = False  # whether training steps are recorded as CUDA graphs and replayed

    @classmethod
    def detect(
        cls, device: str = "auto", precision: str = "auto", threads: int | None = None, compile: bool | None = None
    ) -> Runtime:
        """The best that this machine has, or what was chosen of it; by default all threads, and compiled on a GPU."""
        choose(precision, ("auto", "bfloat16", "float32"), "precision")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind, colon, number = device.partition(":")
        choose(kind, ("cpu", "cuda"), "device")
        if colon and (kind == "cpu" or re.fullmatch("0|[1-9][0-9]*", number) is None):
            raise UserError(f"device is {device!r} but must be auto, cpu, cuda, or cuda:N with the number N of a GPU")
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError(f"device {device} was asked for but PyTorch finds no CUDA GPU here; use --device cpu")
        if colon and int(number) >= torch.cuda.device_count():
            raise UserError(
                f"device {device} was asked for but the last GPU here is cuda:{torch.cuda.device_count() - 1}; "
                "choose that or a lower number"
            )
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads} but must be at least 1; leave it out for all")
        if precision == "auto":
            precision = "bfloat16" if _computes_in_bfloat16(kind) else "float32"
        return cls(
            device=device,
            precision=precision,
            threads=threads or torch.get_num_threads(),
            compile=kind == "cuda" if compile is None else compile,
            graphs=kind == "cuda",
        )

    def describe(self) -> dict[str, str | int | bool]:
        """Device name, threads, precision and way of running, for a record's provenance."""
        on_gpu = self.device.startswith("cuda")
        name = torch.cuda.get_device_name(self.device) if on_gpu else f"CPU {cpu_name()}"
        rounded = on_gpu and self.precision == "float32"  # PyTorch rounds the factors of convolutions by default
        return {
            "device": name,
            "threads": self.threads,
            "precision": self.precision,
            "compile": self.compile,
            "graphs": self.graphs,
            **({"tf32": bool(torch.backends.cudnn.allow_tf32)} if rounded else {}),
        }

    def in_words(self) -> str:
        """Device and precision, as in ``"NVIDIA H200, bfloat16"``."""
        where = self.describe()
        return f"{where['device']}, {where['precision']}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of training steps."""
        kind = self.device.split(":")[0]
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Let convolutions on a GPU compute in float32 throughout, where cuDNN would round to TF32; also a decorator."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def out_of_gpu_memory(error: Exception) -> bool:
    """Whether an error says that the GPU's memory did not suffice, whichever library it comes from."""
    words = ("CUDA error: out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _computes_in_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
