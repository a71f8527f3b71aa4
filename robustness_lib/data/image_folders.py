"""Image sets that are published as single image files: Tiny ImageNet, DTD, Places365, LSUN; and SVHN.

Decoded images are kept in ``<root>/.cache``, under names that change with the files' content.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from robustness_lib.data.dataset import ImageDataset
from robustness_lib.data.io import MissingData, damaged, expect_digest, file_digest, read_bundle, write_bundle
from robustness_lib.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_image(path: Path, size: int, squeeze: bool = False, upright: bool = False) -> Tensor:
    """Read an image file as uint8 [3, size, size].

    The shorter side is resized (bilinear), then the centre is cropped, as for the OOD sets of P1; ``squeeze`` resizes
    both with a box filter, as Downsampled ImageNet was made; ``upright`` turns the image as its EXIF orientation says.
    """
    from torchvision.transforms import functional as F

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file) if upright else file
            mode, image = image.mode, image.convert("RGB")
    except Exception as error:  # whatever a damaged file makes Pillow stumble over
        raise damaged(path, error) from error
    if mode.startswith(("I", "F")):  # which Pillow's conversion clips, not scales
        raise damaged(path, "more than 8 bits a channel", "save it with 8 bits a channel")
    if squeeze:
        image = image.resize((size, size), Image.Resampling.BOX)
    elif image.size != (size, size):
        image = F.center_crop(F.resize(image, size, F.InterpolationMode.BILINEAR), [size, size])
    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


def _image_set(
    name: str, paths: Sequence[Path], labels: Sequence[int], names: Sequence[str], root: Path, squeeze: bool = False
) -> ImageDataset:
    """Decoded, or from the cache, which need not be whole or writable."""
    digest = hashlib.sha256(f"{_size(name)} {squeeze} {list(labels)} {list(names)}".encode())
    with ThreadPoolExecutor() as pool:
        try:
            for content in pool.map(lambda path: file_digest(path, "sha256"), paths):
                digest.update(content.encode())
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is missing, though the set's own list names it; unpack the set again"
            ) from error
    cached = root / ".cache" / f"{name}-{digest.hexdigest()[:16]}.npz"
    if cached.is_file():
        with contextlib.suppress(UserError):
            return read_bundle(cached, name)
    images = torch.empty((len(paths), 3, _size(name), _size(name)), dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(lambda path: read_image(path, _size(name), squeeze), paths)):
            images[index] = image
    result = ImageDataset(name, images, torch.tensor(labels, dtype=torch.int64), tuple(names))
    with contextlib.suppress(UserError):
        write_bundle(cached, result)
    return result


def _size(name: str) -> int:
    return 64 if name.endswith("-64") or name in ("tiny_imagenet", "imagenet21k") else 32


def load_tiny_imagenet(name: str, split: str, root: Path) -> ImageDataset:
    """Tiny ImageNet at 64 pixels; ``"test"`` is its validation part, since labels of its test part are not public."""
    folder = root / "tiny-imagenet-200"
    wnids = sorted(_lines(folder / "wnids.txt"))
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0] for wnid in wnids]
    paths, labels = [], []
    if split == "train":
        for label, wnid in enumerate(wnids):
            files = [line.split("\t")[0] for line in _lines(folder / "train" / wnid / f"{wnid}_boxes.txt")]
            paths += [folder / "train" / wnid / "images" / file for file in files]
            labels += [label] * len(files)
    else:
        for file, wnid, *_ in (f"{line}\t".split("\t") for line in _lines(folder / "val" / "val_annotations.txt")):
            if wnid not in wnids:
                raise damaged(folder / "val" / "val_annotations.txt", f"{file} has no class of wnids.txt")
            paths.append(folder / "val" / "images" / file)
            labels.append(wnids.index(wnid))
    return _image_set(name, paths, labels, names, root)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the set again")
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()]


def load_textures(name: str, split: str, root: Path) -> ImageDataset:
    """The Describable Textures Dataset with its 47 categories: all 5,640 images, as P1 draws from all."""
    from torchvision.datasets import DTD

    try:
        parts = [DTD(str(root), split=part) for part in ("train", "val", "test")]
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{root / 'dtd'} is not complete ({error}); delete it and fetch {name!r} again") from error
    names = sorted({category for part in parts for category in part.classes})
    files = sorted({Path(path) for part in parts for path in part._image_files})
    return _image_set(name, files, [names.index(path.parent.name) for path in files], names, root)


def load_svhn(name: str, split: str, root: Path) -> ImageDataset:
    """SVHN's cropped digits of 32 pixels, or resized to 64 (bilinear); label d is the digit d."""
    from torchvision.datasets import SVHN
    from torchvision.transforms import functional as F

    _, filename, md5 = SVHN.split_list[split]
    expect_digest(root / "svhn" / filename, "md5", md5, f"'robustness data fetch {name}' downloads it")
    published = SVHN(str(root / "svhn"), split=split)
    images = torch.from_numpy(published.data).contiguous()
    if (size := _size(name)) != images.shape[-1]:
        parts = torch.split(images, 5000)
        images = torch.cat([F.resize(part, [size, size], F.InterpolationMode.BILINEAR) for part in parts])
    return ImageDataset(name, images, torch.from_numpy(published.labels).long(), tuple("0123456789"))


PLACES365_TEST_IMAGES = 10_000  # the first of 328,500; P1 does not say how many it uses


def load_places365(name: str, split: str, root: Path) -> ImageDataset:
    """Places365-Standard in its small (256-pixel) version, as torchvision unpacks it.

    Training images are squeezed "in the same fashion as ImageNet" (P1 §3); labels of test images are not public.
    """
    from torchvision.datasets import Places365

    folder = root / "places365"
    part = "train-standard" if split == "train" else "test"
    remedy = f"'robustness data fetch {name}' downloads the set"
    for filename, md5 in (Places365._CATEGORIES_META, Places365._FILE_LIST_META[part]):
        expect_digest(folder / filename, "md5", md5, remedy)
    published = Places365(str(folder), split=part, small=True)
    if not Path(published.images_dir).is_dir():
        raise MissingData(f"{published.images_dir} is missing; {remedy}")
    paths = [Path(path) for path, _ in published.imgs]
    if split == "test":
        return _unlabelled(name, paths[:PLACES365_TEST_IMAGES], root)
    names = [text[3:] for text in sorted(published.class_to_idx, key=published.class_to_idx.__getitem__)]
    return _image_set(name, paths, published.targets, names, root, squeeze=True)


def load_unlabelled(name: str, split: str, root: Path) -> ImageDataset:
    """The image files below ``<root>/lsun/test`` or ``<root>/imagenet21k/test``, sorted, all labelled "unlabelled"."""
    folder = root / name.removesuffix("-64") / "test"
    if not (paths := [path for path in _files_below(folder) if path.suffix.lower() in SUFFIXES]):
        raise MissingData(f"{folder} holds no image file ({', '.join(SUFFIXES)})")
    return _unlabelled(name, paths, root)


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted: links to folders are followed, what is hidden is left out."""
    found: list[Path] = []
    seen: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := Path(place).resolve()) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _unlabelled(name: str, paths: Sequence[Path], root: Path) -> ImageDataset:
    return _image_set(name, paths, [0] * len(paths), ["unlabelled"], root)
