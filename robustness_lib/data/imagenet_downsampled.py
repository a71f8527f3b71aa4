"""Downsampled ImageNet at 32 and 64 pixels (Chrabaszcz et al., 2017), the corpus of P1's pre-training."""

from __future__ import annotations

import hashlib
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
from robustness_lib.models.corpora import recognised

EXCLUSIONS = {"no-cifar10": "cifar10_related", "no-tiny": "tiny_imagenet"}
"""The class lists that a corpus's suffix leaves out (P1 appendix A; P1 §4, the 64-pixel corpus)."""

TENTH = "-tenth"
"""The suffix of a corpus with every tenth class of another: less diverse pre-training data (P2 §5.1)."""


def how_to_get(size: int) -> str:
    """The way to Downsampled ImageNet at ``size`` pixels, for messages."""
    return (
        f"Downsampled ImageNet {size}x{size} is to be had from image-net.org (download page, free "
        f"registration); unpack its files into the folder imagenet{size} of the data root"
    )


@cache
def class_list(name: str) -> tuple[str, ...]:
    """WordNet ids that ship with the package, sorted.

    Args:
        name: ``"cifar10_related"`` (the 153 classes of P1 appendix A) or ``"tiny_imagenet"`` (the 200 classes
            of Tiny ImageNet).

    Returns:
        The ids, for example ``"n02119789"``.
    """
    return tuple((files("robustness_lib.data") / "class_lists" / f"{name}.txt").read_text().split())


def read_class_map(path: Path | None = None) -> tuple[tuple[str, str], ...]:
    """The 1000 classes in development-kit order: label l of a batch is entry l-1.

    Args:
        path: A ``map_clsloc.txt`` (lines "id number name"), or None for the one that ships with the package.

    Returns:
        1000 pairs of WordNet id and name ("kit fox").

    Raises:
        UserError: The file is not such a map.
    """
    source = path or files("robustness_lib.data") / "class_lists" / "imagenet.txt"
    lines = source.read_bytes().decode(errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    if [row[1:2] for row in rows] != [[str(number)] for number in range(1, 1001)] or {len(r) for r in rows} != {3}:
        raise damaged(Path(str(source)), "1000 lines 'id number name' with numbers 1..1000 in order were expected")
    return tuple((wnid, name.replace("_", " ")) for wnid, _, name in rows)


def find_batches(folder: Path, split: str) -> list[Path]:
    """The batch files of one split, ``.npz`` or pickled, in the order of their numbers.

    Args:
        folder: Where they lie, directly or in a folder one level below (``Imagenet32_train`` …).
        split: ``"train"`` (``train_data_batch_1`` …, whatever number is there) or ``"test"`` (``val_data``).

    Returns:
        The files; none where there is none. Where a batch is there in both formats, the ``.npz`` file.
    """
    pattern = re.compile(r"train_data_batch_(\d+)(\.npz)?" if split == "train" else r"val_data()(\.npz)?")
    found: dict[int, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("[!.]*/*")]):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            number = int(match[1] or 0)
            if number not in found or path.suffix == ".npz":
                found[number] = path
    return [found[number] for number in sorted(found)]


def _read(path: Path, *keys: str) -> dict[str, Any]:
    if path.suffix == ".npz":
        return dict(read_npz(path, keys))
    content = read_pickle(path)
    if missing := [key for key in keys if key not in content]:
        raise damaged(path, f"no {missing[0]!r} in it")
    return {key: content[key] for key in keys}


def batch_labels(path: Path) -> np.ndarray:
    """The labels of a batch file, int64 [N], values 1..1000."""
    return integer_labels(path, _read(path, "labels")["labels"], 1, 1000)


def _checked(path: Path, data: Any, size: int, labels: np.ndarray) -> np.ndarray:
    """The images of a batch file, uint8 [N, 3, size, size]."""
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * size * size,):
        found = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
        raise damaged(path, f"data must be uint8 [N, {3 * size * size}], not {found}")
    if len(data) != len(labels):
        raise damaged(path, f"{len(data)} images but {len(labels)} labels")
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
        folder: Where the batch files lie (see :func:`find_batches`) and, if it is there, ``map_clsloc.txt``.
        split: ``"train"`` or ``"test"``.
        size: 32 or 64 pixels.
        name: The name of the result.
        exclude: WordNet ids to leave out.
        only: WordNet ids to keep; None for all.
        per_class: Keep this many images of each class, the first in the order of the batches; None for all.

    Returns:
        The image set; class names are the map's.

    Raises:
        UserError: A file is missing or damaged, or no image is left.
    """
    batches = find_batches(folder, split)
    if not batches:
        wanted = "train_data_batch_1 …" if split == "train" else "val_data"
        raise MissingData(f"{folder} holds no {wanted} (.npz or pickled): {how_to_get(size)}")
    own_map = folder / "map_clsloc.txt"
    classes = read_class_map(own_map if own_map.exists() else None)
    number = {wnid: label for label, (wnid, _) in enumerate(classes, start=1)}
    if unknown := sorted({*exclude, *(only or ())} - set(number)):
        raise UserError(f"{unknown[0]!r} is not the WordNet id of one of the 1000 classes of ImageNet")

    labels = [batch_labels(path) for path in batches]
    training = labels if split == "train" else [batch_labels(path) for path in find_batches(folder, "train")]
    present = np.unique(np.concatenate(training or labels))
    wanted_numbers = [number[wnid] for wnid in only] if only is not None else range(1, 1001)
    barred = {number[wnid] for wnid in exclude}
    kept = [label for label in wanted_numbers if label in set(present.tolist()) and label not in barred]
    new_label = np.full(1001, -1)
    new_label[kept] = np.arange(len(kept))

    keep = [new_label[part] >= 0 for part in labels]
    if per_class is not None:
        keep = _first_of_each_class(labels, keep, per_class)
    total = sum(int(mask.sum()) for mask in keep)
    if not total:
        raise MissingData(f"no image of the wanted classes is in the {split} batches of {folder}; choose other classes")
    images = torch.empty((total, 3, size, size), dtype=torch.uint8)
    start = 0
    for path, mask in zip(batches, keep, strict=True):
        data = _checked(path, _read(path, "data")["data"], size, mask)
        end = start + int(mask.sum())
        images[start:end].numpy()[...] = data if mask.all() else data[mask]
        start = end
    new = torch.from_numpy(np.concatenate([new_label[part[mask]] for part, mask in zip(labels, keep, strict=True)]))
    return ImageDataset(name, images, new.long(), tuple(classes[label - 1][1] for label in kept))


def _first_of_each_class(labels: list[np.ndarray], keep: list[np.ndarray], per_class: int) -> list[np.ndarray]:
    """The masks ``keep`` with only the first ``per_class`` images of each label left in them."""
    everything, kept = np.concatenate(labels), np.concatenate(keep)
    order = np.argsort(everything, kind="stable")
    _, starts, counts = np.unique(everything[order], return_index=True, return_counts=True)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return np.split(kept & (rank < per_class), np.cumsum([len(part) for part in labels])[:-1])


def load_corpus(name: str, split: str, root: Path) -> ImageDataset:
    """Load ``imagenet32`` or ``imagenet64`` from a data root, perhaps with a suffix of :data:`EXCLUSIONS`.

    With the further suffix :data:`TENTH`, only every tenth of the classes, in development-kit order, is kept.

    Args:
        name: For example ``"imagenet32-no-cifar10"``.
        split: ``"train"`` or ``"test"``.
        root: The data root; the batches lie in ``<root>/imagenet32``.

    Returns:
        The image set; its name ends with its numbers of images and classes, ``"imagenet32_160000x275"``.

    Raises:
        UserError: As :func:`read_downsampled`.
    """
    base, _, suffix = name.removesuffix(TENTH).partition("-")
    exclude = class_list(EXCLUSIONS[suffix]) if suffix else ()
    size = int(base.removeprefix("imagenet"))
    corpus = read_downsampled(root / base, split, size, name, exclude=exclude)
    if name.endswith(TENTH):
        kept = corpus.labels % 10 == 0
        corpus = ImageDataset(name, corpus.images[kept], corpus.labels[kept] // 10, corpus.class_names[::10])
    return ImageDataset(f"{name}_{len(corpus)}x{corpus.num_classes}", corpus.images, corpus.labels, corpus.class_names)


def load_tiny_imagenet32(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet's 200 classes at 32 pixels, from the batches of Downsampled ImageNet 32.

    Of each class, the first 500 images in the order of the training batches, as many as Tiny ImageNet's own
    training set has, and as the test split those of ``val_data``. Labels are in the order of the WordNet
    ids, as in Tiny ImageNet.

    Args:
        name: The name of the result.
        split: ``"train"`` or ``"test"``.
        root: The data root; the batches lie in ``<root>/imagenet32``.

    Returns:
        The image set.

    Raises:
        UserError: As :func:`read_downsampled`.
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
    """A test set for CIFAR-10 made of ImageNet's images at 32 pixels, as CINIC-10 is.

    ``cifar10-imagenet-excluded`` has images of the classes that pre-training without the CIFAR-10-related classes
    leaves out (P1 appendix A), ``cifar10-imagenet-included`` of those that it keeps. As these lists differ from
    CINIC-10's, not every class of CIFAR-10 occurs in each set. Of each class that occurs there are equally many images,
    as many as the smallest has, from its ImageNet classes in as equal numbers as can be; they come from the training
    batches, so a network that was pre-trained on these classes was pre-trained on these very images.

    Args:
        name: The name of the result.
        split: ``"test"``.
        root: The data root; the batches lie in ``<root>/imagenet32``.

    Returns:
        The image set, with CIFAR-10's ten classes.

    Raises:
        UserError: As :func:`read_downsampled`.
    """
    related = set(class_list("cifar10_related"))
    wanted = [wnid for wnid in cinic10_classes() if (wnid in related) == name.endswith("excluded")]
    folder = root / "imagenet32"
    found = read_downsampled(folder, "train", 32, name, only=wanted)
    own_map = folder / "map_clsloc.txt"
    wnid_of = {text: wnid for wnid, text in read_class_map(own_map if own_map.exists() else None) if wnid in wanted}
    labels = torch.tensor([cinic10_classes()[wnid_of[text]] for text in found.class_names])[found.labels]
    present, counts = torch.unique(labels, return_counts=True)
    parts = []
    for label in present.tolist():
        members = torch.nonzero(labels == label).flatten()
        parts.append(members[class_balanced_subset(found.labels[members], int(counts.min()), seed=0)])
    kept = torch.cat(parts).sort().values
    return ImageDataset(name, found.images[kept], labels[kept], CIFAR10_CLASSES)


PUBLISHED = {"train": 1_281_167, "test": 50_000}
"""Images of the 1,000 classes in Downsampled ImageNet."""


def check_corpus(name: str, root: Path) -> str:
    """Read every batch of a corpus, one at a time, and check format, sizes and labels.

    Args:
        name: As for :func:`load_corpus`; the exclusion does not matter.
        root: The data root.

    Returns:
        How many of the published images and classes are there, and what they are where their checksum is known.

    Raises:
        UserError: A batch is missing or damaged.
    """
    base = name.partition("-")[0]
    size = int(base.removeprefix("imagenet"))
    found, words = [], None
    for split, what in (("train", "training"), ("test", "test")):
        batches = find_batches(root / base, split)
        labels = [batch_labels(path) for path in batches]
        if not batches:
            continue
        classes = read_class_map(own_map if (own_map := root / base / "map_clsloc.txt").exists() else None)
        numbers, new = np.unique(np.concatenate(labels), return_inverse=True)
        names = [classes[number - 1][1] for number in numbers]
        digest = hashlib.sha256(f"{[len(new), 3, size, size]} {names}".encode())  # as ImageDataset.checksum
        for path, some in zip(batches, labels, strict=True):
            digest.update(np.ascontiguousarray(_checked(path, _read(path, "data")["data"], size, some)).data)
        digest.update(new.astype(np.int64).data)
        words = words or recognised(digest.hexdigest())
        found.append(
            f"{len(batches)} {what} batch{'es' * (len(batches) != 1)} with {len(new):,} of the published "
            f"{PUBLISHED[split]:,} images and {len(numbers):,} of 1,000 classes"
        )
    if not found:
        raise MissingData(f"{root / base} holds no batches: {how_to_get(size)}")
    return "; ".join([*found, *([f"their checksum is that of {words}"] if words else [])])
