"""Foreign images: the out-of-distribution sets of P1 §4.1, how they are drawn, and what they share with a corpus.

Three sets are made here, in the range of the network's input; the others are image sets of the data root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import check_whole
from robustness_lib.randomness import generator, stream_seed

# --------------------------------------------------------------------------------------------- images that are made


def gaussian(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Gaussian noise: every value from N(0, 0.5²), clipped to [-1, 1].

    Args:
        count: Number of images N.
        size: Pixels along a side S.
        stream: Source of the values.

    Returns:
        float32 [N, 3, S, S] in [-1, 1].
    """
    return torch.from_numpy(stream.normal(0, 0.5, (count, 3, size, size)).clip(-1, 1).astype(np.float32))


def rademacher(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Rademacher noise: every value of every channel -1 or +1 with probability 1/2 (arguments as :func:`gaussian`)."""
    return torch.from_numpy(stream.integers(0, 2, (count, 3, size, size)).astype(np.float32) * 2 - 1)


def blobs(count: int, size: int, stream: np.random.Generator) -> Tensor:
    """Blobs: blurred noise, cut off (arguments as :func:`gaussian`).

    Values are 1 with probability 0.7, else 0; a Gaussian filter of 1.5 pixels (2 for images of more than 32 pixels)
    blurs them, across the colours too, as in P1's code; what is below 0.75 becomes -1, and the rest 2 v - 1.
    """
    from scipy.ndimage import gaussian_filter

    values = (stream.random((count, size, size, 3)) < 0.7).astype(np.float32)
    width = 1.5 if size <= 32 else 2.0
    values = gaussian_filter(values, (0, width, width, width), mode="nearest", truncate=4)
    values[values < 0.75] = 0
    return torch.from_numpy(values * 2 - 1).permute(0, 3, 1, 2).contiguous()


NOISE_IMAGES: dict[str, Callable[[int, int, np.random.Generator], Tensor]] = {
    "gaussian": gaussian,
    "rademacher": rademacher,
    "blobs": blobs,
}
"""The sets that are made, by name."""


def make_noise_images(name: str, count: int, size: int, seed: int) -> Tensor:
    """Make one of the sets of :data:`NOISE_IMAGES`.

    Args:
        name: Which.
        count: Number of images N.
        size: Pixels along a side S.
        seed: The job's seed; every set has a stream of its own.

    Returns:
        float32 [N, 3, S, S] in [-1, 1].

    Raises:
        UserError: There is no such set.
    """
    return NOISE_IMAGES[choose(name, NOISE_IMAGES, "set that is made")](
        count, size, np.random.default_rng(stream_seed(seed, "foreign", name))
    )


# --------------------------------------------------------------------------------------------- draws


@dataclass(frozen=True)
class OODSample:
    """Several draws of foreign images, each image once.

    Attributes:
        images: uint8 [M, 3, S, S], or float32 in [-1, 1] where they are made: those that any draw has.
        rows: int64 [R, n], the draws: places in ``images``.
    """

    images: Tensor
    rows: Tensor


def sample_ood_images(name: str, images: Tensor, count: int, draws: int, seed: int) -> OODSample:
    """Draw from a set several times, each time without replacement (P1's "five runs").

    Args:
        name: The set's name; each has streams of its own.
        images: [N, ...].
        count: Images of a draw, at most N.
        draws: How often.
        seed: The job's seed.

    Returns:
        The draws.

    Raises:
        UserError: The set is smaller than a draw, or there is nothing to draw.
    """
    check_whole(count, "the number of images of a draw", 1, "set draw_images")
    check_whole(draws, "draws", 1, "the paper takes 5")
    if count > len(images):
        raise UserError(
            f"{name} has {len(images)} images but a draw has {count}; "
            f"add --set draw_images={len(images)} or fewer, or leave {name} out"
        )
    chosen = torch.stack(
        [
            torch.randperm(len(images), generator=generator(seed, "foreign", name, number))[:count]
            for number in range(draws)
        ]
    )
    used, rows = torch.unique(chosen, return_inverse=True)
    return OODSample(images[used], rows)


# --------------------------------------------------------------------------------------------- overlap


def _words(name: str) -> tuple[str, ...]:
    words = re.sub(r"[\W_]+", " ", name.lower()).split()
    return tuple(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


def shared_classes(names: Sequence[str], corpus: Sequence[str]) -> tuple[list[str], list[str]]:
    """Classes of a set that a corpus may have too, by their names.

    Case, hyphens and underscores, and the plural's s do not matter. Names do not tell everything: a kind of cat may be
    called "tabby", and a "mouse" may belong to a computer.

    Args:
        names: Names of the set's classes.
        corpus: Names of the corpus's.

    Returns:
        Those whose whole name is the name of a class of the corpus, and those that share at least its last word, as
        "bottle" does with "beer bottle"; the first are among the second.
    """
    whole, last = {_words(name) for name in corpus}, {_words(name)[-1:] for name in corpus}
    same = [name for name in names if _words(name) in whole]
    return same, [name for name in names if _words(name) in whole or _words(name)[-1:] in last]


DUPLICATE = 0.65
"""From which similarity on two images count as one photograph (:func:`nearest_images`). Of CIFAR's test images and
160,000 of Downsampled ImageNet, looked at by eye, nearly all pairs above it are, and some below it too."""

_THUMBNAIL = 8


def nearest_images(images: Tensor, corpus: Tensor, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """How similar each image is to the most similar one of a corpus.

    Similarity is the correlation of the differences between neighbouring pixels, of which the square root is taken
    with its sign, so that neither brightness, tint and contrast nor a single strong edge decides; an eighth of the
    image on each side is left out, where many have a frame. The candidates are the three images whose thumbnails
    correlate most. A copy that is cropped, mirrored, or shifted by a pixel or two is not found.

    Args:
        images: uint8 [N, 3, S, S].
        corpus: uint8 [M, 3, S, S].
        device: Where to compute.

    Returns:
        float32 [N], correlations in [-1, 1], and int64 [N], places in the corpus.

    Raises:
        UserError: One is empty, or their sizes differ.
    """
    if images.shape[1:] != corpus.shape[1:] or not len(images) or not len(corpus):
        raise UserError(
            f"the images have the shape {list(images.shape)} and the corpus {list(corpus.shape)}; give at least one "
            "image of each, of one size"
        )
    small = torch.cat([_thumbnails(part) for part in torch.split(corpus, 10_000)]).to(device)
    best, where = [], []
    for part in torch.split(images, 500):
        candidates = (_thumbnails(part).to(device) @ small.T).topk(min(3, len(corpus)), dim=1).indices.cpu()
        found = torch.einsum("nd,nkd->nk", _edges(part), _edges(corpus[candidates])).max(1)
        best.append(found.values)
        where.append(candidates.gather(1, found.indices[:, None])[:, 0])
    return torch.cat(best).clamp(-1, 1), torch.cat(where)


def _thumbnails(images: Tensor) -> Tensor:
    return _standardised(F.adaptive_avg_pool2d(images.float(), _THUMBNAIL))


def _edges(images: Tensor) -> Tensor:
    """What :func:`nearest_images` compares, as vectors of length 1."""
    margin = images.shape[-1] // 8
    values = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin].float()
    steps = torch.cat([values.diff(dim=-1).flatten(-3), values.diff(dim=-2).flatten(-3)], dim=-1)
    return F.normalize(steps.sign() * steps.abs().sqrt(), dim=-1)


def _standardised(images: Tensor) -> Tensor:
    """[..., 3, S, S] as vectors of length 1 (0 for an image of one colour), the mean of each channel taken away."""
    values = images.float().flatten(-2)
    return F.normalize((values - values.mean(-1, keepdim=True)).flatten(-2), dim=-1)


def check_size(name: str, images: ImageDataset, known: ImageDataset) -> None:
    """Refuse images of another size than the known ones: a network would tell them by that.

    Raises:
        UserError: The size differs.
    """
    (height, width), (rows, columns) = images.images.shape[2:], known.images.shape[2:]
    if (height, width) != (rows, columns):
        raise UserError(
            f"{name} has images of {height}x{width} pixels but {known.name} of {rows}x{columns}; "
            "give a set of that size, or leave it out"
        )
