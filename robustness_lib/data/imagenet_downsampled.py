"""Downsampled ImageNet at 32 and 64 pixels (Chrabaszcz et al., 2017), the corpus of P1's pre-training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.dataset import ImageDataset, class_balanced_subset
from robustness_lib.data.io import MissingData, damaged, integer_labels, read_npz, read_pickle
from robustness_lib.errors import UserError

EXCLUSIONS = {"no-cifar10": "cifar10_related", "no-tiny": "tiny_imagenet"}
"""The class lists that a corpus's suffix leaves out (P1 appendix A; P1 §4, the 64-pixel corpus)."""

TENTH = "-tenth"
"""The suffix of a corpus with every tenth class of another: less diverse pre-training data (P2 §5.1)."""

PUBLISHED_IMAGES = {"train": 1_281_167, "test": 50_000}
"""Images of the 1,000 classes in Downsampled ImageNet."""


def how_to_get(size: int) -> str:
    """The way to Downsampled ImageNet at ``size`` pixels, for messages."""
    return (
        f"Downsampled ImageNet {size}x{size} is to be had from image-net.org (download page, free "
        f"registration); unpack its files into the folder imagenet{size} of the data root"
    )


@cache
def class_list(name: str) -> tuple[str, ...]:
    """Sorted WordNet ids that ship with the package.

    ``name`` is ``"cifar10_related"`` (the 153 classes of P1 appendix A) or ``"tiny_imagenet"`` (its 200 classes).
    """
    return tuple((files("robustness_lib.data") / "class_lists" / f"{name}.txt").read_text().split())


def read_class_map(path: Path | None = None) -> tuple[tuple[str, str], ...]:
    """WordNet id and name ("kit fox") of the 1000 classes in development-kit order: label l is entry l-1.

    Args:
        path: A ``map_clsloc.txt`` (lines "id number name"); where it is None or not there, the one of the package.
    """
    source = path if path and path.exists() else files("robustness_lib.data") / "class_lists" / "imagenet.txt"
    lines = source.read_bytes().decode(errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    if [row[1:2] for row in rows] != [[str(number)] for number in range(1, 1001)] or {len(r) for r in rows} != {3}:
        raise damaged(Path(str(source)), "1000 lines 'id number name' with numbers 1..1000 in order were expected")
    return tuple((wnid, name.replace("_", " ")) for wnid, _, name in rows)


def _find_batches(folder: Path, split: str) -> list[Path]:
    """The batch files of a split in ``folder`` or one level below, in their order; of both formats the ``.npz`` file.

    Training files are ``train_data_batch_1`` …, whatever number is there; the test file is ``val_data``.
    """
    pattern = re.compile(r"train_data_batch_(\d+)(\.npz)?" if split == "train" else r"val_data()(\.npz)?")
    batches: dict[int, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("[!.]*/*")]):
        if (match := pattern.fullmatch(path.name)) and path.is_file():
            number = int(match[1] or 0)
            if number not in batches or path.suffix == ".npz":
                batches[number] = path
    return [batches[number] for number in sorted(batches)]


def _read(path: Path, key: str) -> Any:
    content = read_npz(path, [key]) if path.suffix == ".npz" else read_pickle(path)
    if key not in content:
        raise damaged(path, f"no {key!r} in it")
    return content[key]


def _batch_labels(path: Path) -> np.ndarray:
    """The labels of a batch file, int64 [N], values 1..1000."""
    return integer_labels(path, _read(path, "labels"), 1, 1000)


def _batch_images(path: Path, size: int, count: int) -> np.ndarray:
    """The images of a batch file, uint8 [count, 3, size, size]."""
    data = _read(path, "data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * size * size,):
        what = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
        raise damaged(path, f"data must be uint8 [N, {3 * size * size}], not {what}")
    if len(data) != count:
        raise damaged(path, f"{len(data)} images but {count} labels")
    return data.reshape(-1, 3, size, size)


def read_downsampled(
    folder: Path,
    split: str,
    size: int,
    name: str,
    *,
    exclude: Iterable[str] = (),
    only: Sequence[str] | None = None,
    per_class: int | None = None,
) -> ImageDataset:
    """Read Downsampled ImageNet, or the part of it that has some classes and not others.

    Labels are re-indexed to 0..K-1 over the classes that the *training* batches hold (those of the test batch
    where there is no training batch), in development-kit order or, with ``only``, in the order of that list;
    so both splits agree. Test images of other classes are left out.

    Args:
        folder: Where the batch files lie and, if it is there, ``map_clsloc.txt``.
        split: ``"train"`` or ``"test"``.
        size: 32 or 64 pixels.
        name: The name of the result.
        exclude: WordNet ids to leave out.
        only: WordNet ids to keep; None for all.
        per_class: Keep this many images of each class, the first in the order of the batches; None for all.
    """
    batches = _find_batches(folder, split)
    if not batches:
        wanted = "train_data_batch_1 …" if split == "train" else "val_data"
        raise MissingData(f"{folder} holds no {wanted} (.npz or pickled): {how_to_get(size)}")
    classes = read_class_map(folder / "map_clsloc.txt")
    number = {wnid: label for label, (wnid, _) in enumerate(classes, start=1)}
    if unknown := sorted({*exclude, *(only or ())} - set(number)):
        raise UserError(f"{unknown[0]!r} is not the WordNet id of one of the 1000 classes of ImageNet")

    labels = [_batch_labels(path) for path in batches]
    training = labels if split == "train" else [_batch_labels(path) for path in _find_batches(folder, "train")]
    present = set(np.concatenate(training or labels).tolist())
    wanted_numbers = [number[wnid] for wnid in only] if only is not None else range(1, 1001)
    excluded = {number[wnid] for wnid in exclude}
    kept_classes = [label for label in wanted_numbers if label in present - excluded]
    new_label = np.full(1001, -1)
    new_label[kept_classes] = np.arange(len(kept_classes))

    keep = [new_label[part] >= 0 for part in labels]
    if per_class is not None:
        import pandas as pd

        everything = pd.Series(np.concatenate(labels))
        first = everything.groupby(everything).cumcount().to_numpy() < per_class
        ends = np.cumsum([len(part) for part in labels])[:-1]
        keep = [mask & part for mask, part in zip(keep, np.split(first, ends), strict=True)]
    total = sum(int(mask.sum()) for mask in keep)
    if not total:
        raise MissingData(f"no image of the wanted classes is in the {split} batches of {folder}; choose other classes")
    images = torch.empty((total, 3, size, size), dtype=torch.uint8)
    start = 0
    for path, mask in zip(batches, keep, strict=True):
        data = _batch_images(path, size, len(mask))
        end = start + int(mask.sum())
        images[start:end].numpy()[...] = data if mask.all() else data[mask]
        start = end
    new = torch.from_numpy(np.concatenate([new_label[part[mask]] for part, mask in zip(labels, keep, strict=True)]))
    return ImageDataset(name, images, new.long(), tuple(classes[label - 1][1] for label in kept_classes))


def load_corpus(name: str, split: str, root: Path) -> ImageDataset:
    """``imagenet32`` or ``imagenet64`` from that folder of the data root, perhaps with a suffix of :data:`EXCLUSIONS`.

    With the further suffix :data:`TENTH`, only every tenth of the classes, in development-kit order, is kept. The
    result's name ends with its numbers of images and classes: ``"imagenet32_160000x275"``.
    """
    base, _, suffix = name.removesuffix(TENTH).partition("-")
    exclude = class_list(EXCLUSIONS[suffix]) if suffix else ()
    size = int(base.removeprefix("imagenet"))
    corpus = read_downsampled(root / base, split, size, name, exclude=exclude)
    if name.endswith(TENTH):
        kept = corpus.labels % 10 == 0
        corpus = ImageDataset(name, corpus.images[kept], corpus.labels[kept] // 10, corpus.class_names[::10])
    return corpus.with_labels(corpus.labels, f"{name}_{len(corpus)}x{corpus.num_classes}")


def load_tiny_imagenet32(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet's 200 classes at 32 pixels, in the order of their WordNet ids, from Downsampled ImageNet 32.

    Of each class the first 500 images of the training batches, as many as Tiny ImageNet's own training set has.
    """
    per_class = 500 if split == "train" else None
    wnids = class_list("tiny_imagenet")
    return read_downsampled(root / "imagenet32", split, 32, name, only=wnids, per_class=per_class)


@cache
def cinic10_classes() -> dict[str, int]:
    """The CIFAR-10 class, 0..9, of each ImageNet class that CINIC-10 counts to one (Darlow et al. 2018), by WordNet id.

    Made of the project's synset lists (github.com/BayesWatch/cinic-10, MIT licence, Copyright (c) 2018 BayesWatch),
    restricted to ImageNet's 1000 classes. n03770679 (minivan), which they count to two
    classes, is left out: 141 remain.
    """
    lines = (files("robustness_lib.data") / "class_lists" / "cinic10.txt").read_text().splitlines()
    return {wnid: CIFAR10_CLASSES.index(name) for wnid, name in (line.split() for line in lines)}


def load_cifar10_imagenet(name: str, split: str, root: Path) -> ImageDataset:
    """A test set for CIFAR-10's classes made of ImageNet's images at 32 pixels, as CINIC-10 is.

    ``cifar10-imagenet-excluded`` has images of the classes that pre-training without the CIFAR-10-related classes
    leaves out (P1 appendix A), ``cifar10-imagenet-included`` of those that it keeps. As these lists differ from
    CINIC-10's, not every class of CIFAR-10 occurs in each set. Of each class that occurs there are equally many images,
    as many as the smallest has, from its ImageNet classes in as equal numbers as can be; they come from the training
    batches, so a network that was pre-trained on these classes was pre-trained on these very images.
    """
    related = set(class_list("cifar10_related"))
    wnids = [wnid for wnid in cinic10_classes() if (wnid in related) == name.endswith("excluded")]
    images = read_downsampled(root / "imagenet32", "train", 32, name, only=wnids)
    wnid_of = {text: wnid for wnid, text in read_class_map(root / "imagenet32" / "map_clsloc.txt") if wnid in wnids}
    labels = torch.tensor([cinic10_classes()[wnid_of[text]] for text in images.class_names])[images.labels]
    present, counts = torch.unique(labels, return_counts=True)
    parts = []
    for label in present.tolist():
        members = torch.nonzero(labels == label).flatten()
        parts.append(members[class_balanced_subset(images.labels[members], int(counts.min()), seed=0)])
    kept = torch.cat(parts).sort().values
    return ImageDataset(name, images.images[kept], labels[kept], CIFAR10_CLASSES)
