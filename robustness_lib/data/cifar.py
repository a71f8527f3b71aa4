"""CIFAR-10, CIFAR-100 and what others made of them: CIFAR-10.1 and CIFAR-10N."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robustness_lib.data import pickles
from robustness_lib.data.dataset import ImageDataset
from robustness_lib.data.io import (
    DAMAGE,
    MissingData,
    damaged,
    expect_digest,
    integer_labels,
    read_npy,
    read_npz,
    read_pickle,
)

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR101_ADDRESS = "https://raw.githubusercontent.com/modestyachts/CIFAR-10.1/master/datasets/"
CIFAR101_SHA256 = {
    "cifar10.1_v4_data.npy": "5aaedc268df8f4cffca2ac0cf9e608ae1897a8cddb630c7a850a2ea8f6558e75",
    "cifar10.1_v4_labels.npy": "1f9544300ded199539b6662364ce7fe6c2e1ea9f87408f06db4b1a6184cffb18",
    "cifar10.1_v6_data.npy": "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6",
    "cifar10.1_v6_labels.npy": "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448",
}
"""Published files of CIFAR-10.1 (Recht et al., 2018) and SHA-256 sums (TensorFlow Datasets pins the same)."""

CIFAR10N_ADDRESS = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data/CIFAR-10_human.pt"
CIFAR10N_LABELS = {
    "clean": "clean_label",
    "aggre": "aggre_label",
    "worse": "worse_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
"""The arrays of CIFAR-10N (Wei et al., 2022) by the suffix of the image set's name."""


def check_published_files(cls: type[CIFAR10], root: Path, name: str) -> None:
    """Check every file of a torchvision class against its published MD5 sum.

    Raises:
        UserError: A file is missing or differs; the message has the path and both checksums.
    """
    meta = (cls.meta["filename"], cls.meta["md5"])
    for filename, expected in (*cls.train_list, *cls.test_list, meta):
        remedy = f"'robustness data fetch {name}' downloads the set"
        expect_digest(root / cls.base_folder / filename, "md5", expected, remedy)


def _read_official(cls: type[CIFAR10], name: str, split: str, root: Path) -> ImageDataset:
    from torchvision.datasets import CIFAR100

    check_published_files(cls, root, name)
    folder = root / cls.base_folder
    parts = [read_pickle(folder / file) for file, _ in (cls.train_list if split == "train" else cls.test_list)]
    images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    labels = [label for part in parts for label in part["fine_labels" if cls is CIFAR100 else "labels"]]
    class_names = read_pickle(folder / cls.meta["filename"])[cls.meta["key"]]
    return ImageDataset(name, torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64), tuple(class_names))


def load_cifar10(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-10 from its official batches, each checked against its published MD5 sum.

    Args:
        name: The name of the result.
        split: ``"train"`` (50,000 images) or ``"test"`` (10,000).
        root: The data root; the official batches lie in ``<root>/cifar-10-batches-py``.

    Returns:
        The image set, 32x32 pixels, in the official order.

    Raises:
        UserError: A file is missing or damaged; the message has the path and both checksums.
    """
    from torchvision.datasets import CIFAR10

    return _read_official(CIFAR10, name, split, root)


def load_cifar100(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-100 from its official files, each checked against its published MD5 sum.

    Args:
        name: The name of the result.
        split: ``"train"`` (50,000 images) or ``"test"`` (10,000).
        root: The data root; the official files lie in ``<root>/cifar-100-python``.

    Returns:
        The image set, 32x32 pixels, in the official order, with the 100 fine classes.

    Raises:
        UserError: A file is missing or damaged; the message has the path and both checksums.
    """
    from torchvision.datasets import CIFAR100

    return _read_official(CIFAR100, name, split, root)


def load_cifar101(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-10.1, new test images for CIFAR-10 (Recht et al., 2018), from its published arrays.

    Args:
        name: ``"cifar10.1-v4"`` (2,021 images) or ``"cifar10.1-v6"`` (2,000, as many of every class).
        split: ``"test"``.
        root: The data root; the ``.npy`` files lie in ``<root>/cifar10.1``.

    Returns:
        The image set, 32x32 pixels.

    Raises:
        UserError: A file is missing or has not its pinned SHA-256 sum.
    """
    arrays = []
    for part in ("data", "labels"):
        path = root / "cifar10.1" / f"{name.replace('-', '_')}_{part}.npy"
        remedy = f"'robustness data fetch {name}' downloads it"
        expect_digest(path, "sha256", CIFAR101_SHA256[path.name], remedy)
        arrays.append(read_npy(path))
    images = torch.from_numpy(np.ascontiguousarray(arrays[0].transpose(0, 3, 1, 2)))
    return ImageDataset(name, images, torch.from_numpy(arrays[1].astype(np.int64)), CIFAR10_CLASSES)


def read_human_labels(path: Path) -> dict[str, np.ndarray]:
    """The labels of CIFAR-10N, int64 [N] each, from ``labels.npz`` or the published ``CIFAR-10_human.pt``.

    The published file is a pickle, which :mod:`robustness_lib.data.pickles` reads.

    Args:
        path: Either file.

    Returns:
        The six arrays of :data:`CIFAR10N_LABELS` by name.

    Raises:
        UserError: The file is damaged, or an array is missing or has values outside 0..9.
    """
    names = CIFAR10N_LABELS.values()
    if path.suffix == ".npz":
        arrays: dict[str, Any] = dict(read_npz(path, names))
    else:
        try:
            arrays = _read_torch_file(path)
        except DAMAGE as error:
            raise damaged(path, error) from error
        if not isinstance(arrays, dict) or not set(names) <= set(arrays):
            raise damaged(path, f"a dictionary with {', '.join(names)} was expected")
    return {name: integer_labels(path, arrays[name], 0, 9) for name in names}


def _read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote of a dictionary of NumPy arrays, as a zip archive or in its earlier format."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return [pickles.load(file) for _ in ("magic number", "version", "system", "content")][-1]
    with zipfile.ZipFile(path) as archive:
        [member] = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return pickles.load(io.BytesIO(archive.read(member)))


def load_cifar10n(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-10N: CIFAR-10's training images with labels that people gave (Wei et al., 2022).

    Args:
        name: ``"cifar10n-"`` and a key of :data:`CIFAR10N_LABELS`.
        split: ``"train"``, or ``"test"`` for CIFAR-10's own test set (there are human labels of the training
            images only).
        root: The data root: ``<root>/cifar10n/labels.npz`` or ``<root>/cifar10n/CIFAR-10_human.pt``, and
            CIFAR-10.

    Returns:
        The image set, 32x32 pixels, in CIFAR-10's official order.

    Raises:
        UserError: A file is missing or damaged, or the file's clean labels are not CIFAR-10's.
    """
    from torchvision.datasets import CIFAR10

    if not (root / CIFAR10.base_folder).is_dir():
        raise MissingData(
            f"{root / CIFAR10.base_folder} is missing, whose images these labels are for; 'robustness data fetch "
            "cifar10' downloads it"
        )
    images = load_cifar10("cifar10", split, root)
    if split == "test":
        return ImageDataset(name, images.images, images.labels, images.class_names)
    folder = root / "cifar10n"
    path = next((p for p in (folder / "labels.npz", folder / "CIFAR-10_human.pt") if p.is_file()), None)
    if path is None:
        raise MissingData(f"{folder / 'labels.npz'} is missing; 'robustness data fetch {name}' downloads the labels")
    labels = read_human_labels(path)
    if not np.array_equal(labels["clean_label"], images.labels.numpy()):
        raise damaged(path, "its clean labels are not those of CIFAR-10's training images in the official order")
    return images.with_labels(torch.from_numpy(labels[CIFAR10N_LABELS[name.partition("-")[2]]]), name)
