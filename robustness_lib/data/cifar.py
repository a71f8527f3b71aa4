"""CIFAR-10, CIFAR-100 and what others made of them: CIFAR-10.1 and CIFAR-10N."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustness_lib.data import pickles
from robustness_lib.data.dataset import ImageDataset
from robustness_lib.data.io import MissingData, damaged, expect_digest, integer_labels, read_npz, read_pickle

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


def load_cifar(name: str, split: str, root: Path) -> ImageDataset:
    """``cifar10`` or ``cifar100`` (fine classes) where torchvision puts them, against their published MD5 sums."""
    from torchvision.datasets import CIFAR10, CIFAR100

    cls, labels_key = (CIFAR100, "fine_labels") if name == "cifar100" else (CIFAR10, "labels")
    folder, meta = root / cls.base_folder, cls.meta["filename"]
    for filename, md5 in (*cls.train_list, *cls.test_list, (meta, cls.meta["md5"])):
        expect_digest(folder / filename, "md5", md5, f"'robustness data fetch {name}' downloads the set")
    parts = [read_pickle(folder / file) for file, _ in (cls.train_list if split == "train" else cls.test_list)]
    images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    labels = torch.tensor([label for part in parts for label in part[labels_key]], dtype=torch.int64)
    return ImageDataset(name, torch.from_numpy(images), labels, tuple(read_pickle(folder / meta)[cls.meta["key"]]))


def load_cifar101(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-10.1, 2,021 (v4) or 2,000 (v6) new test images for CIFAR-10 (Recht et al., 2018)."""
    arrays = []
    for part in ("data", "labels"):
        path = root / "cifar10.1" / f"{name.replace('-', '_')}_{part}.npy"
        expect_digest(path, "sha256", CIFAR101_SHA256[path.name], f"'robustness data fetch {name}' downloads it")
        arrays.append(torch.from_numpy(np.load(path, allow_pickle=False)))
    return ImageDataset(name, arrays[0].permute(0, 3, 1, 2).contiguous(), arrays[1].long(), CIFAR10_CLASSES)


def read_human_labels(path: Path) -> dict[str, np.ndarray]:
    """The six arrays of :data:`CIFAR10N_LABELS`, int64 [N] in 0..9, from ``labels.npz`` or ``CIFAR-10_human.pt``."""
    names = CIFAR10N_LABELS.values()
    if path.suffix == ".npz":
        arrays: dict[str, Any] = dict(read_npz(path, names))
    else:
        try:
            arrays = _read_torch_file(path)
            arrays = {name: arrays[name] for name in names}
        except Exception as error:  # whatever a damaged file makes the reader stumble over
            raise damaged(path, error) from error
    return {name: integer_labels(path, array, 0, 9) for name, array in arrays.items()}


def _read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote of a dictionary of NumPy arrays, as a zip archive or in its earlier format."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return [pickles.load(file) for _ in ("magic number", "version", "system", "content")][-1]
    with zipfile.ZipFile(path) as archive:
        [member] = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return pickles.load(io.BytesIO(archive.read(member)))


def load_cifar10n(name: str, split: str, root: Path) -> ImageDataset:
    """CIFAR-10 with labels that people gave to its training images (Wei et al., 2022); test images have their own."""
    cifar10 = load_cifar("cifar10", split, root)
    if split == "test":
        return cifar10.with_labels(cifar10.labels, name)
    folder = root / "cifar10n"
    path = next((p for p in (folder / "labels.npz", folder / "CIFAR-10_human.pt") if p.is_file()), None)
    if path is None:
        raise MissingData(f"{folder / 'labels.npz'} is missing; 'robustness data fetch {name}' downloads the labels")
    labels = read_human_labels(path)
    if not np.array_equal(labels["clean_label"], cifar10.labels.numpy()):
        raise damaged(path, "its clean labels are not those of CIFAR-10's training images in the official order")
    return cifar10.with_labels(torch.from_numpy(labels[CIFAR10N_LABELS[name.partition("-")[2]]]), name)
