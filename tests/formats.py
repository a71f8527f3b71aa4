"""Writers of small image sets in the published formats, for every test that reads a data root.

Torchvision's classes get the MD5 sums of the small files for the length of a test.
"""

import hashlib
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, Places365

from robustness_lib.data import cifar


def some_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Random images, uint8 [count, size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_bundle(root: Path, name: str, split: str, count: int = 12, classes: int = 3, size: int = 32) -> Path:
    """``<root>/<name>/<split>.npz``."""
    path = root / name / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.array([f"class {k}" for k in range(classes)])
    np.savez(path, images=some_images(count, size), labels=np.arange(count) % classes, class_names=names)
    return path


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_file: int = 10) -> Path:
    """``<root>/cifar-10-batches-py``: five training batches and a test batch, labels 0, 1, ... 9, 0, ..."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for index, (name, _) in enumerate([*CIFAR10.train_list, *CIFAR10.test_list]):
        rows = some_images(per_file, seed=index).transpose(0, 3, 1, 2).reshape(per_file, -1)
        content = {"data": rows, "labels": [k % 10 for k in range(per_file)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(cifar.CIFAR10_CLASSES)}, protocol=2))
    _admit(CIFAR10, folder, monkeypatch)
    return folder


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 20) -> Path:
    """``<root>/cifar-100-python``."""
    folder = root / CIFAR100.base_folder
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        rows = some_images(count).transpose(0, 3, 1, 2).reshape(count, -1)
        content = {"data": rows, "fine_labels": list(range(count)), "coarse_labels": [0] * count}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {k}" for k in range(100)]}))
    _admit(CIFAR100, folder, monkeypatch)
    return folder


def _admit(cls: type[CIFAR10], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(cls, part, [[name, md5(folder / name)] for name, _ in getattr(cls, part)])
    filename = cls.meta["filename"]
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / filename)})


def write_human_labels(root: Path, clean: Sequence[int]) -> Path:
    """``<root>/cifar10n/labels.npz``: each array is the clean labels plus 0, 1, ... 5, modulo ten."""
    path = root / "cifar10n" / "labels.npz"
    path.parent.mkdir(parents=True)
    names = enumerate(cifar.CIFAR10N_LABELS.values())
    np.savez(path, **{name: ((np.array(clean) + shift) % 10).astype(np.uint8) for shift, name in names})
    return path


def write_cifar101(root: Path, monkeypatch: pytest.MonkeyPatch, version: str = "v6", count: int = 10) -> Path:
    """``<root>/cifar10.1/cifar10.1_<version>_{data,labels}.npy``."""
    folder = root / "cifar10.1"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"data": some_images(count), "labels": np.arange(count, dtype=np.int32) % 10}
    sums = {}
    for part, array in arrays.items():
        path = folder / f"cifar10.1_{version}_{part}.npy"
        np.save(path, array)
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "CIFAR101_SHA256", {**cifar.CIFAR101_SHA256, **sums})
    return folder


def write_downsampled(
    root: Path, batches: Iterable[Sequence[int]], test: Sequence[int], size: int = 32, pickled: bool = False
) -> Path:
    """``<root>/imagenet<size>``: training batches and a test batch with the given labels (1..1000).

    An image begins with the red values label // 256, label % 256 and its place in the batch, modulo 256.
    """
    folder = root / f"imagenet{size}"
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"train_data_batch_{k}": labels for k, labels in enumerate(batches, start=1)}
    for name, labels in {**named, "val_data": test}.items():
        data = some_images(len(labels), size).transpose(0, 3, 1, 2).reshape(len(labels), 3 * size * size).copy()
        data[:, 0], data[:, 1] = np.array(labels) // 256, np.array(labels) % 256
        data[:, 2] = np.arange(len(labels)) % 256
        content = {"data": data, "labels": list(labels), "mean": np.zeros(3 * size * size)}
        if pickled:
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        else:
            np.savez(folder / f"{name}.npz", **content)
    return folder


def write_tiny_imagenet(root: Path, wnids: Sequence[str], per_class: int = 3, size: int = 64) -> Path:
    """``<root>/tiny-imagenet-200`` with the first image of each class in grey."""
    folder = root / "tiny-imagenet-200"
    folder.mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (folder / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}, synonym\n" for wnid in wnids))
    annotations = []
    for place, wnid in enumerate(wnids):
        boxes = []
        for index, pixels in enumerate(some_images(per_class, size, seed=place)):
            name = f"{wnid}_{index}.JPEG"
            save_image(folder / "train" / wnid / "images" / name, pixels[:, :, 0] if index == 0 else pixels)
            boxes.append(f"{name}\t0\t0\t62\t62\n")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
        save_image(folder / "val" / "images" / f"val_{place}.JPEG", some_images(1, size, seed=99 + place)[0])
        annotations.append(f"val_{place}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return folder


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 10) -> Path:
    """``<root>/svhn/{train,test}_32x32.mat``, in which the digit 0 has the label 10."""
    folder = root / "svhn"
    folder.mkdir(parents=True)
    sums = {}
    for split in ("train", "test"):
        path = folder / f"{split}_32x32.mat"
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": some_images(count).transpose(1, 2, 3, 0), "y": labels})
        sums[split] = ["http://127.0.0.1/", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", sums)
    return folder


def write_textures(root: Path, categories: Sequence[str] = ("banded", "dotted")) -> Path:
    """``<root>/dtd/dtd``: three images a category, one in each part of the first partition."""
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for index, part in enumerate(("train", "val", "test")):
        lines = []
        for place, category in enumerate(categories):
            name = f"{category}/{category}_{index}.jpg"
            save_image(folder / "images" / name, some_images(1, 48, seed=place)[0][:40])
            lines.append(f"{name}\n")
        (folder / "labels" / f"{part}1.txt").write_text("".join(lines))
    return folder


def write_places365(root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 4) -> Path:
    """``<root>/places365``: test images without labels and training images of two categories."""
    folder = root / "places365"
    folder.mkdir(parents=True)
    categories = folder / Places365._CATEGORIES_META[0]
    categories.write_text("/a/airfield 0\n/b/bakery/shop 1\n")
    monkeypatch.setattr(Places365, "_CATEGORIES_META", (categories.name, md5(categories)))
    lists = dict(Places365._FILE_LIST_META)
    test = [f"Places365_test_{k:08d}.jpg" for k in range(1, count + 1)]
    train = {f"/a/airfield/{k:08d}.jpg": k % 2 for k in range(count)}
    labelled = [f"{name} {label}" for name, label in train.items()]
    for part, images, lines in (("test", "test_256", test), ("train-standard", "data_256_standard", labelled)):
        path = folder / lists[part][0]
        path.write_text("\n".join(lines) + "\n")
        lists[part] = (path.name, md5(path))
        for index, line in enumerate(lines):
            save_image(folder / images / line.split()[0].lstrip("/"), some_images(1, 48, seed=index)[0][:40])
    monkeypatch.setattr(Places365, "_FILE_LIST_META", lists)
    return folder


def flip_byte(path: Path, place: int) -> None:
    """Change every bit of one byte; a negative place counts from the end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def truncate(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
