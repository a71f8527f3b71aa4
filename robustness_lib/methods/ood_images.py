"""OOD images of P1 §4.1: noise that is made here, samples of any set, and what a set shares with a corpus."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import check_whole
from robustness_lib.randomness import generator, stream_seed

_PURPOSE = "foreign"  # of the random streams here: frozen, as recorded samples depend on it


def gaussian(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Gaussian noise, float32 [count, 3, size, size]: every value from N(0, 0.5²), clipped to [-1, 1]."""
    return torch.from_numpy(stream.normal(0, 0.5, (count, 3, size, size)).clip(-1, 1).astype(np.float32))


def rademacher(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Rademacher noise: every value of every channel -1 or +1 with probability 1/2."""
    return torch.from_numpy(stream.integers(0, 2, (count, 3, size, size)).astype(np.float32) * 2 - 1)


def blobs(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Blobs: values that are 1 with probability 0.7, else 0, blurred across pixels and colours (P1's code), cut off."""
    from scipy.ndimage import gaussian_filter

    values = (stream.random((count, size, size, 3)) < 0.7).astype(np.float32)
    width = 1.5 if size <= 32 else 2.0
    values = gaussian_filter(values, (0, width, width, width), mode="nearest", truncate=4)
    values[values < 0.75] = 0
    return torch.from_numpy(values * 2 - 1).permute(0, 3, 1, 2).contiguous()


NOISE_IMAGES = {"gaussian": gaussian, "rademacher": rademacher, "blobs": blobs}


def make_noise_images(name: str, count: int, size: int, seed: int) -> Tensor:
    """A set of :data:`NOISE_IMAGES`, float32 [count, 3, size, size] in [-1, 1], from a random stream of its own."""
    make = NOISE_IMAGES[choose(name, NOISE_IMAGES, "set that is made")]
    return make(count, size, np.random.default_rng(stream_seed(seed, _PURPOSE, name)))


@dataclass(frozen=True)
class OODSample:
    """Several samples of OOD images."""

    images: Tensor  # all that are in any
    rows: Tensor  # int64 [R, n], for each sample their places there


def sample_ood_images(name: str, images: Tensor, count: int, draws: int, seed: int) -> OODSample:
    """``draws`` samples of ``count`` of the images [N, ...], each without replacement (P1's "five runs")."""
    check_whole(count, "the number of images of a draw", 1, "set draw_images")
    check_whole(draws, "draws", 1, "the paper takes 5")
    if count > len(images):
        raise UserError(
            f"{name} has {len(images)} images but a draw has {count}; "
            f"add --set draw_images={len(images)} or fewer, or leave {name} out"
        )
    streams = (generator(seed, _PURPOSE, name, number) for number in range(draws))
    samples = torch.stack([torch.randperm(len(images), generator=stream)[:count] for stream in streams])
    used, rows = torch.unique(samples, return_inverse=True)
    return OODSample(images[used], rows)


def _words(name: str) -> tuple[str, ...]:
    words = re.sub(r"[\W_]+", " ", name.lower()).split()
    return tuple(re.sub(r"(?<=..[^s])s$", "", word) for word in words)


def shared_classes(names: Sequence[str], corpus: Sequence[str]) -> tuple[list[str], list[str]]:
    """Classes of a set that a corpus may have too, by the names of both; case, hyphens and the plural's s aside.

    Those whose whole name is that of a class of the corpus; and with these, those that share its last word, as "bottle"
    does with "beer bottle".
    """
    whole, last = {_words(name) for name in corpus}, {_words(name)[-1:] for name in corpus}
    same = [name for name in names if _words(name) in whole]
    return same, [name for name in names if _words(name) in whole or _words(name)[-1:] in last]


DUPLICATE = 0.65
"""From which similarity on two images count as one photograph (:func:`nearest_images`); of pairs of CIFAR's and
ImageNet's images, inspected by eye, nearly all above it are, and some below it too."""


def nearest_images(images: Tensor, corpus: Tensor, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """How similar each image, uint8 [N, 3, S, S], is to the most similar one of a corpus [M, 3, S, S].

    Similarity, float32 [N] in [-1, 1], is the correlation of the signed square roots of differences between
    neighbouring pixels, without the outer eighths, where many have a frame; candidates are the three images whose
    thumbnails correlate most. A copy that is cropped, mirrored or shifted is missed. Also gives places in the corpus,
    int64 [N].
    """
    if images.shape[1:] != corpus.shape[1:] or not len(images) or not len(corpus):
        raise UserError(
            f"the images have the shape {list(images.shape)} and the corpus {list(corpus.shape)}; give at least one "
            "image of each, of one size"
        )
    small = torch.cat([_thumbnails(part) for part in torch.split(corpus, 10_000)]).to(device)
    similarity, places = [], []
    for part in torch.split(images, 500):
        candidates = (_thumbnails(part).to(device) @ small.T).topk(min(3, len(corpus)), dim=1).indices.cpu()
        best = torch.einsum("nd,nkd->nk", _edges(part), _edges(corpus[candidates])).max(1)
        similarity.append(best.values)
        places.append(candidates.gather(1, best.indices[:, None])[:, 0])
    return torch.cat(similarity).clamp(-1, 1), torch.cat(places)


def _thumbnails(images: Tensor) -> Tensor:
    """Thumbnails of 8x8 pixels as vectors of length 1 (0 for one colour), the mean of each channel taken away."""
    values = F.adaptive_avg_pool2d(images.float(), 8).flatten(-2)
    return F.normalize((values - values.mean(-1, keepdim=True)).flatten(-2), dim=-1)


def _edges(images: Tensor) -> Tensor:
    """Differences of neighbouring pixels as vectors of length 1."""
    margin = images.shape[-1] // 8
    values = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin].float()
    steps = torch.cat([values.diff(dim=-1).flatten(-3), values.diff(dim=-2).flatten(-3)], dim=-1)
    return F.normalize(steps.sign() * steps.abs().sqrt(), dim=-1)
