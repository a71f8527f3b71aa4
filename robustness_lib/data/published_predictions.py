"""Published predictions and accuracies of other people's networks: no images, only tables.

Three small files in the folder ``testbeds`` of the data root, each made without loss from the many that were published,
at addresses that name a commit. Their content is known by its SHA-256 sum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.dataset import data_root
from robustness_lib.data.download import retrieve, staging
from robustness_lib.data.io import MissingData, arrays_digest, damaged, read_npz, write_npz
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

SNAPSHOT_COMMITS = {
    "2020-08-31": "28477dc7912df34bed05ccdb4da963dbb91dd1b4",
    "2020-11-20": "b9067fc13ea5b3cbf25e37a144d2a6fe437164f1",
    "2021-09-15": "0170eec658d664289d9f61de8f90f967f49abca0",
}
SNAPSHOTS = tuple(SNAPSHOT_COMMITS)
"""The states of the ImageNet testbed's table that are kept, oldest first."""


@dataclass(frozen=True, eq=False)
class Correctness:
    """Where each of M networks is right: bool [M, N], and labels int64 [N] in 0..K-1, by test set."""

    models: tuple[str, ...]
    correct: Mapping[str, npt.NDArray[np.bool_]]
    labels: Mapping[str, npt.NDArray[np.int64]]


def _file(name: str, root: Path | str | None) -> Path:
    path = data_root(root) / FILES[name]
    if not path.is_file():
        raise MissingData(f"{path} is missing: 'robustness data fetch {name}' downloads it")
    return path


def _expect(name: str, actual: str, path: Path) -> None:
    if actual != CHECKSUMS[name]:
        raise UserError(
            f"{path} is damaged: the SHA-256 sum of its content is {actual}, expected {CHECKSUMS[name]}; "
            f"'robustness data fetch {name}' downloads it again"
        )


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 of a table of texts as comma-separated values, without the types of the networks that came last.

    These types are for colours only; nothing is computed from them.
    """
    types = table["model_type"].where(table["first_snapshot"] != SNAPSHOTS[-1], "")
    return hashlib.sha256(table.assign(model_type=types).to_csv(index=False).encode()).hexdigest()


def _correctness(name: str, kind: str, sets: Mapping[str, str], root: Path | str | None) -> Correctness:
    """From arrays of ``predictions``, or ``correct``, one bit an image, with the prefixes ``sets`` (by test set)."""
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
    """The 67 networks of Recht et al. (2019), on ``imagenet`` and ``imagenetv2`` (MatchedFrequency).

    These are P2's testbed of single images: its 4.8 % of hard examples are theirs. One of them, ``fv_16k``, has 2.5 %
    on ImageNetV2 against 28 % on ImageNet: its file there is broken, and it is left out where ImageNetV2 is used.
    """
    sets = {"imagenet": "imagenet_val", "imagenetv2": "imagenetv2_matched_frequency"}
    return _correctness("imagenet-answers", "correct", sets, root)


def imagenet_accuracies(root: Path | str | None = None) -> pd.DataFrame:
    """The ImageNet testbed of 338 networks (Taori et al., 2020, with later ones): a row a network, by name.

    Columns are ``model_type`` and ``first_snapshot`` (one of :data:`SNAPSHOTS`), and accuracies as fractions, NaN where
    a network was not evaluated, under the testbed's own names: ``val`` is ImageNet's validation set,
    ``val-on-…-classes`` a part of its classes. Those with ``@`` and a date have the values that the table had then.
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


_GITHUB = "https://raw.githubusercontent.com"
CIFAR101_ADDRESS = f"{_GITHUB}/modestyachts/CIFAR-10.1/d9982abb0bfc4846b8d13a11e66b887d946205d0/"
CIFAR10_LABELS_ADDRESS = (
    f"{_GITHUB}/cleanlab/label-errors/6d5d6b31a13216290afc40e5c6319399c4d15c06/original_test_labels/"
    "cifar10_test_set_original_labels.npy"
)
IMAGENETV2_ADDRESS = f"{_GITHUB}/modestyachts/ImageNetV2/0b0c3fe89058e4c7ee2348938b3f4f706a931bf3/data/"
TESTBED_ADDRESS = f"{_GITHUB}/modestyachts/imagenet-testbed/"

_MODELS = files("robustness_lib.data") / "testbed_models"
CIFAR10_MODELS = (_MODELS / "cifar10.txt").read_text().split()
IMAGENET_MODELS = (_MODELS / "imagenet.txt").read_text().split()
"""The networks of the authors of CIFAR-10.1 and of ImageNetV2."""

ACCURACY_COLUMNS = (
    "val",
    "imagenetv2-matched-frequency-format-val",
    "imagenetv2-matched-frequency",
    "imagenetv2-threshold-0.7-format-val",
    "imagenetv2-threshold0.7",
    "imagenetv2-top-images-format-val",
    "imagenetv2-topimages",
    "imagenet-r",
    "val-on-imagenet-r-classes",
    "objectnet-1.0-beta",
    "val-on-objectnet-classes",
)
"""The columns that are kept of the testbed's more than two hundred."""

EARLIER_COLUMNS = {
    "val": "2020-08-31",
    "imagenetv2-matched-frequency-format-val": "2020-08-31",
    "val-on-objectnet-classes": "2020-11-20",
}
"""Those whose values at an earlier date are kept besides."""


def fetch(name: str, root: Path) -> None:
    """Download what a table is made of, make it, and keep it if it is as known; nothing else is checked on the way."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # else a line a file, with its sum
    make = {"cifar10-testbed": _cifar10, "imagenet-answers": _imagenet, "imagenet-testbed": _accuracies}[name]
    with staging(name, root) as folder:
        target = folder / FILES[name]
        target.parent.mkdir()
        make(folder / "raw", target)
        shutil.rmtree(folder / "raw")
        try:
            describe(name, folder)
        except UserError as error:
            raise ValueError("it is not what was published, since it has another SHA-256 sum") from error


def _cifar10(raw: Path, target: Path) -> None:
    arrays = {"model_names": np.array(CIFAR10_MODELS), "class_names": np.array(CIFAR10_CLASSES)}
    for part, key in {"original": "cifar10", "v4": "cifar101_v4", "v6": "cifar101_v6"}.items():
        folder = f"{CIFAR101_ADDRESS}model_predictions/{part}_predictions/"
        paths = [retrieve(f"{folder}{model}_predictions.json", None, raw / part) for model in CIFAR10_MODELS]
        arrays[f"{key}_predictions"] = np.array([json.loads(path.read_bytes()) for path in paths]).astype(np.uint8)
        address = f"{CIFAR101_ADDRESS}datasets/cifar10.1_{part}_labels.npy"
        labels = retrieve(CIFAR10_LABELS_ADDRESS if part == "original" else address, None, raw)
        arrays[f"{key}_labels"] = np.load(labels, allow_pickle=False).astype(np.uint8)
    write_npz(target, arrays)


def _imagenet(raw: Path, target: Path) -> None:
    arrays = {"model_names": np.array(IMAGENET_MODELS)}
    classes = json.loads(retrieve(f"{IMAGENETV2_ADDRESS}metadata/class_info.json", None, raw).read_bytes())
    class_of = {entry["wnid"]: entry["cid"] for entry in classes}
    parts = {"imagenet-validation-original": "imagenet_val", "imagenetv2-b-33": "imagenetv2_matched_frequency"}
    for part, key in parts.items():
        images = json.loads(retrieve(f"{IMAGENETV2_ADDRESS}datasets/{part}.json", None, raw).read_bytes())
        labels = np.array([class_of[wnid] for _, wnid in images["image_filenames"]])
        folder = f"{IMAGENETV2_ADDRESS}predictions/{part}/"
        paths = [retrieve(f"{folder}{model}.npy", None, raw / part) for model in IMAGENET_MODELS]
        first = [np.load(path, allow_pickle=False)[:, 0] for path in paths]  # of the five most likely classes
        arrays[f"{key}_correct"] = np.packbits(np.stack(first) == labels, axis=1)
        arrays[f"{key}_labels"] = labels.astype(np.int16)
    write_npz(target, arrays)


def _accuracies(raw: Path, target: Path) -> None:
    """The newest of the published tables, with what earlier ones said and since when each network is listed.

    All values are texts, as published; a network of unknown type has the type "".
    """
    import pandas as pd

    tables = {}
    for date, commit in SNAPSHOT_COMMITS.items():
        path = retrieve(f"{TESTBED_ADDRESS}{commit}/robustness_top1s.csv", None, raw / date)
        tables[date] = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("model")
    newest = tables[date]
    # A program that colours the testbed's figures has the types, as 'resnet50': ModelTypes.STANDARD
    program = retrieve(f"{TESTBED_ADDRESS}{commit}/plotting/model_types.py", None, raw).read_text()
    types = dict(re.findall(r"'([^']+)': ModelTypes\.(\w+)", program))
    columns = {
        "model_type": [types.get(model, "").lower() for model in newest.index],
        "first_snapshot": [next(date for date in tables if model in tables[date].index) for model in newest.index],
    }
    earlier = {
        f"{column}@{date}": tables[date][column].reindex(newest.index, fill_value="")
        for column, date in EARLIER_COLUMNS.items()
    }
    table = newest.assign(**columns, **earlier)[[*columns, *ACCURACY_COLUMNS, *earlier]]
    table.reset_index().to_csv(target, index=False)
