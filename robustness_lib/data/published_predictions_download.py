"""Makes the tables of :mod:`.published_predictions` from what their authors published, on request only.

Every address names a commit, so what is downloaded does not change. Many published files become one small file without
loss, and that is kept only if its content has the pinned SHA-256 sum. The published programs are read as text, never
run.
"""

from __future__ import annotations

import ast
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustness_lib.data import published_predictions
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.download import retrieve, staging
from robustness_lib.data.io import DAMAGE, damaged, integer_labels, read_npy, write_npz
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
SYNSETS_ADDRESS = (
    f"{_GITHUB}/BayesWatch/cinic-10/9e008d0fd824bf7498399e3c6199cb4fbbec7af1/synsets-to-cifar-10-classes.txt"
)

SNAPSHOT_COMMITS = {
    "2020-08-31": "28477dc7912df34bed05ccdb4da963dbb91dd1b4",
    "2020-11-20": "b9067fc13ea5b3cbf25e37a144d2a6fe437164f1",
    "2021-09-15": "0170eec658d664289d9f61de8f90f967f49abca0",
}
"""The commits of the ImageNet testbed that have the states of its table."""

CIFAR10_MODELS = (
    "alexnet_tf_ben", "cudaconvnet", "darc", "densenet_BC_100_12", "nas", "pyramidnet_basic_110_270",
    "pyramidnet_basic_110_84", "random_features_256k_aug", "random_features_256k_no_aug", "random_features_32k_aug",
    "random_features_32k_no_aug", "resnet_basic_110", "resnet_basic_32", "resnet_basic_44", "resnet_basic_56",
    "resnet_preact_basic_110", "resnet_preact_bottleneck_164", "resnetv2_tf", "resnext_29_4x64d", "resnext_29_8x64d",
    "shake_drop", "shake_shake_26_2x32d_SSI", "shake_shake_26_2x64d_SSI", "shake_shake_26_2x64d_SSI_cutout16",
    "shake_shake_26_2x96d_SSI", "vgg16_keras", "vgg_15_BN_64", "wide_resnet_tf", "wrn_28_10", "wrn_28_10_cutout16",
)  # fmt: skip
"""The networks of CIFAR-10.1's authors."""

IMAGENET_MODELS = (
    "alexnet", "bninception", "cafferesnet101", "densenet121", "densenet161", "densenet169", "densenet201", "dpn107",
    "dpn131", "dpn68", "dpn68b", "dpn92", "dpn98", "fbresnet152", "fv_16k", "fv_4k", "fv_64k",
    "inception_resnet_v2_tf", "inception_v1_tf", "inception_v2_tf", "inception_v3", "inception_v3_tf",
    "inception_v4_tf", "inceptionresnetv2", "inceptionv3", "inceptionv4", "mobilenet_v1_tf", "nasnet_large_tf",
    "nasnet_mobile_tf", "nasnetalarge", "nasnetamobile", "pnasnet5large", "pnasnet_large_tf", "pnasnet_mobile_tf",
    "polynet", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnet_v1_101_tf", "resnet_v1_152_tf",
    "resnet_v1_50_tf", "resnet_v2_101_tf", "resnet_v2_152_tf", "resnet_v2_50_tf", "resnext101_32x4d",
    "resnext101_64x4d", "se_resnet101", "se_resnet152", "se_resnet50", "se_resnext101_32x4d", "se_resnext50_32x4d",
    "senet154", "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn",
    "vgg19", "vgg19_bn", "vgg_16_tf", "vgg_19_tf", "xception",
)  # fmt: skip
"""The networks of ImageNetV2's authors."""

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
    """Download what a table is made of, make it, and keep it if its content is the known one.

    Args:
        name: A name of :data:`robustness_lib.data.published_predictions.TABLES`.
        root: The data root.

    Raises:
        UserError: The download failed, or what arrived is not what was published; nothing of it is kept.
    """
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


def _download(address: str, folder: Path) -> Path:
    return retrieve(address, None, folder)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, error) from error


# --------------------------------------------------------------------------------------------- CIFAR-10


def _make_cifar10(raw: Path, target: Path) -> None:
    folders = {"original": "cifar10", "v4": "cifar101_v4", "v6": "cifar101_v6"}
    for part in folders:
        for model in CIFAR10_MODELS:
            file = f"{part}_predictions/{model}_predictions.json"
            _download(f"{CIFAR101_ADDRESS}model_predictions/{file}", raw / part)
    labels = {"original": _download(CIFAR10_LABELS_ADDRESS, raw)}
    for part in ("v4", "v6"):
        labels[part] = _download(f"{CIFAR101_ADDRESS}datasets/cifar10.1_{part}_labels.npy", raw)
    arrays: dict[str, Array] = {"model_names": np.array(CIFAR10_MODELS), "class_names": np.array(CIFAR10_CLASSES)}
    for part, key in folders.items():
        arrays[f"{key}_predictions"] = np.stack(
            [predicted_classes(raw / part / f"{model}_predictions.json") for model in CIFAR10_MODELS]
        )
        arrays[f"{key}_labels"] = integer_labels(labels[part], read_npy(labels[part]), 0, 9).astype(np.uint8)
    write_npz(target, arrays)


def predicted_classes(path: Path) -> Array:
    """A published JSON list of predicted classes of CIFAR-10, uint8 [N].

    Raises:
        UserError: The file is something else.
    """
    found = np.asarray(_read_json(path))
    return integer_labels(path, found, 0, 9).astype(np.uint8)


# --------------------------------------------------------------------------------------------- ImageNet, images


def _make_imagenet(raw: Path, target: Path) -> None:
    classes = class_numbers(_download(f"{IMAGENETV2_ADDRESS}metadata/class_info.json", raw))
    arrays: dict[str, Array] = {"model_names": np.array(IMAGENET_MODELS)}
    for part, key in (
        ("imagenet-validation-original", "imagenet_val"),
        ("imagenetv2-b-33", "imagenetv2_matched_frequency"),
    ):
        labels = image_labels(_download(f"{IMAGENETV2_ADDRESS}datasets/{part}.json", raw), classes)
        rows = []
        for model in IMAGENET_MODELS:
            path = _download(f"{IMAGENETV2_ADDRESS}predictions/{part}/{model}.npy", raw / part)
            rows.append(first_predictions(path, len(labels)) == labels)
            path.unlink()
        arrays[f"{key}_correct"] = np.packbits(np.stack(rows), axis=1)
        arrays[f"{key}_labels"] = labels.astype(np.int16)
    write_npz(target, arrays)


def class_numbers(path: Path) -> dict[str, int]:
    """ImageNet's class numbers by WordNet id, from the published ``class_info.json``."""
    try:
        return {str(entry["wnid"]): int(entry["cid"]) for entry in _read_json(path)}
    except DAMAGE as error:
        raise damaged(path, error) from error


def image_labels(path: Path, classes: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Class numbers of a published list of images, pairs of a file's name and a WordNet id, int64 [N]."""
    try:
        return np.array([classes[wnid] for _, wnid in _read_json(path)["image_filenames"]], dtype=np.int64)
    except DAMAGE as error:
        raise damaged(path, error) from error


def first_predictions(path: Path, images: int) -> Array:
    """The most likely class of each image, from a published array [N, 5] of the five most likely ones.

    Raises:
        UserError: The file is something else.
    """
    found = read_npy(path)
    if found.ndim != 2 or len(found) != images:
        raise damaged(path, f"shape {list(found.shape)} where {images} rows were expected")
    return found[:, 0]


# --------------------------------------------------------------------------------------------- ImageNet, accuracies


def _make_accuracies(raw: Path, target: Path) -> None:
    states = {
        date: _download(f"{TESTBED_ADDRESS}{commit}/robustness_top1s.csv", raw / date)
        for date, commit in SNAPSHOT_COMMITS.items()
    }
    newest = max(SNAPSHOT_COMMITS)
    types = _download(f"{TESTBED_ADDRESS}{SNAPSHOT_COMMITS[newest]}/plotting/model_types.py", raw)
    table = accuracy_table(states, model_types(types))
    write_atomically(target, table.to_csv(index=False).encode())


def model_types(path: Path) -> dict[str, str]:
    """The type of each network, lower case, from the published program that colours the testbed's figures.

    It has the types as ``'resnet50': ModelTypes.STANDARD``; the program is parsed, not run.

    Raises:
        UserError: The file is no Python program.
    """
    try:
        tree = ast.parse(path.read_text())
    except DAMAGE as error:
        raise damaged(path, error) from error
    pairs: Iterable[tuple[ast.expr | None, ast.expr]] = (
        pair
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for pair in zip(node.keys, node.values, strict=True)
    )
    found = {}
    for key, value in pairs:
        match key, value:
            case ast.Constant(value=str(name)), ast.Attribute(value=ast.Name(id="ModelTypes"), attr=kind):
                found[name] = kind.lower()
    return found


def accuracy_table(states: Mapping[str, Path], types: Mapping[str, str]) -> pd.DataFrame:
    """The table of the newest state, with what earlier states said and since when each network is in it.

    Args:
        states: The published tables by date.
        types: Type of each network.

    Returns:
        Texts, as published: ``model``, ``model_type`` ("" where unknown), ``first_snapshot``, the
        :data:`ACCURACY_COLUMNS`, and the :data:`EARLIER_COLUMNS` as ``column@date``.

    Raises:
        UserError: A file is no such table.
    """
    import pandas as pd

    dates = sorted(states)
    tables = {}
    for date in dates:
        try:
            tables[date] = pd.read_csv(states[date], dtype=str, keep_default_na=False).set_index("model")
            tables[date][list(ACCURACY_COLUMNS if date == dates[-1] else ())]
        except DAMAGE as error:
            raise damaged(states[date], error) from error
    newest = tables[dates[-1]]
    columns = {
        "model_type": [types.get(model, "") for model in newest.index],
        "first_snapshot": [next(date for date in dates if model in tables[date].index) for model in newest.index],
    }
    earlier = {
        f"{column}@{date}": tables[date][column].reindex(newest.index, fill_value="")
        for column, date in EARLIER_COLUMNS.items()
    }
    return (
        newest[list(ACCURACY_COLUMNS)]
        .assign(**columns, **earlier)
        .reset_index()[["model", *columns, *ACCURACY_COLUMNS, *earlier]]
    )


# --------------------------------------------------------------------------------------------- CINIC-10


def _make_synsets(raw: Path, target: Path) -> None:
    pairs = class_pairs(_download(SYNSETS_ADDRESS, raw).read_text())
    lines = ["wnid,cifar10_class", *(f"{wnid},{name}" for wnid, name in pairs)]
    write_atomically(target, ("\n".join(lines) + "\n").encode())


def class_pairs(text: str) -> Sequence[tuple[str, str]]:
    """WordNet ids and classes of CIFAR-10 from CINIC-10's list, in its order, each pair once.

    A class is a line of its own; below it, ``---n02690373: airliner`` is a synset under it.

    Raises:
        UserError: A line is neither.
    """
    pairs: dict[tuple[str, str], None] = {}
    heading = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        wnid, colon, _ = line.lstrip("-").partition(":")
        if line in CIFAR10_CLASSES:
            heading = line
        elif colon and heading and line.startswith("-"):
            pairs[wnid.strip(), heading] = None
        else:
            raise UserError(f"CINIC-10's list has the line {line!r}, neither a class nor a synset; nothing was kept")
    return list(pairs)


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "cifar10-testbed": _make_cifar10,
    "imagenet-answers": _make_imagenet,
    "imagenet-testbed": _make_accuracies,
    "cinic10-synsets": _make_synsets,
}
