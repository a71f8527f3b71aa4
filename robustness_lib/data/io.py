"""Reading arrays from files that others wrote, checked as far as formats allow; nothing in them is run."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustness_lib.data import pickles
from robustness_lib.data.dataset import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically

DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What the readers of the standard library and NumPy raise on damaged files."""


class MissingData(UserError):
    """An image set, or one split of it, is not there (rather than there and damaged)."""


COPY_AGAIN = "replace it by a fresh copy"
"""What to do where a published file cannot be used."""

WRITE_AGAIN = "write it again, in the format that the data page (book/data.md) describes"
"""What to do where a bundle cannot be used: only its maker has it."""


def damaged(path: Path, reason: object, remedy: str = COPY_AGAIN) -> UserError:
    """The sentence for a file that cannot be used."""
    return UserError(f"{path} is damaged or not in the expected format ({reason}); {remedy}")


def file_digest(path: Path, algorithm: str) -> str:
    """The hexadecimal checksum of a file's bytes (``algorithm`` as in :mod:`hashlib`)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def expect_digest(path: Path, algorithm: str, expected: str, remedy: str) -> None:
    """Check a file against its published checksum.

    Args:
        path: The file.
        algorithm: As in :mod:`hashlib`.
        expected: The published checksum, hexadecimal.
        remedy: What to do where it differs; the end of the sentence.

    Raises:
        UserError: The file is missing or its checksum differs; the message has the path and both checksums.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    found = file_digest(path, algorithm)
    if found != expected:
        name = algorithm.upper().replace("SHA256", "SHA-256")
        raise UserError(f"{path} is damaged: its {name} sum is {found}, expected {expected}; {remedy}")


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, lists, numbers and text, and refuse everything else (:mod:`.pickles`).

    Args:
        path: A file written by Python 2 or 3 (text of Python 2 is read as Latin-1).

    Returns:
        The dictionary.

    Raises:
        UserError: The file is truncated, no pickle, no dictionary, or wants to use anything but NumPy arrays.
    """
    try:
        with path.open("rb") as file:
            content = pickles.load(file)
    except DAMAGE as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"a {type(content).__name__} where a dictionary was expected")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}


def read_npz(path: Path, keys: Iterable[str], remedy: str = COPY_AGAIN) -> dict[str, np.ndarray]:
    """Read the named arrays of an ``.npz`` file, each against its stored CRC; no pickled arrays.

    Args:
        path: The file.
        keys: Names of the arrays that are wanted.
        remedy: What to do where it is damaged; the end of the sentence.

    Returns:
        The arrays by name.

    Raises:
        UserError: The file is truncated, a byte of a wanted array is not what was written, or an array is not
            there.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            for key in keys:
                if key not in held:
                    reason = f"no array {key!r} in it, only {', '.join(sorted(held)) or 'nothing'}"
                    raise damaged(path, reason, remedy)
                stream = io.BytesIO(archive.read(f"{key}.npy"))
                arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
    except UserError:
        raise
    except DAMAGE as error:
        raise damaged(path, error, remedy) from error
    return arrays


def read_npy(path: Path) -> np.ndarray:
    """Read an ``.npy`` file; no pickled arrays.

    Raises:
        UserError: The file is truncated or not in the format.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except DAMAGE as error:
        raise damaged(path, error) from error


def integer_labels(path: Path, labels: Any, low: int, high: int, remedy: str = COPY_AGAIN) -> np.ndarray:
    """Labels as int64 [N], checked to be whole numbers in ``low..high``; ``remedy`` says what to do else.

    Raises:
        UserError: They are not.
    """
    if isinstance(labels, (list, tuple)) and any(isinstance(label, (list, tuple)) for label in labels):
        raise damaged(path, "labels must be a list of whole numbers, not of lists", remedy)  # they may nest for ever
    array = np.asarray(labels)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        reason = f"labels must be a list of whole numbers, not {array.dtype} of shape {list(array.shape)}"
        raise damaged(path, reason, remedy)
    array = array.astype(np.int64)
    if array.size and not low <= array.min() <= array.max() <= high:
        raise damaged(path, f"labels must lie in {low}..{high}, not in {array.min()}..{array.max()}", remedy)
    return array


def read_bundle(path: Path, name: str) -> ImageDataset:
    """Read a bundle: an ``.npz`` file with ``images``, ``labels`` and ``class_names``.

    Args:
        path: The file. ``images`` is uint8 [N, H, W, 3] (or [N, 3, H, W]), ``labels`` whole numbers [N] in
            0..K-1, ``class_names`` K texts.
        name: The name of the image set.

    Returns:
        The image set.

    Raises:
        UserError: The file is damaged or its arrays are not as described.
    """
    arrays = read_npz(path, ("images", "labels", "class_names"), WRITE_AGAIN)
    images, names = arrays["images"], arrays["class_names"]
    if images.ndim != 4 or images.dtype != np.uint8 or 3 not in (images.shape[1], images.shape[3]):
        shape = list(images.shape)
        reason = f"images must be uint8 [N, H, W, 3] or [N, 3, H, W], not {images.dtype} {shape}"
        raise damaged(path, reason, WRITE_AGAIN)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise damaged(path, f"class_names must be a list of texts, not {names.dtype} {list(names.shape)}", WRITE_AGAIN)
    labels = integer_labels(path, arrays["labels"], 0, len(names) - 1, WRITE_AGAIN)
    if not images.size:
        raise damaged(path, "no image in it", WRITE_AGAIN)
    if len(labels) != len(images):
        raise damaged(path, f"{len(images)} images but {len(labels)} labels", WRITE_AGAIN)
    if images.shape[3] == 3:
        images = images.transpose(0, 3, 1, 2)
    try:
        texts = _texts(names)
    except UnicodeDecodeError as error:
        raise damaged(path, f"class_names are not in UTF-8: {error.object!r}", WRITE_AGAIN) from error
    return ImageDataset(name, torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels), texts)


def _texts(names: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode() if isinstance(text, bytes) else str(text) for text in names.tolist())


@dataclass(frozen=True)
class Form:
    """What the splits of one data set have in common.

    Attributes:
        class_names: The names of the classes.
        size: Height and width of an image in pixels.
    """

    class_names: tuple[str, ...]
    size: tuple[int, int]


def bundle_form(path: Path) -> Form | None:
    """The form of a bundle (:func:`read_bundle`), without reading its images; None where it cannot be read."""
    try:
        names = read_npz(path, ("class_names",))["class_names"]
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, *sides = read(stream)[0]
        height, width = sides[:2] if sides[2] == 3 else sides[1:]
        return Form(_texts(names), (height, width)) if names.ndim == 1 else None
    except DAMAGE:
        return None


def expect_same_form(path: Path, images: ImageDataset, other: Path) -> None:
    """Check that a bundle and another split of the same data set have the same classes and image size.

    Args:
        path: The bundle.
        images: What it holds.
        other: The other split's bundle; nothing is said of it where it cannot be read.

    Raises:
        UserError: They differ; the message says in what.
    """
    form = bundle_form(other)
    if form is None:
        return
    height, width = images.images.shape[2:]
    reason = ""
    if images.num_classes != len(form.class_names):
        reason = f"{images.num_classes} classes but {len(form.class_names)} in {other}"
    elif images.class_names != form.class_names:
        label, (one, two) = next(
            (label, pair)
            for label, pair in enumerate(zip(images.class_names, form.class_names, strict=True))
            if pair[0] != pair[1]
        )
        reason = f"class {label} is {one!r} but {two!r} in {other}"
    elif (height, width) != form.size:
        reason = f"images of {height}x{width} pixels but of {form.size[0]}x{form.size[1]} in {other}"
    if reason:
        raise damaged(path, reason, "write both splits with the same classes, in one order, and the same image size")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an ``.npz`` file that is either whole or not there."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def write_bundle(path: Path, images: ImageDataset) -> None:
    """Write an image set as a bundle (see :func:`read_bundle`), whole or not at all."""
    write_npz(
        path,
        {
            "images": images.images.permute(0, 2, 3, 1).contiguous().numpy(),
            "labels": images.labels.numpy(),
            "class_names": np.array(images.class_names),
        },
    )
