"""Imbalanced training sets, and what is usually done about them (P1 §3.3)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Bools, check_numbers
from robustness_lib.randomness import generator, stream_seed

LAWS = ("v1", "v5")
"""Laws of class sizes, by the version of P1 that prints them (:func:`class_sizes`)."""


def class_sizes(num_classes: int, gamma: float, largest: int, smallest: int, law: str = "v1") -> list[int]:
    """How many images each class keeps (P1 §3.3).

    Class c = 1 ... K keeps round(a / (b + c^gamma)) by the law of P1's version 1, round(a / (b + (c - 1)^gamma)) by
    that of version 5, with a and b such that the first class has ``largest`` and the last ``smallest`` images; gamma is
    in [0.01, 100]. P1's numbers fit only the first: by the second, they imply negative errors on the other classes.
    """
    choose(law, LAWS, "size law")
    if not 0.01 <= gamma <= 100:
        raise UserError(f"gamma is {gamma} but must be above 0 (0.01 to 100); the paper uses 0.2 to 2")
    if num_classes < 2 or not 1 <= smallest < largest:
        raise UserError(
            f"num_classes is {num_classes}, smallest is {smallest} and largest {largest}, but there must be at least 2 "
            "classes and 1 <= smallest < largest; give other sizes"
        )
    rank = np.arange(num_classes) + (1.0 if law == "v1" else 0.0)
    power = (rank / rank[-1]) ** gamma
    way = (power - power[0]) / (1 - power[0])  # from 1 / largest to 1 / smallest, in proportion to c^gamma - 1
    return [round(float(size)) for size in 1 / ((1 - way) / largest + way / smallest)]


def minority_classes(sizes: Sequence[float]) -> Bools:
    """Which classes, bool [K], have fewer images than the average class (P1 §3.3)."""
    counts = check_numbers(sizes, "sizes", "[K]")
    few: Bools = counts * len(counts) < counts.sum()  # exact, as a mean is not
    if not few.any():
        raise UserError("all classes have equally many images, so none is a minority; give sizes that differ")
    return few


def subsample(labels: Tensor, sizes: Sequence[int], seed: int) -> Tensor:
    """Indices, int64 [N], ascending, of so many images of each class; those of a larger size contain a smaller's."""
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
    """Weights for cost-sensitive training, float32 [N]: one over the size of the class, scaled to a mean of 1."""
    _, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    inverse = 1 / counts.double()
    weights: Tensor = (inverse / inverse.mean())[index].float()
    return weights


def oversample(data: ImageDataset, seed: int) -> ImageDataset:
    """Repeat images of the smaller classes, drawn with replacement, until all are as large as the largest (P1 §3.3)."""
    from imblearn.over_sampling import RandomOverSampler

    sampler = RandomOverSampler(random_state=_random_state(seed, "oversampling"))
    sampler.fit_resample(np.zeros((len(data), 1)), data.labels.numpy())
    return data.subset(torch.from_numpy(sampler.sample_indices_), f"{data.name}, oversampled")


def smote(data: ImageDataset, neighbours: int, seed: int) -> ImageDataset:
    """Make images of the smaller classes until all are as large as the largest (Chawla et al. 2002; P1 §3.3).

    P1 names only the method; the number of neighbours, Euclidean distance of pixels and their rounding are ours.
    """
    from imblearn.over_sampling import SMOTE

    check_neighbours(int(torch.unique(data.labels, return_counts=True)[1].min()), neighbours)
    sampler = SMOTE(k_neighbors=neighbours, random_state=_random_state(seed, "smote"))
    pixels = data.images.flatten(1).numpy().astype(np.float32)
    resampled, labels = sampler.fit_resample(pixels, data.labels.numpy())
    images = torch.from_numpy(resampled).round().clamp(0, 255).to(torch.uint8).view(-1, *data.images.shape[1:])
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
