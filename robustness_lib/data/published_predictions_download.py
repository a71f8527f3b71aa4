"""Makes the tables of :mod:`.published_predictions` from what their authors published, on request only.

Every address names a commit, so what is downloaded does not change. Many published files become one small file without
loss, and that is kept only if its content has the pinned SHA-256 sum.
"""

from __future__ import annotations

import ast
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustness_lib.data import published_predictions
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.download import retrieve, staging
from robustness_lib.data.io import damaged, integer_labels, read_npy, write_npz
from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd


Array = npt.NDArray[Any]

_GITHUB = "https://raw.githubusercontent.com"
CIFAR101_ADDRESS = f"{_GITHUB}/modestyachts/CIFAR-10.1/d9982abb0bfc4846b8d13a11e66b887d946205d0/"
CIFAR10_LABELS_ADDRESS = (
    f"{_GITHUB}/cleanlab/label-errors/6d5d6b31a13216290afc40e5c6319399c4d15c06/original_test_labels/"
    "cifar10_test_set_original_labels.npy"
)
IMAGENETV2_ADDRESS = f"{_GITHUB}/modestyachts/ImageNetV2/0b0c3fe89058e4c7ee2348938b3f4f706a931bf3/data/"
TESTBED_ADDRESS = f"{_GITHUB}/modestyachts/imagenet-testbed/"

SNAPSHOT_COMMITS = {
    "2020-08-31": "28477dc7912df34bed05ccdb4da963dbb91dd1b4",
    "2020-11-20": "b9067fc13ea5b3cbf25e37a144d2a6fe437164f1",
    "2021-09-15": "0170eec658d664289d9f61de8f90f967f49abca0",
}
"""The commits of the ImageNet testbed that have the states of its table."""

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
    """Download what a table of :mod:`.published_predictions` is made of, make it, and keep it if it is as known."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # else a line a file, with its sum
    with staging(name, root) as folder:
        raw = folder / "raw"
        _MAKERS[name](raw, folder / published_predictions.FOLDER / published_predictions.TABLES[name].filename)
        shutil.rmtree(raw)
        try:
            published_predictions.TABLES[name].describe(folder)
        except UserError as error:
            reason = str(error).partition(" is damaged: ")[2].partition("; ")[0] or error
            raise UserError(
                f"what was downloaded for {name} is not what was published: {reason}; nothing was kept"
            ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, error) from error


def _make_cifar10(raw: Path, target: Path) -> None:
    arrays: dict[str, Array] = {"model_names": np.array(CIFAR10_MODELS), "class_names": np.array(CIFAR10_CLASSES)}
    for part, key in {"original": "cifar10", "v4": "cifar101_v4", "v6": "cifar101_v6"}.items():
        rows = []
        for model in CIFAR10_MODELS:
            file = f"model_predictions/{part}_predictions/{model}_predictions.json"
            path = retrieve(CIFAR101_ADDRESS + file, None, raw / part)
            rows.append(integer_labels(path, np.asarray(_read_json(path)), 0, 9).astype(np.uint8))
        arrays[f"{key}_predictions"] = np.stack(rows)
        address = f"{CIFAR101_ADDRESS}datasets/cifar10.1_{part}_labels.npy"
        labels = retrieve(CIFAR10_LABELS_ADDRESS if part == "original" else address, None, raw)
        arrays[f"{key}_labels"] = integer_labels(labels, read_npy(labels), 0, 9).astype(np.uint8)
    write_npz(target, arrays)


def _make_imagenet(raw: Path, target: Path) -> None:
    arrays: dict[str, Array] = {"model_names": np.array(IMAGENET_MODELS)}
    parts = {"imagenet-validation-original": "imagenet_val", "imagenetv2-b-33": "imagenetv2_matched_frequency"}
    path = retrieve(f"{IMAGENETV2_ADDRESS}metadata/class_info.json", None, raw)
    try:
        classes = {str(entry["wnid"]): int(entry["cid"]) for entry in _read_json(path)}
        for part, key in parts.items():
            path = retrieve(f"{IMAGENETV2_ADDRESS}datasets/{part}.json", None, raw)
            labels = np.array([classes[wnid] for _, wnid in _read_json(path)["image_filenames"]], dtype=np.int64)
            rows = []
            for model in IMAGENET_MODELS:
                path = retrieve(f"{IMAGENETV2_ADDRESS}predictions/{part}/{model}.npy", None, raw / part)
                rows.append(_first_predictions(path, len(labels)) == labels)
                path.unlink()
            arrays[f"{key}_correct"] = np.packbits(np.stack(rows), axis=1)
            arrays[f"{key}_labels"] = labels.astype(np.int16)
    except (LookupError, TypeError) as error:  # other JSON than expected
        raise damaged(path, error) from error
    write_npz(target, arrays)


def _first_predictions(path: Path, images: int) -> Array:
    """The most likely class of each image, from a published array [N, 5] of the five most likely ones."""
    top5 = read_npy(path)
    if top5.ndim != 2 or len(top5) != images:
        raise damaged(path, f"shape {list(top5.shape)} where {images} rows were expected")
    return top5[:, 0]


def _make_accuracies(raw: Path, target: Path) -> None:
    states = {
        date: retrieve(f"{TESTBED_ADDRESS}{commit}/robustness_top1s.csv", None, raw / date)
        for date, commit in SNAPSHOT_COMMITS.items()
    }
    newest = SNAPSHOT_COMMITS[max(SNAPSHOT_COMMITS)]
    types = retrieve(f"{TESTBED_ADDRESS}{newest}/plotting/model_types.py", None, raw)
    write_atomically(target, _accuracy_table(states, model_types(types)).to_csv(index=False).encode())


def model_types(path: Path) -> dict[str, str]:
    """The type of each network, lower case, from the published program that colours the testbed's figures.

    It has the types as ``'resnet50': ModelTypes.STANDARD``; the program is parsed, not run.
    """
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, ValueError) as error:
        raise damaged(path, error) from error
    types = {}
    for node in ast.walk(tree):
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            match key, value:
                case ast.Constant(value=str(name)), ast.Attribute(value=ast.Name(id="ModelTypes"), attr=kind):
                    types[name] = kind.lower()
    return types


def _accuracy_table(states: Mapping[str, Path], types: Mapping[str, str]) -> pd.DataFrame:
    """The newest of the published tables (by date), with what earlier ones said and since when each network is listed.

    All values are texts, as published; a network of unknown type has the type "".
    """
    import pandas as pd

    tables = {}
    for date in sorted(states):
        try:
            tables[date] = pd.read_csv(states[date], dtype=str, keep_default_na=False).set_index("model")
        except (ValueError, KeyError) as error:
            raise damaged(states[date], error) from error
    newest = tables[max(states)]
    if absent := [column for column in ACCURACY_COLUMNS if column not in newest]:
        raise damaged(states[max(states)], f"no column {absent[0]}")
    columns = {
        "model_type": [types.get(model, "") for model in newest.index],
        "first_snapshot": [next(date for date in tables if model in tables[date].index) for model in newest.index],
    }
    earlier = {
        f"{column}@{date}": tables[date][column].reindex(newest.index, fill_value="")
        for column, date in EARLIER_COLUMNS.items()
    }
    table = newest[list(ACCURACY_COLUMNS)].assign(**columns, **earlier).reset_index()
    return table[["model", *columns, *ACCURACY_COLUMNS, *earlier]]


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "cifar10-testbed": _make_cifar10,
    "imagenet-answers": _make_imagenet,
    "imagenet-testbed": _make_accuracies,
}
