"""Downloads, only on request: into a temporary folder, checked there, then moved into place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustness_lib.data import cifar
from robustness_lib.data.io import write_npz
from robustness_lib.errors import UserError
from robustness_lib.files import locked

TINY_IMAGENET_ADDRESS = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_HASH = "sha256:6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"

TIME_LIMIT = 4 * 3600.0
"""Seconds that a set's download may take in all; the largest, Places365's test images, has 4 GB."""

CIFAR10N_SHA256 = {
    "clean_label": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "aggre_label": "2bd5e02e39c9c79772cf4c794f7b74630ac1aaeeac4b807a63c11e9a375f8404",
    "worse_label": "11a306ed336e3bc81aaac36322ddf12de379d0df1883aa43e10ba562a98f6b2a",
    "random_label1": "8d01b5a5af048e84bf6e964c86e1133e95d5b22c07763e23705b714ad0f32d8b",
    "random_label2": "7ea04c887750912f49669282a75e78df380077766b361fb6cb5200999ad6dcda",
    "random_label3": "cdbfad7e15bfc8fc83bc7c6e30b692e2aa1186660d82738b7543a6012d6ca46f",
}
"""SHA-256 sums of CIFAR-10N's label arrays, as 50,000 bytes each (the published file is a pickle, whose bytes
depend on the library that wrote it)."""


@contextlib.contextmanager
def staging(name: str, root: Path) -> Iterator[Path]:
    """A temporary folder below the data root; what is in it at the end moves there, what killed downloads left goes.

    Raises:
        UserError: What is done in the folder fails, or takes longer than :data:`TIME_LIMIT`.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with locked(root):
                for leftover in root.glob(".download-*"):
                    with locked(leftover, wait=False) as free:
                        if free:
                            shutil.rmtree(leftover, ignore_errors=True)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root, prefix=".download-")))
                stack.enter_context(locked(folder))
            with _time_limit(TIME_LIMIT):
                yield folder
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    target = root / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, target)
    except UserError:
        raise
    except Exception as error:  # whatever a server, a proxy or a disk may do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"downloading {name} into {root} failed: {reason}; try again") from error


class TookTooLong(Exception):
    """A download has reached its limit; this is no ``OSError``, after which libraries try again."""


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End what is done after so many seconds, whatever it waits for; only in the main thread."""

    def stop(*_: object) -> None:
        raise TookTooLong(f"it took more than {seconds / 3600:.2g} hours")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def retrieve(address: str, known_hash: str | None, folder: Path) -> Path:
    """Download one file with pooch, which removes what has not the known hash."""
    import pooch

    name = address.rsplit("/", 1)[-1]
    return Path(pooch.retrieve(address, known_hash=known_hash, fname=name, path=folder))


def torchvision_set(name: str, root: Path) -> None:
    """Download CIFAR-10, CIFAR-100, SVHN, DTD or Places365's test images with torchvision's class."""
    from torchvision.datasets import CIFAR10, CIFAR100, DTD, SVHN, Places365

    name = name.removesuffix("-64")  # other sizes are made of the same files
    with staging(name, root) as folder:
        if name == "cifar10":
            CIFAR10(str(folder), download=True)
        elif name == "cifar100":
            CIFAR100(str(folder), download=True)
        elif name == "svhn":
            for split in ("train", "test"):
                SVHN(str(folder / "svhn"), split=split, download=True)
        elif name == "textures":
            DTD(str(folder), download=True)
        else:
            (folder / "places365").mkdir()
            Places365(str(folder / "places365"), split="test", small=True, download=True)
        for archive in folder.rglob("*.tar*"):
            archive.unlink()


def cifar101(name: str, root: Path) -> None:
    """Download a version of CIFAR-10.1 against its pinned SHA-256 sums."""
    with staging(name, root) as folder:
        for filename, digest in cifar.CIFAR101_SHA256.items():
            if filename.startswith(name.replace("-", "_")):
                retrieve(cifar.CIFAR101_ADDRESS + filename, f"sha256:{digest}", folder / "cifar10.1")


def cifar10n(name: str, root: Path) -> None:
    """Download CIFAR-10N's labels and keep them as ``cifar10n/labels.npz``, checked against pinned sums."""
    with staging(name, root) as folder:
        published = retrieve(cifar.CIFAR10N_ADDRESS, None, folder)
        labels = {key: value.astype(np.uint8) for key, value in cifar.read_human_labels(published).items()}
        for key, expected in CIFAR10N_SHA256.items():
            actual = hashlib.sha256(labels[key].tobytes()).hexdigest()
            if actual != expected:
                raise UserError(
                    f"{cifar.CIFAR10N_ADDRESS}: the SHA-256 sum of {key} is {actual}, expected {expected}; "
                    "nothing was kept"
                )
        published.unlink()
        write_npz(folder / "cifar10n" / "labels.npz", labels)


def tiny_imagenet(name: str, root: Path) -> None:
    """Download and unpack Tiny ImageNet's archive against its known SHA-256 sum."""
    with staging(name, root) as folder:
        archive = retrieve(TINY_IMAGENET_ADDRESS, TINY_IMAGENET_HASH, folder)
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)  # which never leaves the folder
        archive.unlink()
