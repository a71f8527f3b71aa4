"""Downloads, only on request: into a temporary folder, checked there, then moved into place."""

import contextlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustness_lib.data import cifar
from robustness_lib.data.io import arrays_digest, write_npz
from robustness_lib.errors import UserError

TINY_IMAGENET_ADDRESS = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_HASH = "sha256:6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"

OLD = 24 * 3600.0  # seconds after which an unfinished download counts as killed; the largest set has 4 GB

CIFAR10N_SHA256 = "e8c5104c60319c8623033d6159f0a7b25203a4e5866610d0d3a7414a0251f94c"
"""Of CIFAR-10N's label arrays, as 50,000 bytes each, by :func:`~robustness_lib.data.io.arrays_digest` (the published
file is a pickle, whose bytes depend on the library that wrote it)."""


@contextlib.contextmanager
def staging(name: str, root: Path) -> Iterator[Path]:
    """A temporary folder below the data root; what is in it at the end moves there, if all goes well.

    What killed downloads left goes when it is old.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".download-*"):
            with contextlib.suppress(FileNotFoundError):  # another process's, which has just ended
                if time.time() - leftover.stat().st_mtime > OLD:
                    shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as text:
            folder = Path(text)
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


def retrieve(address: str, known_hash: str | None, folder: Path) -> Path:
    """Download one file with pooch, which removes what has not the known hash."""
    import pooch

    return Path(pooch.retrieve(address, known_hash=known_hash, fname=address.rsplit("/", 1)[-1], path=folder))


def torchvision_set(name: str, root: Path) -> None:
    """Download CIFAR-10, CIFAR-100, SVHN, DTD or Places365's test images with torchvision's class."""
    from torchvision.datasets import CIFAR10, CIFAR100, DTD, SVHN, Places365

    name = name.removesuffix("-64")  # other sizes are made of the same files
    with staging(name, root) as folder:
        if name == "svhn":
            for split in ("train", "test"):
                SVHN(str(folder / "svhn"), split=split, download=True)
        elif name == "places365":
            (folder / "places365").mkdir()
            Places365(str(folder / "places365"), split="test", small=True, download=True)
        else:
            {"cifar10": CIFAR10, "cifar100": CIFAR100, "textures": DTD}[name](str(folder), download=True)
        for archive in folder.rglob("*.tar*"):
            archive.unlink()


def cifar101(name: str, root: Path) -> None:
    """Download a version of CIFAR-10.1 against its pinned SHA-256 sums."""
    with staging(name, root) as folder:
        for filename, digest in cifar.CIFAR101_SHA256.items():
            if filename.startswith(name.replace("-", "_")):
                retrieve(cifar.CIFAR101_ADDRESS + filename, f"sha256:{digest}", folder / "cifar10.1")


def cifar10n(name: str, root: Path) -> None:
    """Download CIFAR-10N's labels and keep them as ``cifar10n/labels.npz``, checked against a pinned sum."""
    with staging(name, root) as folder:
        published = retrieve(cifar.CIFAR10N_ADDRESS, None, folder)
        labels = {key: value.astype(np.uint8) for key, value in cifar.read_human_labels(published).items()}
        actual = arrays_digest(labels.values())
        if actual != CIFAR10N_SHA256:
            raise ValueError(f"the labels have the SHA-256 sum {actual}, expected {CIFAR10N_SHA256}")
        published.unlink()
        write_npz(folder / "cifar10n" / "labels.npz", labels)


def tiny_imagenet(name: str, root: Path) -> None:
    """Download and unpack Tiny ImageNet's archive against its known SHA-256 sum."""
    with staging(name, root) as folder:
        archive = retrieve(TINY_IMAGENET_ADDRESS, TINY_IMAGENET_HASH, folder)
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)  # which never leaves the folder
        archive.unlink()
