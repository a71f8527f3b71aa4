"""Every image set, and beside them the tables of published predictions: what each is, where, whether it is intact."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustness_lib.data import cifar, download, image_folders, imagenet_downsampled, published_predictions
from robustness_lib.data.dataset import SPLITS, ImageDataset, data_root
from robustness_lib.data.io import MissingData, expect_same_form, read_bundle
from robustness_lib.data.synthetic import load_synthetic
from robustness_lib.errors import UserError, choose
from robustness_lib.models.corpora import recognised


def _bundle(name: str, split: str, root: Path) -> Path:
    return root / name / f"{split}.npz"


def _read_bundle(name: str, split: str, root: Path) -> ImageDataset:
    """A split of a bundle, which is like the other one, where that is there."""
    path = _bundle(name, split, root)
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, but a data set of one's own has train.npz and test.npz (for OOD images "
            "test.npz is enough); write it, as the data page (book/data.md) shows"
        )
    images = read_bundle(path, name)
    [other] = (_bundle(name, another, root) for another in SPLITS if another != split)
    if not name.startswith("places365") and other.is_file():  # whose test labels are not public
        expect_same_form(path, images, other)
    return images


@dataclass(frozen=True)
class Source:
    """An image set, or a table, that this package knows."""

    name: str
    what: str  # in a line
    location: str  # of its published files below the data root; empty where it needs none
    origin: str  # who published it, under which terms
    read: Callable[[str, str, Path], ImageDataset] | None  # from name, split and data root; None of a table
    splits: tuple[str, ...] = SPLITS  # that were published (or are made)
    fetch: Callable[[str, Path], None] | None = None  # downloads it into a data root; None where a person must
    how: str = ""  # a person gets it, where fetch is None

    @property
    def remedy(self) -> str:
        """How to get it, as the end of a sentence."""
        if not self.location:
            return "it is made on the fly and needs no file"
        return f"'robustness data fetch {self.name}' downloads it" if self.fetch else self.how


_KRIZHEVSKY = "Krizhevsky (2009); no licence stated, research use"
_HUMAN = "Wei et al. (2022), CC BY-NC 4.0"
_TINY_IMAGES = "Recht et al. (2018), from Tiny Images; terms of Tiny Images"
_DOWNSAMPLED = "Chrabaszcz et al. (2017), from ILSVRC 2012; ImageNet's terms, non-commercial research"
_STANFORD = "Stanford CS231n, from ILSVRC 2012; ImageNet's terms, non-commercial research"
_NETZER = "Netzer et al. (2011), non-commercial use"
_CIMPOI = "Cimpoi et al. (2014), research use"
_PLACES = "Zhou et al. (2017), terms of the Places project"
_YU = "Yu et al. (2015), research use"
_DENG = "Deng et al. (2009); ImageNet's terms, non-commercial research"
_TESTBED = "Recht et al. (2018), MIT; labels: terms of Tiny Images"
_OWN = "made by this package"
_TEST = ("test",)

_GET_LSUN = (
    "download dl.yf.io/lsun/scenes/test_lmdb.zip, export its images with LSUN's own data.py, and put "
    "them into the folder lsun/test of the data root"
)
_GET_MINIPLACES = (
    "MiniPlaces is to be had from github.com/CSAILVision/miniplaces; write its training and validation part as "
    "train.npz and test.npz into the folder miniplaces of the data root, as the data page (book/data.md) shows"
)
_GET_IMAGENET21K = (
    "ImageNet-21K is to be had from image-net.org (free registration); put images of classes that are not "
    "among ImageNet-1k's into the folder imagenet21k/test of the data root"
)

_OF_IMAGENET = {
    "cifar10-imagenet-excluded": "Test images for CIFAR-10: classes outside imagenet32-no-cifar10",
    "cifar10-imagenet-included": "Test images for CIFAR-10: classes in imagenet32-no-cifar10",
    "imagenet32": "Downsampled ImageNet 32x32",
    "imagenet32-no-cifar10": "Downsampled ImageNet 32x32 without 153 CIFAR-10-related classes",
    "imagenet32-no-tiny": "Downsampled ImageNet 32x32 without Tiny ImageNet's 200 classes",
    "imagenet64": "Downsampled ImageNet 64x64",
    "imagenet64-no-cifar10": "Downsampled ImageNet 64x64 without 153 CIFAR-10-related classes",
    "imagenet64-no-tiny": "Downsampled ImageNet 64x64 without Tiny ImageNet's 200 classes",
    "imagenet32-no-cifar10-tenth": "Every tenth class of imagenet32-no-cifar10",
    "tiny_imagenet32": "Tiny ImageNet's 200 classes at 32x32, from Downsampled ImageNet",
}


def _sources() -> Iterator[Source]:
    fetch = download.torchvision_set
    yield Source("cifar10", "CIFAR-10", "cifar-10-batches-py", _KRIZHEVSKY, cifar.load_cifar, fetch=fetch)
    yield Source("cifar100", "CIFAR-100", "cifar-100-python", _KRIZHEVSKY, cifar.load_cifar, fetch=fetch)
    for suffix, column in cifar.CIFAR10N_LABELS.items():
        what = f"CIFAR-10 with human annotators' labels ({column})"
        yield Source(f"cifar10n-{suffix}", what, "cifar10n", _HUMAN, cifar.load_cifar10n, fetch=download.cifar10n)
    for version, number in (("v4", "2,021"), ("v6", "2,000")):
        name, what = f"cifar10.1-{version}", f"CIFAR-10.1 {version}: {number} new test images for CIFAR-10"
        yield Source(name, what, "cifar10.1", _TINY_IMAGES, cifar.load_cifar101, _TEST, download.cifar101)
    special = {
        "cifar10": imagenet_downsampled.load_cifar10_imagenet,
        "tiny_imagenet32": imagenet_downsampled.load_tiny_imagenet32,
    }
    for name, what in _OF_IMAGENET.items():
        size = 64 if name.startswith("imagenet64") else 32
        read = special.get(name.partition("-")[0], imagenet_downsampled.load_corpus)
        splits, how = (_TEST if name.startswith("cifar10") else SPLITS), imagenet_downsampled.how_to_get(size)
        yield Source(name, what, f"imagenet{size}", _DOWNSAMPLED, read, splits, how=how)
    what, location, read = "Tiny ImageNet, 64x64", "tiny-imagenet-200", image_folders.load_tiny_imagenet
    yield Source("tiny_imagenet", what, location, _STANFORD, read, fetch=download.tiny_imagenet)
    for suffix, pixels in (("", "32x32"), ("-64", "64x64")):  # the larger ones are OOD images for Tiny ImageNet
        what, read = f"Street View House Numbers, {pixels}", image_folders.load_svhn
        yield Source(f"svhn{suffix}", what, "svhn", _NETZER, read, fetch=fetch)
        what, read = f"DTD, {pixels}", image_folders.load_textures
        yield Source(f"textures{suffix}", what, "dtd/dtd", _CIMPOI, read, _TEST, fetch)
        what, read = f"Places365, {pixels}", image_folders.load_places365
        yield Source(f"places365{suffix}", what, "places365", _PLACES, read, fetch=fetch)
        what, read = f"LSUN test scenes, {pixels}", image_folders.load_unlabelled
        yield Source(f"lsun{suffix}", what, "lsun/test", _YU, read, _TEST, how=_GET_LSUN)
    what = "MiniPlaces, 100 scene classes of Places2"
    yield Source("miniplaces", what, "miniplaces", _PLACES, _read_bundle, how=_GET_MINIPLACES)
    what, location = "ImageNet-21K classes outside ImageNet-1k, 64x64", "imagenet21k/test"
    yield Source("imagenet21k", what, location, _DENG, image_folders.load_unlabelled, _TEST, how=_GET_IMAGENET21K)
    yield Source("synthetic-source", "Synthetic, 40 classes to pre-train on", "", _OWN, load_synthetic)
    yield Source("synthetic", "Synthetic, 10 other classes of the same visual parts", "", _OWN, load_synthetic)
    yield Source("synthetic-shifted", "The target under other conditions", "", _OWN, load_synthetic)


SOURCES: dict[str, Source] = {source.name: source for source in _sources()}
"""The image sets by name."""

TABLES = {
    name: Source(name, what, published_predictions.FILES[name], origin, None, fetch=published_predictions.fetch)
    for name, what, origin in (
        ("cifar10-testbed", "Predictions of 30 networks on CIFAR-10 and CIFAR-10.1", _TESTBED),
        ("imagenet-answers", "Where 67 networks are right on ImageNet and ImageNetV2", "Recht et al. (2019), MIT"),
        ("imagenet-testbed", "Accuracies of 338 networks on ImageNet and its variants", "Taori et al. (2020), MIT"),
    )
}
"""The tables of published predictions by name."""

_OWN_NAME = r"(?!cifar10n-)[\w+-][\w.+-]{0,99}"
"""What a data set of one's own may be called; human labels are recognised by their prefix."""

_RESERVED = {"all", "default", "known", "mean", "gaussian", "rademacher", "blobs", *TABLES}
"""Words that parameters and results have beside names of data sets."""


def _is_bundled(name: str, root: Path) -> bool:
    return any(_bundle(name, split, root).is_file() for split in SPLITS)


def _is_published(source: Source, root: Path) -> bool:
    """Whether the published files of a set may be there: there is something in their place other than a bundle."""
    folder = root / source.location
    names = {path.name for path in folder.glob("[!.]*")}
    return folder.exists() and not (names and names <= {f"{split}.npz" for split in SPLITS})


def _own_sets(root: Path) -> list[str]:
    """The names of the user's own bundles."""
    names = {path.parent.name for split in SPLITS for path in root.glob(f"*/{split}.npz")}
    return sorted(name for name in names - set(SOURCES) - _RESERVED if re.fullmatch(_OWN_NAME, name))


def _check_name(name: str, root: Path, others: Iterable[str] = ()) -> str:
    """``name``, if a set of :data:`SOURCES`, a bundle or one of ``others`` is called so; says what a folder lacks."""
    options = [*SOURCES, *others, *_own_sets(root)]
    if name not in options and len(name) <= 100 and (root / name).is_dir():
        if name in _RESERVED or name.startswith("cifar10n-"):
            raise UserError(
                f"results use the name {name!r} themselves, so no data set can be called so; rename {root / name}"
            )
        locations = [source.location for source in (*SOURCES.values(), *TABLES.values())]
        published = {location.partition("/")[0] for location in locations}
        if name not in published and re.fullmatch(_OWN_NAME, name):
            raise UserError(
                f"unknown data set {name!r}: the folder {root / name} has neither train.npz nor test.npz in it; make "
                "them of your images, as the data page (book/data.md) shows"
            )
    return choose(name, options, "data set")


def _no_root(folder: Path) -> MissingData:
    return MissingData(
        f"the data root {folder} does not exist; make it, or name another with --data-root or the environment variable "
        "ROBUSTNESS_DATA"
    )


def expand_names(names: Iterable[str], root: Path | str | None = None) -> list[str]:
    """Names of image sets and tables, a family's name (``"cifar10n"``) replaced by those of its members."""
    folder, members = data_root(root), []
    for name in names:
        family = [other for other in SOURCES if name not in SOURCES and other.startswith(f"{name}-")]
        members += family or [_check_name(name, folder, TABLES)]
    return members


def load(name: str, split: str = "train", root: Path | str | None = None) -> ImageDataset:
    """Load the ``"train"`` or ``"test"`` split of an image set from a data root.

    It is one of :data:`SOURCES`, or a folder of the root with bundles (:func:`~robustness_lib.data.io.read_bundle`);
    bundles under the name of a published set are read in its place.

    Raises:
        MissingData: The set, the split or the data root is not there; says how to get it.
    """
    choose(split, SPLITS, "split")
    folder = data_root(root)
    source = SOURCES.get(name)
    if source is None or source.location:
        if not folder.is_dir():
            raise _no_root(folder)
        if source is None or _is_bundled(name, folder):
            return _read_bundle(_check_name(name, folder), split, folder)
        if split not in source.splits:
            raise MissingData(f"{name} has no {split} split, only {', '.join(source.splits)}; choose another data set")
        if not _is_published(source, folder):
            place, bundle = folder / source.location, _bundle(name, split, folder)
            raise MissingData(f"{place} is missing (nor is there a bundle {bundle}): {source.remedy}")
    assert source.read
    return source.read(name, split, folder)


@dataclass(frozen=True)
class Status:
    """Whether an image set is there and intact; a bundle whose other split is not there is incomplete."""

    name: str
    state: str  # intact, incomplete, damaged or missing
    message: str  # what is there, or what is wrong and what to do


def check(name: str, root: Path | str | None = None) -> Status:
    """Read the whole of an image set or table, and say whether it is there and intact."""
    folder = data_root(root)
    _check_name(name, folder, TABLES)
    source, bundled = SOURCES.get(name), _is_bundled(name, folder)
    present, absent, reason = [], [], ""
    try:
        if name in TABLES:
            return Status(name, "intact", published_predictions.describe(name, folder))
        for split in SPLITS:
            try:
                present.append(f"{split}: {_summary(name, split, folder)}")
            except MissingData as error:
                reason = str(error)
                if source is None or split in source.splits:
                    absent.append(f"{split}: {_bundle(name, split, folder) if bundled else 'it'} is not there")
    except MissingData as error:
        return Status(name, "missing", str(error))
    except UserError as error:
        return Status(name, "damaged", str(error))
    if not present:
        return Status(name, "missing", reason)
    return Status(name, "incomplete" if absent and bundled else "intact", "; ".join(present + absent))


def _summary(name: str, split: str, root: Path) -> str:
    images = load(name, split, root)
    published = {"train": "1,281,167", "test": "50,000"}[split]
    total = f" of the published {published}" if name in ("imagenet32", "imagenet64") else ""
    height, width = images.images.shape[2:]
    words = f", {known}" if (known := recognised(images.checksum)) else ""
    return f"{len(images)}{total} images, {height}x{width}, {images.num_classes} classes{words}"


def list_sets(root: Path | str | None = None, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """All image sets and tables and the user's own bundles, or those named (as for :func:`expand_names`), unread.

    One row a set: ``name``, ``what``, ``where`` (path), ``found`` ("yes", "no", "made on the fly"), ``origin``
    (publisher and terms) and ``get`` (how to get it).
    """
    folder = data_root(root)
    if (root is not None or os.environ.get("ROBUSTNESS_DATA")) and not folder.is_dir():
        raise _no_root(folder)
    rows = []
    for source in (*SOURCES.values(), *TABLES.values()):
        bundled = _is_bundled(source.name, folder)
        where = str(folder / (source.name if bundled else source.location)) if source.location else ""
        present = "yes" if bundled or _is_published(source, folder) else "no"
        found = present if source.location else "made on the fly"
        rows.append([source.name, source.what, where, found, source.origin, source.remedy])
    for name in _own_sets(folder):
        absent = [f", without {split}.npz" for split in SPLITS if not _bundle(name, split, folder).is_file()]
        rows.append([name, "".join(["your own bundle", *absent]), str(folder / name), "yes", "yourself", ""])
    by_name = {row[0]: dict(zip(("name", "what", "where", "found", "origin", "get"), row, strict=True)) for row in rows}
    return [by_name[name] for name in (by_name if names is None else expand_names(names, root))]


def fetch(name: str, root: Path | str | None = None) -> Status:
    """Download an image set or table, unless it is there and intact, and check it; nothing is left of a failure."""
    folder = data_root(root)
    if name in _own_sets(folder):
        raise UserError(
            f"{name} is a bundle of your own in {folder / name}, so there is nothing to fetch; 'robustness data check "
            f"{name}' says whether it is intact"
        )
    choose(name, [*SOURCES, *TABLES], "data set")
    status = check(name, folder)
    if status.state == "intact":
        return status
    source = (SOURCES | TABLES)[name]
    if source.fetch is None:
        raise UserError(f"{name} cannot be downloaded by this command: {source.remedy}")
    source.fetch(name, folder)
    return check(name, folder)
