"""Reading arrays from files that others wrote, checked as far as formats allow; nothing in them is run."""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustness_lib.data import pickles
from robustness_lib.data.dataset import SPLITS, ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically


class MissingData(UserError):
    """An image set, or one split of it, is not there (rather than there and damaged)."""


COPY_AGAIN = "replace it by a fresh copy"
WRITE_AGAIN = "write it again, in the format that the data page (book/data.md) describes"


def damaged(path: Path, reason: object, remedy: str = COPY_AGAIN) -> UserError:
    """The error for a file that cannot be used."""
    return UserError(f"{path} is damaged or not in the expected format ({reason}); {remedy}")


def file_digest(path: Path, algorithm: str) -> str:
    """The hexadecimal checksum of a file's bytes (``algorithm`` as in :mod:`hashlib`)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def expect_digest(path: Path, algorithm: str, expected: str, remedy: str) -> None:
    """Refuse a file that is missing or has not its published checksum; ``remedy`` ends the sentence."""
    if not path.is_file():
        raise MissingData(f"{path} is missing; {remedy}")
    actual = file_digest(path, algorithm)
    if actual != expected:
        name = algorithm.upper().replace("SHA256", "SHA-256")
        raise UserError(f"{path} is damaged: its {name} sum is {actual}, expected {expected}; {remedy}")


def arrays_digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the sums of arrays, each of its bytes (an archive's own depend on the library that wrote it)."""
    sums = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, lists, numbers and text; anything else is refused (:mod:`.pickles`)."""
    try:
        with path.open("rb") as file:
            content = pickles.load(file)
        return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise damaged(path, error) from error


def read_npz(path: Path, keys: Iterable[str], remedy: str = COPY_AGAIN) -> dict[str, np.ndarray]:
    """The named arrays of an ``.npz`` file, each against its stored CRC; no pickled arrays."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            content = {key: io.BytesIO(archive.read(f"{key}.npy")) for key in keys if key in names}
        arrays = {key: np.lib.format.read_array(stream, allow_pickle=False) for key, stream in content.items()}
    except Exception as error:
        raise damaged(path, error, remedy) from error
    if absent := [key for key in keys if key not in arrays]:
        raise damaged(path, f"no array {absent[0]!r} in it, only {', '.join(sorted(names)) or 'nothing'}", remedy)
    return arrays


def integer_labels(path: Path, labels: Any, low: int, high: int, remedy: str = COPY_AGAIN) -> np.ndarray:
    """Labels as int64 [N], if they are whole numbers in ``low..high``."""
    nested = isinstance(labels, (list, tuple)) and any(isinstance(label, (list, tuple)) for label in labels)
    array = np.empty((0, 0)) if nested else np.asarray(labels)  # lists may nest for ever
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        reason = f"labels must be a list of whole numbers, not {array.dtype} of shape {list(array.shape)}"
        raise damaged(path, reason, remedy)
    array = array.astype(np.int64)
    if array.size and not low <= array.min() <= array.max() <= high:
        raise damaged(path, f"labels must lie in {low}..{high}, not in {array.min()}..{array.max()}", remedy)
    return array


def read_bundle(path: Path, name: str) -> ImageDataset:
    """Read an image set from an ``.npz`` file.

    ``images`` are uint8 [N, H, W, 3] or [N, 3, H, W], ``labels`` [N] in 0..K-1, ``class_names`` K texts.
    """
    arrays = read_npz(path, ("images", "labels", "class_names"), WRITE_AGAIN)
    images, names = arrays["images"], arrays["class_names"]
    if images.ndim != 4 or images.dtype != np.uint8 or 3 not in (images.shape[1], images.shape[3]):
        reason = f"images must be uint8 [N, H, W, 3] or [N, 3, H, W], not {images.dtype} {list(images.shape)}"
        raise damaged(path, reason, WRITE_AGAIN)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise damaged(path, f"class_names must be a list of texts, not {names.dtype} {list(names.shape)}", WRITE_AGAIN)
    try:
        texts = _texts(names)
    except UnicodeDecodeError as error:
        raise damaged(path, f"class_names are not in UTF-8: {error.object!r}", WRITE_AGAIN) from error
    labels = integer_labels(path, arrays["labels"], 0, len(names) - 1, WRITE_AGAIN)
    if not images.size:
        raise damaged(path, f"images of shape {list(images.shape)}, which hold no pixel", WRITE_AGAIN)
    if len(labels) != len(images):
        raise damaged(path, f"{len(images)} images but {len(labels)} labels", WRITE_AGAIN)
    if images.shape[3] == 3:
        images = images.transpose(0, 3, 1, 2)
    return ImageDataset(name, torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels), texts)


def _texts(names: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode() if isinstance(text, bytes) else str(text) for text in names.tolist())


def expect_same_form(path: Path, images: ImageDataset, other: Path) -> None:
    """Refuse a bundle whose classes or image size are not the other split's, of which only the head is read."""
    try:
        names = _texts(read_npz(other, ("class_names",))["class_names"])
        with zipfile.ZipFile(other) as archive, archive.open("images.npy") as stream:
            np.lib.format.read_magic(stream)
            _, *sides = np.lib.format.read_array_header_1_0(stream)[0]
        height, width = sides[:2] if sides[2] == 3 else sides[1:]
    except Exception:  # it is damaged, which whoever reads it is told
        return
    remedy = "write both splits with the same classes, in one order, and the same image size"
    for label, (name, expected) in enumerate(zip_longest(images.class_names, names, fillvalue="missing")):
        if name != expected:
            raise damaged(path, f"class {label} is {name!r} but {expected!r} in {other}", remedy)
    if (size := tuple(images.images.shape[2:])) != (height, width):
        reason = f"images of {size[0]}x{size[1]} pixels but of {height}x{width} in {other}"
        raise damaged(path, reason, remedy)


def bundle_path(name: str, split: str, root: Path) -> Path:
    """Where a split of a bundle is."""
    return root / name / f"{split}.npz"


def load_bundle(name: str, split: str, root: Path) -> ImageDataset:
    """A split of a bundle, which has the same form as the other one, where that is there."""
    path = bundle_path(name, split, root)
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, but a data set of one's own has train.npz and test.npz (for OOD images "
            "test.npz is enough); write it, as the data page (book/data.md) shows"
        )
    images = read_bundle(path, name)
    [other] = (bundle_path(name, another, root) for another in SPLITS if another != split)
    if not name.startswith("places365") and other.is_file():  # whose test labels are not public
        expect_same_form(path, images, other)
    return images


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an ``.npz`` file that is either whole or not there."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def write_bundle(path: Path, images: ImageDataset) -> None:
    """Write an image set as a bundle (see :func:`read_bundle`), whole or not at all."""
    pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
    write_npz(path, {"images": pixels, "labels": images.labels.numpy(), "class_names": np.array(images.class_names)})
