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

import torch
from PIL import Image, ImageOps
from torch import Tensor

from robustness_lib.data.dataset import SPLITS, ImageDataset
from robustness_lib.data.io import MissingData, damaged, expect_digest, file_digest, read_bundle, write_bundle
from robustness_lib.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_image(path: Path, size: int, fit: str = "crop", upright: bool = False) -> Tensor:
    """Read one image file, in any format that Pillow reads; grey images become RGB.

    Args:
        path: The file.
        size: Pixels along a side of the result.
        fit: ``"crop"``: the shorter side is resized to ``size`` (bilinear), then the centre is cropped, as
            for the out-of-distribution sets of P1; ``"squeeze"``: both sides are resized to ``size`` with a
            box filter, as Downsampled ImageNet was made.
        upright: Whether the image is turned as its EXIF orientation says, as photographs must be; published sets are
            read as their pixels lie.

    Returns:
        uint8 tensor [3, size, size].
    """
    from torchvision.transforms import functional as F

    if not path.is_file():
        raise UserError(f"{path} is missing, though the set's own list names it; unpack the set again")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file) if upright else file
            mode, image = image.mode, image.convert("RGB")
    except Exception as error:  # whatever a damaged file makes Pillow stumble over
        raise damaged(path, error) from error
    if mode.startswith(("I", "F")):  # which Pillow's conversion clips, not scales
        raise damaged(path, "more than 8 bits a channel", "save it with 8 bits a channel")
    if fit == "squeeze":
        image = image.resize((size, size), Image.Resampling.BOX)
    elif image.size != (size, size):
        image = F.center_crop(F.resize(image, size, F.InterpolationMode.BILINEAR), [size, size])
    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


def read_images(paths: Sequence[Path], size: int, fit: str = "crop", upright: bool = False) -> Tensor:
    """Read image files (see :func:`read_image`), several at a time: uint8 [N, 3, size, size]."""
    images = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for index, image in enumerate(pool.map(lambda path: read_image(path, size, fit, upright), paths)):
            images[index] = image
    return images


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted: links to folders are followed, what is hidden is left out."""
    files: list[Path] = []
    seen: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := Path(place).resolve()) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _fingerprint(paths: Sequence[Path], labels: Sequence[int], names: Sequence[str], how: str) -> str:
    digest = hashlib.sha256(f"{how} {list(labels)} {list(names)}".encode())
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for content in pool.map(lambda path: file_digest(path, "sha256") if path.is_file() else "missing", paths):
            digest.update(content.encode())
    return digest.hexdigest()[:16]


def image_set(
    name: str,
    paths: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    size: int,
    cache: Path,
    fit: str = "crop",
) -> ImageDataset:
    """An image set of image files with the labels 0..K-1, decoded (:func:`read_image`) or from the folder ``cache``.

    A damaged cache file is made anew; where none can be written the set is read all the same.
    """
    cached = cache / f"{name}-{_fingerprint(paths, labels, class_names, f'{name} {size} {fit}')}.npz"
    if cached.is_file():
        with contextlib.suppress(UserError):
            return read_bundle(cached, name)
    images = read_images(paths, size, fit)
    result = ImageDataset(name, images, torch.tensor(labels, dtype=torch.int64), tuple(class_names))
    with contextlib.suppress(UserError):
        write_bundle(cached, result)
    return result


def load_tiny_imagenet(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet at 64 pixels from ``<root>/tiny-imagenet-200``, classes in the order of their WordNet ids.

    ``"train"`` has 500 images of each of 200 classes; ``"test"`` is the published validation part, 50 of each, since
    the labels of its test part are not public.
    """
    folder = root / "tiny-imagenet-200"
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
    images = image_set(f"{name}-{split}", paths, labels, names, 64, root / ".cache")
    return images.with_labels(images.labels, name)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the set again")
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()]


def load_textures(name: str, split: str, root: Path, size: int = 32) -> ImageDataset:
    """The Describable Textures Dataset from ``<root>/dtd/dtd``, where torchvision puts it, with its 47 categories.

    The one split ``"test"`` has all 5,640 images: P1 draws from all of them.
    """
    from torchvision.datasets import DTD

    try:
        parts = [DTD(str(root), split=part) for part in ("train", "val", "test")]
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{root / 'dtd'} is not complete ({error}); delete it and fetch {name!r} again") from error
    names = sorted({category for part in parts for category in part.classes})
    files = sorted({Path(path) for part in parts for path in part._image_files})
    return image_set(name, files, [names.index(path.parent.name) for path in files], names, size, root / ".cache")


def load_svhn(name: str, split: str, root: Path, size: int = 32) -> ImageDataset:
    """SVHN's cropped digits (73,257 and 26,032 of 32 pixels) from ``<root>/svhn``; label d is the digit d.

    Another ``size`` is made by resizing (bilinear).
    """
    from torchvision.datasets import SVHN
    from torchvision.transforms import functional as F

    _, filename, md5 = SVHN.split_list[split]
    path = root / "svhn" / filename
    if not path.is_file():
        raise MissingData(f"{path} is missing; 'robustness data fetch {name}' downloads it")
    expect_digest(path, "md5", md5, f"delete it, then 'robustness data fetch {name}' downloads it again")
    published = SVHN(str(root / "svhn"), split=split)
    images = torch.from_numpy(published.data).contiguous()
    if size != images.shape[-1]:
        parts = torch.split(images, 5000)
        images = torch.cat([F.resize(part, [size, size], F.InterpolationMode.BILINEAR) for part in parts])
    return ImageDataset(name, images, torch.from_numpy(published.labels).long(), tuple("0123456789"))


PLACES365_TEST_IMAGES = 10_000
"""How many of Places365's 328,500 test images are used, the first ones; P1 does not say how many it uses."""


def load_places365(name: str, split: str, root: Path, size: int = 32) -> ImageDataset:
    """Places365-Standard in its small (256-pixel) version from ``<root>/places365``, as torchvision unpacks it.

    ``"train"`` has 1,803,460 images, both sides squeezed to ``size`` "in the same fashion as ImageNet" (P1 §3). The
    labels of the test images are not public: these have the one label "unlabelled".
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
    paths = [Path(path) for path, _ in published.imgs]
    if split == "train":
        names = [text[3:] for text in sorted(published.class_to_idx, key=published.class_to_idx.__getitem__)]
        return image_set(name, paths, published.targets, names, size, root / ".cache", "squeeze")
    paths = paths[:PLACES365_TEST_IMAGES]
    return image_set(name, paths, [0] * len(paths), ["unlabelled"], size, root / ".cache")


def load_unlabelled(name: str, split: str, root: Path, size: int = 32, folder: str = "lsun/test") -> ImageDataset:
    """The image files of a folder below the data root, at any depth, sorted, all with the one label "unlabelled".

    LSUN's test images (10,000, all scenes together) are published as a database file (lmdb) of WebP images, which its
    own ``data.py export`` writes as single files; those are what is read.
    """
    paths = [path for path in _files_below(root / folder) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise MissingData(f"{root / folder} holds no image file ({', '.join(SUFFIXES)})")
    return image_set(name, paths, [0] * len(paths), ["unlabelled"], size, root / ".cache")


def write_pictures(pictures: Path | str, bundles: Path | str, size: int) -> None:
    """Make a data set of one's own of pictures in the folders ``<pictures>/<split>/<class>``, at any depth.

    Of each picture, turned as its EXIF orientation says, the shorter side is resized to ``size`` and the middle kept.

    Args:
        pictures: A folder with a folder ``train``, ``test`` or both, and in each a folder a class, the same ones.
        bundles: The data set's folder, below the data root.
        size: Pixels along a side.
    """
    splits: dict[str, dict[str, list[Path]]] = {}
    for folder in (place for split in SPLITS if (place := Path(pictures).expanduser() / split).is_dir()):
        files = _files_below(folder)
        if strays := [p for p in files if p.suffix.lower() not in SUFFIXES or p.parent == folder]:
            raise UserError(
                f"{strays[0]} is no picture in the folder of a class ({', '.join(SUFFIXES)}); convert or move it"
            )
        classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        splits[folder.name] = {name: [p for p in files if p.is_relative_to(folder / name)] for name in classes}
        if empty := [name for name, paths in splits[folder.name].items() if not paths] or ([] if classes else ["."]):
            raise UserError(f"{folder / empty[0]} holds no picture ({', '.join(SUFFIXES)}); add some or remove it")
    if not splits:
        raise UserError(f"{pictures} has neither a folder train nor a folder test; put a folder a class in each")
    names = [set(classes) for classes in splits.values()]
    if unshared := sorted(names[0] ^ names[-1]):
        raise UserError(
            f"the class {unshared[0]!r} is in one of train and test of {pictures} alone; give both the same classes"
        )
    for split, paths_by_class in splits.items():
        paths = [path for files in paths_by_class.values() for path in files]
        labels = [label for label, files in enumerate(paths_by_class.values()) for _ in files]
        images = read_images(paths, size, upright=True)
        data = ImageDataset(Path(bundles).name, images, torch.tensor(labels), tuple(paths_by_class))
        write_bundle(Path(bundles).expanduser() / f"{split}.npz", data)
