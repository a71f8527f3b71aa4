"""Image sets that are published as single image files: Tiny ImageNet, DTD, Places365, LSUN; and SVHN.

Decoding many files takes a while, so the result is kept in ``<root>/.cache`` under a name that changes with
the files' content; deleting that folder loses nothing but time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustness_lib.data.dataset import SPLITS, ImageDataset
from robustness_lib.data.io import (
    DAMAGE,
    MissingData,
    damaged,
    expect_digest,
    file_digest,
    read_bundle,
    write_bundle,
)
from robustness_lib.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_DECODING_ERRORS: tuple[type[Exception], ...] = (*DAMAGE, Image.DecompressionBombError)


def read_image(path: Path, size: int, fit: str = "crop", upright: bool = False) -> Tensor:
    """Read one image file.

    Args:
        path: The file, in any format that Pillow reads; grey images become RGB, of 8 bits a channel.
        size: Pixels along a side of the result.
        fit: ``"crop"``: the shorter side is resized to ``size`` (bilinear), then the centre is cropped, as
            for the out-of-distribution sets of P1; ``"squeeze"``: both sides are resized to ``size`` with a
            box filter, as Downsampled ImageNet was made.
        upright: Whether the image is turned as its EXIF orientation says, as photographs must be; published sets are
            read as their pixels lie.

    Returns:
        uint8 tensor [3, size, size].

    Raises:
        UserError: The file is missing or cannot be decoded.
    """
    from PIL import ImageOps
    from torchvision.transforms import functional as F

    if not path.is_file():
        raise UserError(f"{path} is missing, though the set's own list names it; unpack the set again")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file) if upright else file
            if image.mode.startswith("I;16"):  # which Pillow's own conversion would clip, not scale
                image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise damaged(path, "more than 16 bits a channel", "save it with 8 bits a channel")
            image = image.convert("RGB")
    except UserError:
        raise
    except _DECODING_ERRORS as error:
        raise damaged(path, error) from error
    if fit == "squeeze":
        image = image.resize((size, size), Image.Resampling.BOX)
    elif image.size != (size, size):
        image = F.center_crop(F.resize(image, size, F.InterpolationMode.BILINEAR), [size, size])
    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


def read_images(paths: Sequence[Path], size: int, fit: str = "crop", upright: bool = False) -> Tensor:
    """Read image files (see :func:`read_image`), several at a time.

    Returns:
        uint8 tensor [N, 3, size, size], in the order of ``paths``.

    Raises:
        UserError: A file is missing or cannot be decoded.
    """
    images = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for index, image in enumerate(pool.map(lambda path: read_image(path, size, fit, upright), paths)):
            images[index] = image
    return images


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted: links to folders are followed, what is hidden is left out."""
    found, seen = [], set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(place).resolve()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here not in seen)
        found += [Path(place, name) for name in names if not name.startswith(".") and here not in seen]
        seen.add(here)
    return sorted(found)


def _fingerprint(paths: Sequence[Path], labels: Sequence[int], names: Sequence[str], recipe: str) -> str:
    digest = hashlib.sha256(f"{recipe} {list(labels)} {list(names)}".encode())
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for content in pool.map(lambda path: file_digest(path, "sha256") if path.is_file() else "missing", paths):
            digest.update(content.encode())
    return digest.hexdigest()[:16]


def image_set(
    name: str,
    paths: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    size: int,
    *,
    fit: str = "crop",
    cache: Path | None = None,
) -> ImageDataset:
    """An image set of image files, decoded or from the cache.

    Args:
        name: The name of the set.
        paths: The files.
        labels: The label of each file, 0..K-1.
        class_names: The K names.
        size: Pixels along a side.
        fit: As for :func:`read_image`.
        cache: The folder of cached results; None for no cache. A damaged cache file is made anew; where none
            can be written the set is read all the same.

    Returns:
        The image set.

    Raises:
        UserError: A file is missing or cannot be decoded.
    """
    fingerprint = _fingerprint(paths, labels, class_names, f"{name} {size} {fit}")
    cached = cache / f"{name}-{fingerprint}.npz" if cache else None
    if cached and cached.is_file():
        with contextlib.suppress(UserError):
            return read_bundle(cached, name)
    images = read_images(paths, size, fit)
    result = ImageDataset(name, images, torch.tensor(labels, dtype=torch.int64), tuple(class_names))
    if cached:
        with contextlib.suppress(UserError):
            write_bundle(cached, result)
    return result


def read_tiny_imagenet(name: str, folder: Path, split: str, size: int = 64, cache: Path | None = None) -> ImageDataset:
    """Tiny ImageNet from its published folder ``tiny-imagenet-200``.

    Args:
        name: The name of the result.
        folder: The published folder, with ``wnids.txt``, ``words.txt``, ``train`` and ``val``.
        split: ``"train"`` (500 images of each of 200 classes) or ``"test"``, its validation part (50 of each;
            the labels of its test part are not public).
        size: Pixels along a side; the published images have 64.
        cache: As for :func:`image_set`.

    Returns:
        The image set, classes in the order of their WordNet ids.

    Raises:
        UserError: A file is missing or damaged.
    """
    wnids = sorted(_lines(folder / "wnids.txt"))
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0] for wnid in wnids]
    index = {wnid: label for label, wnid in enumerate(wnids)}
    if split == "train":
        pairs = []
        for wnid in wnids:
            listed = [line.split("\t")[0] for line in _lines(folder / "train" / wnid / f"{wnid}_boxes.txt")]
            pairs += [(folder / "train" / wnid / "images" / file, wnid) for file in listed]
    else:
        rows = [line.split("\t") for line in _lines(folder / "val" / "val_annotations.txt")]
        if bad := [row for row in rows if len(row) < 2 or row[1] not in index]:
            raise damaged(folder / "val" / "val_annotations.txt", f"the line {bad[0]} names no class of wnids.txt")
        pairs = [(folder / "val" / "images" / row[0], row[1]) for row in rows]
    paths, labels = [path for path, _ in pairs], [index[wnid] for _, wnid in pairs]
    return image_set(f"{name}-{split}", paths, labels, names, size, cache=cache)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the set again")
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()]


def load_tiny_imagenet(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet at 64 pixels from ``<root>/tiny-imagenet-200`` (see :func:`read_tiny_imagenet`)."""
    images = read_tiny_imagenet(name, root / "tiny-imagenet-200", split, cache=root / ".cache")
    return ImageDataset(name, images.images, images.labels, images.class_names)


def load_textures(name: str, split: str, root: Path, size: int = 32) -> ImageDataset:
    """The Describable Textures Dataset, all 5,640 images, through torchvision's class.

    Args:
        name: The name of the result.
        split: ``"test"``, which here is the whole set: P1 draws from all of it.
        root: The data root; the set lies in ``<root>/dtd/dtd``, where torchvision puts it.
        size: Pixels along a side; shorter side resized, centre cropped.

    Returns:
        The image set with its 47 categories.

    Raises:
        UserError: A file is missing or damaged.
    """
    from torchvision.datasets import DTD

    try:
        parts = [DTD(str(root), split=part) for part in ("train", "val", "test")]
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{root / 'dtd'} is not complete ({error}); delete it and fetch {name!r} again") from error
    names = sorted({category for part in parts for category in part.classes})
    files = sorted({Path(path) for part in parts for path in part._image_files})
    labels = [names.index(path.parent.name) for path in files]
    return image_set(name, files, labels, names, size, cache=root / ".cache")


def load_svhn(name: str, split: str, root: Path, size: int = 32) -> ImageDataset:
    """SVHN's cropped digits through torchvision's class, which checks the file's MD5 sum.

    Args:
        name: The name of the result.
        split: ``"train"`` (73,257 images) or ``"test"`` (26,032).
        root: The data root; the ``.mat`` files lie in ``<root>/svhn``.
        size: Pixels along a side; images of 32 pixels, as published, are resized (bilinear).

    Returns:
        The image set; label d is the digit d.

    Raises:
        UserError: The file is missing or damaged; the message has the path and both checksums.
    """
    from torchvision.datasets import SVHN
    from torchvision.transforms import functional as F

    _, filename, md5 = SVHN.split_list[split]
    path = root / "svhn" / filename
    if not path.is_file():
        raise MissingData(f"{path} is missing; 'robustness data fetch {name}' downloads it")
    expect_digest(path, "md5", md5, f"delete it, then 'robustness data fetch {name}' downloads it again")
    published = SVHN(str(root / "svhn"), split=split)
    labels = torch.from_numpy(published.labels).long()
    images = torch.from_numpy(published.data).contiguous()
    if size != images.shape[-1]:
        parts = torch.split(images, 5000)
        images = torch.cat([F.resize(part, [size, size], F.InterpolationMode.BILINEAR) for part in parts])
    return ImageDataset(name, images, labels, tuple("0123456789"))


def load_places365(name: str, split: str, root: Path, size: int = 32, limit: int = 10_000) -> ImageDataset:
    """Places365-Standard in its small (256-pixel) version, through torchvision's class.

    Args:
        name: The name of the result.
        split: ``"train"`` (1,803,460 images, both sides squeezed to ``size`` "in the same fashion as
            ImageNet", P1 §3) or ``"test"``: the first ``limit`` of the published test images, whose labels
            are not public, so that they all have the one label "unlabelled" (P1 uses a part of them, which is
            not said).
        root: The data root; the set lies in ``<root>/places365``, as torchvision unpacks it.
        size: Pixels along a side.
        limit: The number of test images.

    Returns:
        The image set.

    Raises:
        UserError: A file is missing or damaged.
    """
    from torchvision.datasets import Places365

    folder = root / "places365"
    part = "train-standard" if split == "train" else "test"
    remedy = f"'robustness data fetch {name}' downloads the set"
    for filename, md5 in (Places365._CATEGORIES_META, Places365._FILE_LIST_META[part]):
        if not (folder / filename).is_file():
            raise MissingData(f"{folder / filename} is missing; {remedy}")
        expect_digest(folder / filename, "md5", md5, remedy)
    published = Places365(str(folder), split=part, small=True)
    if not Path(published.images_dir).is_dir():
        raise MissingData(f"{published.images_dir} is missing; {remedy}")
    if split == "train":
        paths = [Path(path) for path, _ in published.imgs]
        names = [text[3:] for text in sorted(published.class_to_idx, key=published.class_to_idx.__getitem__)]
        return image_set(name, paths, published.targets, names, size, fit="squeeze", cache=root / ".cache")
    paths = [Path(path) for path, _ in published.imgs[:limit]]
    return image_set(name, paths, [0] * len(paths), ["unlabelled"], size, cache=root / ".cache")


def load_unlabelled(name: str, split: str, root: Path, size: int = 32, folder: str = "lsun/test") -> ImageDataset:
    """A folder of image files without labels, such as LSUN's test images (10,000, all scenes together).

    LSUN is published as a database file (lmdb) of WebP images, which its own ``data.py export`` writes as
    single files; those are what is read. The labels are not public: all images have the one label
    "unlabelled".

    Args:
        name: The name of the result.
        split: ``"test"``.
        root: The data root.
        size: Pixels along a side; shorter side resized, centre cropped.
        folder: Where the files lie below the data root, in folders at any depth.

    Returns:
        The image set, in the order of the files' paths.

    Raises:
        UserError: There is no image file, or one cannot be decoded.
    """
    paths = [path for path in _files_below(root / folder) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise MissingData(f"{root / folder} holds no image file ({', '.join(SUFFIXES)})")
    return image_set(name, paths, [0] * len(paths), ["unlabelled"], size, cache=root / ".cache")


def write_pictures(pictures: Path | str, bundles: Path | str, size: int) -> None:
    """Make a data set of one's own of pictures in the folders ``<pictures>/<split>/<class>``, at any depth.

    Of each picture, turned as its EXIF orientation says, the shorter side is resized to ``size`` and the middle kept.

    Args:
        pictures: A folder with a folder ``train``, ``test`` or both, and in each a folder a class, the same ones.
        bundles: The data set's folder, below the data root.
        size: Pixels along a side.

    Raises:
        UserError: There is no class, the splits have other classes, a class has no picture, or a file is no picture.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for folder in (place for split in SPLITS if (place := Path(pictures).expanduser() / split).is_dir()):
        files = _files_below(folder)
        if odd := [p for p in files if p.suffix.lower() not in SUFFIXES or p.parent == folder]:
            raise UserError(
                f"{odd[0]} is no picture in the folder of a class ({', '.join(SUFFIXES)}); convert it or move it away"
            )
        classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        found[folder.name] = {name: [p for p in files if p.is_relative_to(folder / name)] for name in classes}
        if empty := [name for name, paths in found[folder.name].items() if not paths] or ([] if classes else ["."]):
            raise UserError(f"{folder / empty[0]} holds no picture ({', '.join(SUFFIXES)}); add some or remove it")
    if not found:
        raise UserError(f"{pictures} has neither a folder train nor a folder test; put a folder a class in each")
    names = [set(classes) for classes in found.values()]
    if odd_names := sorted(names[0] ^ names[-1]):
        raise UserError(
            f"the class {odd_names[0]!r} is in one of train and test of {pictures} alone; give both the same classes"
        )
    for split, classes_of in found.items():
        paths = [path for files in classes_of.values() for path in files]
        labels = [label for label, files in enumerate(classes_of.values()) for _ in files]
        images = read_images(paths, size, upright=True)
        data = ImageDataset(Path(bundles).name, images, torch.tensor(labels), tuple(classes_of))
        write_bundle(Path(bundles).expanduser() / f"{split}.npz", data)
