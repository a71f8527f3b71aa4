"""Downsampled ImageNet at 32 and 64 pixels (Chrabaszcz et al., 2017), the corpus of P1's pre-training."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.dataset import ImageDataset, class_balanced_subset
from robustness_lib.data.io import MissingData, damaged, integer_labels, read_npz, read_pickle

EXCLUSIONS = {"no-cifar10": "cifar10_related", "no-tiny": "tiny_imagenet"}
"""The class lists that a corpus's suffix leaves out (P1 appendix A; P1 §4, the 64-pixel corpus)."""

_LISTS = files("robustness_lib.data") / "class_lists"


@cache
def class_list(name: str) -> tuple[str, ...]:
    """Sorted WordNet ids: ``cifar10_related`` (the 153 classes of P1 appendix A) or ``tiny_imagenet`` (its 200)."""
    return tuple((_LISTS / f"{name}.txt").read_text().split())


@cache
def read_class_map() -> tuple[tuple[str, str], ...]:
    """WordNet id and name of ImageNet's 1000 classes in development-kit order, as its ``map_clsloc.txt`` has them."""
    rows = map(str.split, (_LISTS / "imagenet.txt").read_text().splitlines())
    return tuple((wnid, name.replace("_", " ")) for wnid, _, name in rows)


def _find_batches(folder: Path, split: str) -> list[Path]:
    """The batch files of a split in ``folder`` or one level below, in order; of both formats the ``.npz`` file."""
    pattern = re.compile(r"train_data_batch_(\d+)(\.npz)?" if split == "train" else r"val_data()(\.npz)?")
    batches: dict[int, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("[!.]*/*")], key=lambda path: (path.suffix == ".npz", path)):
        if (match := pattern.fullmatch(path.name)) and path.is_file():
            batches[int(match[1] or 0)] = path
    return [batches[number] for number in sorted(batches)]


def _read(path: Path, key: str) -> Any:
    content = read_npz(path, [key]) if path.suffix == ".npz" else read_pickle(path)
    if key not in content:
        raise damaged(path, f"no {key!r} in it")
    return content[key]


def _images(path: Path, size: int, count: int) -> np.ndarray:
    data = _read(path, "data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * size * size,):
        what = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
        raise damaged(path, f"data must be uint8 [N, {3 * size * size}], not {what}")
    if len(data) != count:
        raise damaged(path, f"{len(data)} images but {count} labels")
    return data.reshape(-1, 3, size, size)


def _read_classes(folder: Path, split: str, size: int, wanted: Sequence[str]) -> tuple[Tensor, Tensor, list[str]]:
    """Images, labels in 0..K-1, and WordNet ids of the wanted classes that are in the *training* batches, if any."""
    batches = _find_batches(folder, split)
    if not batches:
        files = "train_data_batch_1 …" if split == "train" else "val_data"
        raise MissingData(
            f"{folder} holds no {files} (.npz or pickled): Downsampled ImageNet {size}x{size} is to be had from "
            "image-net.org (download page, free registration); unpack its files there"
        )
    number = {wnid: label for label, (wnid, _) in enumerate(read_class_map(), start=1)}
    published = folder / "map_clsloc.txt"
    if published.is_file() and re.findall("^n[0-9]+", published.read_text(errors="replace"), re.MULTILINE) != [*number]:
        raise damaged(published, "its classes are not those of the development kit, in its order")
    labels = [integer_labels(path, _read(path, "labels"), 1, 1000) for path in batches]
    others = [] if split == "train" else _find_batches(folder, "train")
    training = [integer_labels(path, _read(path, "labels"), 1, 1000) for path in others]
    present = set(np.concatenate(training or labels).tolist())
    wnids = [wnid for wnid in wanted if number.get(wnid) in present]
    new_label = np.full(1001, -1)
    new_label[[number[wnid] for wnid in wnids]] = np.arange(len(wnids))

    kept = [new_label[part] >= 0 for part in labels]
    total = sum(int(mask.sum()) for mask in kept)
    if not total:
        raise MissingData(f"no image of the wanted classes is in the {split} batches of {folder}; choose other classes")
    images = torch.empty((total, 3, size, size), dtype=torch.uint8)
    places = torch.split(images, [int(mask.sum()) for mask in kept])
    for path, mask, place in zip(batches, kept, places, strict=True):
        place.numpy()[...] = _images(path, size, len(mask))[mask]
    return images, torch.from_numpy(new_label[np.concatenate(labels)][np.concatenate(kept)]).long(), wnids


def load_corpus(name: str, split: str, root: Path) -> ImageDataset:
    """``imagenet32`` or ``imagenet64``, perhaps with a suffix of :data:`EXCLUSIONS`; the result's name has its counts.

    With the further suffix ``-tenth``, only every tenth of the classes is kept: less diverse data (P2 §5.1).
    """
    base, _, suffix = name.removesuffix("-tenth").partition("-")
    class_map = dict(read_class_map())
    excluded = class_list(EXCLUSIONS[suffix]) if suffix else ()
    wanted = [wnid for wnid in class_map if wnid not in excluded]
    images, labels, wnids = _read_classes(root / base, split, int(base.removeprefix("imagenet")), wanted)
    if name.endswith("-tenth"):
        kept = labels % 10 == 0
        images, labels, wnids = images[kept], labels[kept] // 10, wnids[::10]
    name = f"{name}_{len(images)}x{len(wnids)}"
    return ImageDataset(name, images, labels, tuple(class_map[wnid] for wnid in wnids))


def load_tiny_imagenet32(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet's 200 classes at 32 pixels from Downsampled ImageNet, the first 500 training images of each."""
    import pandas as pd

    images, labels, wnids = _read_classes(root / "imagenet32", split, 32, class_list("tiny_imagenet"))
    if split == "train":
        first = torch.from_numpy(pd.Series(labels).groupby(labels.numpy()).cumcount().to_numpy() < 500)
        images, labels = images[first], labels[first]
    class_map = dict(read_class_map())
    return ImageDataset(name, images, labels, tuple(class_map[wnid] for wnid in wnids))


@cache
def cinic10_classes() -> dict[str, int]:
    """The CIFAR-10 class, 0..9, of each of the 141 ImageNet classes that CINIC-10 counts to one, by WordNet id.

    Of Darlow et al. (2018): github.com/BayesWatch/cinic-10, MIT licence, Copyright (c) 2018 BayesWatch; without
    n03770679 (minivan), which they count to two.
    """
    lines = (_LISTS / "cinic10.txt").read_text().splitlines()
    return {wnid: CIFAR10_CLASSES.index(name) for wnid, name in (line.split() for line in lines)}


def load_cifar10_imagenet(name: str, split: str, root: Path) -> ImageDataset:
    """A test set for CIFAR-10's classes made of ImageNet's images at 32 pixels, as CINIC-10 is.

    ``cifar10-imagenet-excluded`` has images of the classes that pre-training without the CIFAR-10-related ones leaves
    out (P1 appendix A), ``-included`` of those that it keeps: of each class of CIFAR-10 that occurs as many as the
    smallest has, evenly from its ImageNet classes. They are training images: a network that was pre-trained on these
    classes has seen them.
    """
    related = set(class_list("cifar10_related"))
    wanted = [wnid for wnid in cinic10_classes() if (wnid in related) == name.endswith("excluded")]
    images, fine_labels, wnids = _read_classes(root / "imagenet32", "train", 32, wanted)
    labels = torch.tensor([cinic10_classes()[wnid] for wnid in wnids])[fine_labels]
    present, counts = torch.unique(labels, return_counts=True)
    parts = []
    for label in present.tolist():
        members = torch.nonzero(labels == label).flatten()
        parts.append(members[class_balanced_subset(fine_labels[members], int(counts.min()), seed=0)])
    kept = torch.cat(parts).sort().values
    return ImageDataset(name, images[kept], labels[kept], CIFAR10_CLASSES)
