"""What an image set is, which folder image sets are in, and class-balanced subsets."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from functools import cached_property
from pathlib import Path

import torch

from robustness_lib.errors import UserError
from robustness_lib.files import as_path
from robustness_lib.randomness import generator

SPLITS = ("train", "test")


def data_root(root: Path | str | None = None) -> Path:
    """The folder of the image sets: ``root``, else ``$ROBUSTNESS_DATA``, else ``./data``; it need not exist."""
    return as_path(root if root is not None else os.environ.get("ROBUSTNESS_DATA") or "data")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and labels, whole, in memory."""

    name: str  # what is in the set, for example "cifar10" or "imagenet32_160000x275"
    images: torch.Tensor  # uint8 [N, C, H, W]
    labels: torch.Tensor  # int64 [N], values 0..K-1
    class_names: tuple[str, ...]  # K of them

    def __post_init__(self) -> None:
        images, labels, fault = self.images, self.labels, ""
        if images.ndim != 4 or images.dtype != torch.uint8:
            fault = f"images must be uint8 of shape [N, C, H, W], not {images.dtype} of shape {list(images.shape)}"
        elif labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            fault = (
                f"labels must be int64 of shape [{len(images)}], one an image, "
                f"not {labels.dtype} of shape {list(labels.shape)}"
            )
        elif invalid := [name for name in self.class_names if name.encode(errors="replace").decode() != name]:
            fault = f"the class name {invalid[0]!r} is no text in UTF-8; rename the class"
        elif len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            fault = (
                f"labels must lie in 0..{self.num_classes - 1} ({self.num_classes} class names), "
                f"not in {int(labels.min())}..{int(labels.max())}"
            )
        if fault:
            raise UserError(f"image set {self.name!r}: {fault}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The number of classes, K (of which some may have no image in this split)."""
        return len(self.class_names)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 (hexadecimal) of the content (shape, images, labels and class names) without the name."""
        digest = hashlib.sha256(f"{list(self.images.shape)} {list(self.class_names)}".encode())
        for part in (self.images, self.labels):
            digest.update(part.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def subset(self, indices: torch.Tensor, name: str | None = None) -> ImageDataset:
        """The images at ``indices`` (int64 [M], or bool [N]), in that order, with the same classes."""
        return ImageDataset(name or self.name, self.images[indices], self.labels[indices], self.class_names)

    def with_labels(self, labels: torch.Tensor, name: str | None = None) -> ImageDataset:
        """The same images with other labels (int64 [N], values 0..K-1)."""
        return ImageDataset(name or self.name, self.images, labels, self.class_names)


def class_balanced_subset(labels: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Sample ``count`` of the images with ``labels`` (int64 [N]), from each class as equally many as possible.

    A class with too few images gives all it has, and the others make up for it. Returns ascending indices.
    """
    if not 1 <= count <= len(labels):
        raise UserError(f"a subset must have between 1 and {len(labels)} images, not {count}")
    stream = generator(seed, "subset")
    classes, sizes = torch.unique(labels, return_counts=True)
    share = torch.zeros_like(sizes)
    while (left := count - int(share.sum())) > 0:
        open_classes = torch.nonzero(share < sizes).flatten()
        if left < len(open_classes):
            share[open_classes[torch.randperm(len(open_classes), generator=stream)[:left]]] += 1
        else:
            share = torch.minimum(share + left // len(open_classes), sizes)
    parts = []
    for label, number in zip(classes, share.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        parts.append(members[torch.randperm(len(members), generator=stream)[:number]])
    return torch.cat(parts).sort().values
