"""Published predictions and accuracies of other people's networks: no images, only tables.

Three small files in the folder ``testbeds`` of the data root, each made without loss from the many that were published,
by ``scripts/testbed_tables.py`` of the repository. Their content is known by its SHA-256 sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustness_lib.data.dataset import data_root
from robustness_lib.data.io import MissingData, arrays_digest, damaged, read_npz
from robustness_lib.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FILES = {
    "cifar10-testbed": "testbeds/cifar10_testbed_predictions.npz",
    "imagenet-answers": "testbeds/imagenet_testbed_correct.npz",
    "imagenet-testbed": "testbeds/imagenet_testbed_top1.csv",
}
"""Where each table lies below the data root."""

CHECKSUMS = {
    "cifar10-testbed": "1166de32920f1cf0a2f7458864a5adbb29719e61ae06061b649e746af0a7a052",
    "imagenet-answers": "4786f0c8258720157c80e7651cba7628afaa895e09c3e8f19c3656876d1f9b67",
    "imagenet-testbed": "38cc2a4a96df0f888cf06692f09022002692b1938955257dd7c37e2c85be244c",
}
"""Of each table's content, by ``arrays_digest`` or :func:`table_digest`."""

SNAPSHOTS = ("2020-08-31", "2020-11-20", "2021-09-15")  # states of the ImageNet testbed's table that are kept


@dataclass(frozen=True, eq=False)
class Correctness:
    """Where each of M networks is right: bool [M, N], and labels int64 [N] in 0..K-1, by test set."""

    models: tuple[str, ...]
    correct: Mapping[str, npt.NDArray[np.bool_]]
    labels: Mapping[str, npt.NDArray[np.int64]]


def _file(name: str, root: Path | str | None) -> Path:
    path = data_root(root) / FILES[name]
    if not path.is_file():
        raise MissingData(f"{path} is missing; make it with 'python scripts/testbed_tables.py {name}'")
    return path


def _expect(name: str, actual: str, path: Path) -> None:
    if actual != CHECKSUMS[name]:
        reason = f"the SHA-256 sum of its content is {actual}, expected {CHECKSUMS[name]}"
        raise UserError(f"{path} is damaged: {reason}; make it again with 'python scripts/testbed_tables.py {name}'")


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 of a table of texts as CSV, without the types of the latest networks, which are for colours alone."""
    types = table["model_type"].where(table["first_snapshot"] != SNAPSHOTS[-1], "")
    return hashlib.sha256(table.assign(model_type=types).to_csv(index=False).encode()).hexdigest()


def _correctness(name: str, kind: str, sets: Mapping[str, str], root: Path | str | None) -> Correctness:
    """From arrays of ``predictions``, or ``correct`` (one bit an image), with the prefixes ``sets`` by test set."""
    path = _file(name, root)
    arrays = read_npz(path, ["model_names", *(f"{key}_{part}" for key in sets.values() for part in (kind, "labels"))])
    _expect(name, arrays_digest(arrays.values()), path)
    labels = {test: arrays[f"{key}_labels"].astype(np.int64) for test, key in sets.items()}
    correct = {}
    for test, key in sets.items():
        stored = arrays[f"{key}_{kind}"]
        bits = stored == labels[test] if kind == "predictions" else np.unpackbits(stored, axis=1)
        correct[test] = bits[:, : len(labels[test])].astype(np.bool_)
    return Correctness(tuple(arrays["model_names"].tolist()), correct, labels)


def cifar10_correctness(root: Path | str | None = None) -> Correctness:
    """The 30 public CIFAR-10 networks, on ``cifar10``, ``cifar10.1-v4`` and ``cifar10.1-v6`` (Recht et al., 2018)."""
    sets = {"cifar10": "cifar10", "cifar10.1-v4": "cifar101_v4", "cifar10.1-v6": "cifar101_v6"}
    return _correctness("cifar10-testbed", "predictions", sets, root)


def imagenet_correctness(root: Path | str | None = None) -> Correctness:
    """The 67 networks of Recht et al. (2019), on ``imagenet`` and ``imagenetv2`` (MatchedFrequency)."""
    sets = {"imagenet": "imagenet_val", "imagenetv2": "imagenetv2_matched_frequency"}
    return _correctness("imagenet-answers", "correct", sets, root)


def imagenet_accuracies(root: Path | str | None = None) -> pd.DataFrame:
    """The ImageNet testbed of 338 networks (Taori et al., 2020, with later ones): a row per network, by name.

    Columns are ``model_type``, ``first_snapshot`` (one of ``SNAPSHOTS``), and accuracies as fractions, perhaps NaN,
    under the testbed's own names; those with ``@`` and a date have the values that the table had then.
    """
    import pandas as pd

    name = "imagenet-testbed"
    path = _file(name, root)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        digest = table_digest(table)
    except (ValueError, KeyError) as error:
        raise damaged(path, error) from error
    _expect(name, digest, path)
    texts = ["model_type", "first_snapshot"]
    numbers = table.drop(columns=["model", *texts]).apply(pd.to_numeric) / 100
    accuracies: pd.DataFrame = pd.concat([table[texts], numbers], axis=1).set_index(table["model"])
    return accuracies


def describe(name: str, root: Path | str | None = None) -> str:
    """What a table holds, which is read and checked."""
    if name == "imagenet-testbed":
        networks, columns = imagenet_accuracies(root).shape
        return f"{networks} networks, {columns - 2} columns of accuracies"
    testbed = cifar10_correctness(root) if name == "cifar10-testbed" else imagenet_correctness(root)
    sizes = ", ".join(f"{test} {correct.shape[1]}" for test, correct in testbed.correct.items())
    return f"{len(testbed.models)} networks; images: {sizes}"
