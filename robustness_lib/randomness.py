"""The only place where a job's seed becomes streams of random numbers, one a purpose.

So a change of one purpose, a longer training for instance, never changes another, such as which labels are corrupted;
and arms that are compared at one seed share every draw but those that are compared.
"""

import hashlib

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """The seed, in [0, 2**63), of one purpose's stream, such as ``("order", epoch)``; the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator at the start of one purpose's stream (see :func:`stream_seed`)."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))
