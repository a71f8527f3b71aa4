"""Make the tables of published predictions that robustness_lib reads from what their authors publish.

    python scripts/testbed_tables.py [NAME ...] [--data-root FOLDER]

Addresses name a commit, tables are made without loss, and each is kept only if its content is the known one.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.dataset import data_root
from robustness_lib.data.download import retrieve, staging
from robustness_lib.data.io import write_npz
from robustness_lib.data.published_predictions import FILES, describe
from robustness_lib.errors import UserError

SNAPSHOT_COMMITS = {
    "2020-08-31": "28477dc7912df34bed05ccdb4da963dbb91dd1b4",
    "2020-11-20": "b9067fc13ea5b3cbf25e37a144d2a6fe437164f1",
    "2021-09-15": "0170eec658d664289d9f61de8f90f967f49abca0",
}

_GITHUB = "https://raw.githubusercontent.com"
CIFAR101_ADDRESS = f"{_GITHUB}/modestyachts/CIFAR-10.1/d9982abb0bfc4846b8d13a11e66b887d946205d0/"
CIFAR10_LABELS_ADDRESS = (
    f"{_GITHUB}/cleanlab/label-errors/6d5d6b31a13216290afc40e5c6319399c4d15c06/original_test_labels/"
    "cifar10_test_set_original_labels.npy"
)
IMAGENETV2_ADDRESS = f"{_GITHUB}/modestyachts/ImageNetV2/0b0c3fe89058e4c7ee2348938b3f4f706a931bf3/data/"
TESTBED_ADDRESS = f"{_GITHUB}/modestyachts/imagenet-testbed/"

_MODELS = Path(__file__).parent / "testbed_models"
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


MAKERS = {"cifar10-testbed": _cifar10, "imagenet-answers": _imagenet, "imagenet-testbed": _accuracies}


def make(name: str, root: Path) -> str:
    """Download what a table is made of, make it below a data root, and say what it holds."""
    pooch.get_logger().setLevel(logging.WARNING)  # else a line a file, with its sum
    with staging(name, root) as folder:
        target = folder / FILES[name]
        target.parent.mkdir()
        MAKERS[name](folder / "raw", target)
        shutil.rmtree(folder / "raw")
        try:
            return describe(name, folder)
        except UserError as error:
            raise ValueError("it is not what was published, since it has another SHA-256 sum") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FILES)}; all by default")
    parser.add_argument("--data-root", help="by default $ROBUSTNESS_DATA, or ./data")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FILES):
        parser.error(f"unknown table {min(unknown)!r}; choose of {', '.join(FILES)}")
    try:
        for table in options.names or FILES:
            print(f"{table}: {make(table, data_root(options.data_root))}")
    except UserError as error:
        sys.exit(f"error: {error}")
