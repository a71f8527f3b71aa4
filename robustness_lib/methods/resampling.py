"""Imbalanced training sets, and what is usually done about them (P1 §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import check_numbers
from robustness_lib.randomness import generator, stream_seed

LAWS = ("v1", "v5")
"""The versions of P1 that print the two size laws."""


def class_sizes(num_classes: int, gamma: float, largest: int, smallest: int, law: str = "v1") -> list[int]:
    """How many images each class keeps (P1 §3.3).

    Class c = 1 ... K keeps round(a / (b + c^gamma)) by P1v1's law, round(a / (b + (c - 1)^gamma)) by P1v5's, with a
    and b such that the first class has ``largest`` and the last ``smallest`` images. Solved for both ends, 1 / n_c
    goes from 1 / ``largest`` to 1 / ``smallest`` in proportion to c^gamma - 1, or to (c - 1)^gamma. At gamma = 1 the
    laws agree. P1's numbers fit only the first: by the second, their total and minority errors imply negative errors
    on the remaining classes.

    Args:
        num_classes: K, at least 2.
        gamma: In [0.01, 100]; the smaller, the stronger the imbalance.
        law: One of :data:`LAWS`.
    """
    choose(law, LAWS, "size law")
    if not 0.01 <= gamma <= 100:
        raise UserError(
            f"gamma is {gamma} but must be above 0, at least 0.01, and at most 100; the paper uses 0.2 to 2"
        )
    if num_classes < 2:
        raise UserError(f"num_classes is {num_classes} but imbalance needs at least 2 classes")
    if not 1 <= smallest < largest:
        raise UserError(
            f"smallest is {smallest} and largest {largest}, but a class needs at least 1 image and the smallest "
            "class fewer than the largest; give 1 <= smallest < largest"
        )
    place = np.arange(num_classes) + (1.0 if law == "v1" else 0.0)
    power = (place / place[-1]) ** gamma
    way = (power - power[0]) / (1 - power[0])
    return [round(float(size)) for size in 1 / ((1 - way) / largest + way / smallest)]


def minority_classes(sizes: Sequence[float]) -> NDArray[np.bool_]:
    """Which classes, bool [K], have fewer images than the average class (P1 §3.3)."""
    counts = check_numbers(sizes, "sizes", "[K]")
    few: NDArray[np.bool_] = counts * len(counts) < counts.sum()  # exact, as a mean is not
    if not few.any():
        raise UserError("all classes have equally many images, so none is a minority; give sizes that differ")
    return few


def subsample(labels: Tensor, sizes: Sequence[int], seed: int) -> Tensor:
    """Draw so many images of each class: distinct indices into ``labels``, int64 [N], ascending (file order).

    At one seed, a class that keeps more images keeps all that it would keep otherwise, so the sets of one seed at
    several gamma differ as little as they can.
    """
    there = torch.bincount(labels, minlength=len(sizes)).tolist()
    if len(there) != len(sizes):
        raise UserError(f"there are {len(sizes)} class sizes but labels up to {len(there) - 1}; give a size a class")
    stream = generator(seed, "subsample")
    parts = []
    for label, (size, count) in enumerate(zip(sizes, there, strict=True)):
        if not 0 <= size <= count:
            raise UserError(
                f"{size} images of class {label + 1} are asked for but it has {count}; give smaller sizes "
                "(--set largest=... and smallest=...)"
            )
        members = torch.nonzero(labels == label).flatten()
        parts.append(members[torch.randperm(count, generator=stream)[:size]])
    return torch.cat(parts).sort().values


def class_weights(labels: Tensor) -> Tensor:
    """The weight of each example in cost-sensitive training, in proportion to one over the size of its class.

    float32 [N] from labels int64 [N]; the weights of the classes that occur have mean 1.
    """
    _, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    inverse = 1 / counts.double()
    weights: Tensor = (inverse / inverse.mean())[index].float()
    return weights


def _equally_large(data: ImageDataset) -> bool:
    """Whether all classes that occur have equally many images, so that there is nothing to make."""
    return len(torch.unique(torch.unique(data.labels, return_counts=True)[1])) <= 1


def oversample(data: ImageDataset, seed: int) -> ImageDataset:
    """Repeat images of the smaller classes, drawn with replacement, until all are as large as the largest (P1 §3.3).

    The repeated images come after the others, class by class.
    """
    from imblearn.over_sampling import RandomOverSampler

    if _equally_large(data):
        return data
    sampler = RandomOverSampler(random_state=_random_state(seed, "oversampling"))
    sampler.fit_resample(np.zeros((len(data), 1)), data.labels.numpy())
    return data.subset(torch.from_numpy(sampler.sample_indices_), f"{data.name}, oversampled")


def smote(data: ImageDataset, neighbours: int, seed: int) -> ImageDataset:
    """Make images of the smaller classes until all are as large as the largest (Chawla et al. 2002; P1 §3.3).

    A new image is x + u (x' - x), where x is an image of the class, x' one of its nearest of the same class (Euclidean
    distance of the pixels), and u uniform in [0, 1]; pixels are rounded. P1 names only the method; number of
    neighbours, distance and rounding are ours. The new images have the places that :func:`oversample` gives to
    repeated ones.
    """
    from imblearn.over_sampling import SMOTE

    if _equally_large(data):
        return data
    check_neighbours(int(torch.unique(data.labels, return_counts=True)[1].min()), neighbours)
    sampler = SMOTE(k_neighbors=neighbours, random_state=_random_state(seed, "smote"))
    pixels = data.images.flatten(1).numpy().astype(np.float32)
    resampled, labels = sampler.fit_resample(pixels, data.labels.numpy())
    made = torch.from_numpy(resampled[len(data) :]).round().clamp(0, 255).to(torch.uint8)
    images = torch.cat([data.images, made.view(-1, *data.images.shape[1:])])
    return ImageDataset(f"{data.name}, with SMOTE", images, torch.from_numpy(labels), data.class_names)


def check_neighbours(smallest: int, neighbours: int) -> None:
    """Refuse SMOTE with a class that has too few images."""
    if smallest <= neighbours:
        raise UserError(
            f"smote_neighbours is {neighbours} but the smallest class has {smallest} images, and an image is not its "
            f"own neighbour; give --set smallest={neighbours + 1} or more, or fewer neighbours"
        )


def _random_state(seed: int, purpose: str) -> np.random.RandomState:
    return np.random.RandomState(stream_seed(seed, purpose) % 2**32)
