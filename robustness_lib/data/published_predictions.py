"""Published predictions and accuracies of other people's networks: no images, only tables.

Three small files in the folder ``testbeds`` of the data root, each made without loss from what was published
(:mod:`robustness_lib.data.published_predictions_download` makes them from there):

* ``cifar10_testbed_predictions.npz``: the predicted classes of 30 networks on CIFAR-10's test set and both versions of
  CIFAR-10.1 (Recht et al., 2018);
* ``imagenet_testbed_correct.npz``: where 67 networks are right on ImageNet's validation set and on ImageNetV2
  MatchedFrequency, one bit an image (Recht et al., 2019);
* ``imagenet_testbed_top1.csv``: accuracies of 338 networks on ImageNet and its variants, with what the table said at
  two earlier dates (Taori et al., 2020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustness_lib.data.dataset import data_root
from robustness_lib.data.io import MissingData, damaged, read_npz
from robustness_lib.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


FOLDER = "testbeds"
"""Where the files lie below the data root."""

CIFAR10_FILE = "cifar10_testbed_predictions.npz"
IMAGENET_FILE = "imagenet_testbed_correct.npz"
ACCURACIES_FILE = "imagenet_testbed_top1.csv"

CIFAR10_SHA256 = {
    "model_names": "257c5218215cf0daac2a3555f13fc9446ca4bf537430ccf5122248ddba372e40",
    "cifar10_predictions": "fda30219d31ab740d81bd7dfa2f383fc5a4cbfa345abb0a0ec391d3c9cc9a529",
    "cifar10_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    "cifar101_v4_predictions": "e658055c468778ced6220c7f4a59d63ac07021089952525ac0d8014b8573b067",
    "cifar101_v4_labels": "ecbf25061afbd8dee265bdeb4a6f6b1454a1ff4be7cff84b7ec4916fd2e8b24c",
    "cifar101_v6_predictions": "a2fb0834020f5a33563e90873d71e2ece167a75c48a7037f69556ed69b5960f2",
    "cifar101_v6_labels": "783ded2cd634604d77909249bf721cf46185a8401e95753ab3636fc8edcb816c",
}
IMAGENET_SHA256 = {
    "model_names": "03807e32c2ed9448a4285ccae6d5b866fbadd003339a95f938b352dc68e2d1d5",
    "imagenet_val_correct": "006a75b3740b0e28519e8ee0e433c784c8e483eca0d01b79a88e904900a4123b",
    "imagenet_val_labels": "38706990d40922216fd42a6304c4268aefc9a2d838deefa83badb4b4a93bf2ac",
    "imagenetv2_matched_frequency_correct": "7773ed5b4b26bcd15a55be7413fcbc60651d515904842c7550a4cf0cdf3dd4ec",
    "imagenetv2_matched_frequency_labels": "8619622206e6c6b960a7be3e01c628c2aee1b0dfb517d80acefac198878887e0",
}
"""SHA-256 sums of the arrays' bytes (a zip archive's own bytes depend on the library that wrote it)."""

ACCURACIES_SHA256 = "38cc2a4a96df0f888cf06692f09022002692b1938955257dd7c37e2c85be244c"
"""That of the table, as :func:`table_digest` computes it."""

SNAPSHOTS = ("2020-08-31", "2020-11-20", "2021-09-15")
"""The states of the ImageNet testbed's table that are kept, oldest first."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Correctness:
    """Where every network of a testbed is right.

    Attributes:
        models: Their M names.
        correct: bool [M, N] by test set.
        labels: int64 [N], 0..K-1, by test set.
        checksum: SHA-256 of the file's content.
    """

    models: tuple[str, ...]
    correct: Mapping[str, Bools]
    labels: Mapping[str, npt.NDArray[np.int64]]
    checksum: str


@dataclass(frozen=True, eq=False)
class Accuracies:
    """Accuracies of the networks of a testbed.

    Attributes:
        table: One row a network, by name: ``model_type`` and ``first_snapshot`` (texts), and accuracies as fractions,
            NaN where a network was not evaluated.
        checksum: SHA-256 of the file's content.
    """

    table: pd.DataFrame
    checksum: str


def _file(filename: str, name: str, root: Path | str | None) -> Path:
    path = data_root(root) / FOLDER / filename
    if not path.is_file():
        raise MissingData(f"{path} is missing: 'robustness data fetch {name}' downloads it")
    return path


def _expect(path: Path, what: str, actual: str, expected: str, name: str) -> None:
    if actual != expected:
        raise UserError(
            f"{path} is damaged: the SHA-256 sum of its {what} is {actual}, expected {expected}; "
            f"'robustness data fetch {name}' downloads it again"
        )


def array_digest(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _arrays(path: Path, sums: Mapping[str, str], name: str) -> tuple[dict[str, npt.NDArray[np.generic]], str]:
    """The arrays of a file, each against its sum, and one checksum of them all."""
    arrays = read_npz(path, sums)
    for key, expected in sums.items():
        _expect(path, f"array {key}", array_digest(arrays[key]), expected, name)
    return arrays, hashlib.sha256("".join(sums.values()).encode()).hexdigest()


def cifar10_correctness(root: Path | str | None = None) -> Correctness:
    """The 30 public CIFAR-10 networks, on ``cifar10``, ``cifar10.1-v4`` and ``cifar10.1-v6``."""
    name = "cifar10-testbed"
    arrays, checksum = _arrays(_file(CIFAR10_FILE, name, root), CIFAR10_SHA256, name)
    sets = {"cifar10": "cifar10", "cifar10.1-v4": "cifar101_v4", "cifar10.1-v6": "cifar101_v6"}
    return Correctness(
        models=tuple(str(model) for model in arrays["model_names"]),
        correct={test: arrays[f"{key}_predictions"] == arrays[f"{key}_labels"] for test, key in sets.items()},
        labels={test: arrays[f"{key}_labels"].astype(np.int64) for test, key in sets.items()},
        checksum=checksum,
    )


def imagenet_correctness(root: Path | str | None = None) -> Correctness:
    """The 67 networks of Recht et al. (2019), on ``imagenet`` and ``imagenetv2``.

    These are P2's testbed of single images: its 4.8 % of hard examples are theirs. One of them, ``fv_16k``, has 2.5 %
    on ImageNetV2 against 28 % on ImageNet: its file there is broken, and it is left out where ImageNetV2 is used.
    """
    name = "imagenet-answers"
    arrays, checksum = _arrays(_file(IMAGENET_FILE, name, root), IMAGENET_SHA256, name)
    sets = {"imagenet": "imagenet_val", "imagenetv2": "imagenetv2_matched_frequency"}
    labels = {test: arrays[f"{key}_labels"].astype(np.int64) for test, key in sets.items()}
    correct = {
        test: np.unpackbits(arrays[f"{key}_correct"].astype(np.uint8), axis=1, count=len(labels[test])).astype(np.bool_)
        for test, key in sets.items()
    }
    return Correctness(tuple(str(model) for model in arrays["model_names"]), correct, labels, checksum)


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 of a table of texts as comma-separated values, without the types of the networks that came last.

    These types are for colours only; nothing is computed from them.
    """
    types = table["model_type"].where(table["first_snapshot"] != SNAPSHOTS[-1], "")
    return hashlib.sha256(table.assign(model_type=types).to_csv(index=False).encode()).hexdigest()


def imagenet_accuracies(root: Path | str | None = None) -> Accuracies:
    """The ImageNet testbed of Taori et al. (2020) with its later networks.

    Columns beside ``model_type`` and ``first_snapshot`` (one of :data:`SNAPSHOTS`) are the testbed's own: ``val`` is
    ImageNet's validation set, ``val-on-…-classes`` a part of its classes. Those with ``@`` and a date have the values
    that the table had then.
    """
    import pandas as pd

    path = _file(ACCURACIES_FILE, "imagenet-testbed", root)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        digest = table_digest(table)
    except (ValueError, KeyError) as error:
        raise damaged(path, error) from error
    _expect(path, "table", digest, ACCURACIES_SHA256, "imagenet-testbed")
    texts = ["model_type", "first_snapshot"]
    numbers = table.drop(columns=["model", *texts]).apply(pd.to_numeric) / 100
    return Accuracies(pd.concat([table[texts], numbers], axis=1).set_index(table["model"]), digest)


def _summary(testbed: Correctness) -> str:
    sizes = ", ".join(f"{name} {correct.shape[1]}" for name, correct in testbed.correct.items())
    return f"{len(testbed.models)} networks; images: {sizes}"


def _accuracies_summary(root: Path) -> str:
    table = imagenet_accuracies(root).table
    return f"{len(table)} networks, {table.shape[1] - 2} columns of accuracies"


@dataclass(frozen=True)
class Table:
    """A file that the data commands know beside image sets.

    Attributes:
        name: As the commands take it.
        what: What it is, in a line.
        filename: Its name in :data:`FOLDER`.
        origin: Who published it, under which terms.
        describe: Reads and checks it below a data root, and says what it holds.
    """

    name: str
    what: str
    filename: str
    origin: str
    describe: Callable[[Path], str]


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "cifar10-testbed",
            "Predictions of 30 networks on CIFAR-10 and CIFAR-10.1",
            CIFAR10_FILE,
            "Recht et al. (2018), MIT; labels: terms of Tiny Images",
            lambda root: _summary(cifar10_correctness(root)),
        ),
        Table(
            "imagenet-answers",
            "Where 67 networks are right on ImageNet and ImageNetV2",
            IMAGENET_FILE,
            "Recht et al. (2019), MIT",
            lambda root: _summary(imagenet_correctness(root)),
        ),
        Table(
            "imagenet-testbed",
            "Accuracies of 338 networks on ImageNet and its variants",
            ACCURACIES_FILE,
            "Taori et al. (2020), MIT",
            _accuracies_summary,
        ),
    )
}
"""These files by name."""
