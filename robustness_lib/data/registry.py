"""Every image set: what it is, where it is looked for, whether it is there and intact, how to get it.

The tables of :mod:`robustness_lib.data.published_predictions` are listed, checked and fetched beside them.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustness_lib.data import download, published_predictions_download
from robustness_lib.data.cifar import CIFAR10N_LABELS, load_cifar, load_cifar10n, load_cifar101
from robustness_lib.data.dataset import SPLITS, ImageDataset, data_root
from robustness_lib.data.image_folders import (
    load_places365,
    load_svhn,
    load_textures,
    load_tiny_imagenet,
    load_unlabelled,
)
from robustness_lib.data.imagenet_downsampled import (
    EXCLUSIONS,
    PUBLISHED_IMAGES,
    TENTH,
    how_to_get,
    load_cifar10_imagenet,
    load_corpus,
    load_tiny_imagenet32,
)
from robustness_lib.data.io import MissingData, expect_same_form, read_bundle
from robustness_lib.data.published_predictions import FOLDER, TABLES
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
    """An image set that this package knows.

    Attributes:
        name: As :func:`load` takes it.
        what: What it is, in a line.
        location: Where its published files lie below the data root; empty where it needs none.
        origin: Who published it, under which terms.
        read: Reads a split: name, split, data root.
        splits: The splits that were published (or are made).
        fetch: Downloads it into a data root; None where a person must.
        how: How a person gets it, where ``fetch`` is None.
    """

    name: str
    what: str
    location: str
    origin: str
    read: Callable[[str, str, Path], ImageDataset]
    splits: tuple[str, ...] = SPLITS
    fetch: Callable[[str, Path], None] | None = None
    how: str = ""

    @property
    def remedy(self) -> str:
        """How to get it, as the end of a sentence."""
        if not self.location:
            return "it is made on the fly and needs no file"
        return f"'robustness data fetch {self.name}' downloads it" if self.fetch else self.how


_KRIZHEVSKY = "Krizhevsky (2009); no licence stated, research use"
_DOWNSAMPLED = "Chrabaszcz et al. (2017), from ILSVRC 2012; ImageNet's terms, non-commercial research"
_PLACES = "Zhou et al. (2017), terms of the Places project"
_TEST = ("test",)


def _sources() -> Iterator[Source]:
    fetch = download.torchvision_set
    yield Source("cifar10", "CIFAR-10", "cifar-10-batches-py", _KRIZHEVSKY, load_cifar, fetch=fetch)
    yield Source("cifar100", "CIFAR-100", "cifar-100-python", _KRIZHEVSKY, load_cifar, fetch=fetch)
    for suffix, column in CIFAR10N_LABELS.items():
        what, terms = f"CIFAR-10 with human annotators' labels ({column})", "Wei et al. (2022), CC BY-NC 4.0"
        yield Source(f"cifar10n-{suffix}", what, "cifar10n", terms, load_cifar10n, fetch=download.cifar10n)
    for version, number in (("v4", "2,021"), ("v6", "2,000")):
        what = f"CIFAR-10.1 {version}: {number} new test images for CIFAR-10"
        terms = "Recht et al. (2018), from Tiny Images; terms of Tiny Images"
        yield Source(f"cifar10.1-{version}", what, "cifar10.1", terms, load_cifar101, _TEST, download.cifar101)

    imagenet32 = functools.partial(Source, location="imagenet32", origin=_DOWNSAMPLED, how=how_to_get(32))
    for kind, where in (("excluded", "outside"), ("included", "in")):
        what = f"Test images for CIFAR-10: classes {where} imagenet32-no-cifar10"
        yield imagenet32(f"cifar10-imagenet-{kind}", what, read=load_cifar10_imagenet, splits=_TEST)
    left_out = {"": "", "-no-cifar10": " without 153 CIFAR-10-related classes"}
    for size in (32, 64):
        for suffix in ("", *(f"-{name}" for name in EXCLUSIONS)):
            what = f"Downsampled ImageNet {size}x{size}" + left_out.get(suffix, " without Tiny ImageNet's 200 classes")
            name, how = f"imagenet{size}", how_to_get(size)
            yield Source(name + suffix, what, name, _DOWNSAMPLED, load_corpus, how=how)
    what = "Every tenth class of imagenet32-no-cifar10"
    yield imagenet32(f"imagenet32-no-cifar10{TENTH}", what, read=load_corpus)
    what = "Tiny ImageNet's 200 classes at 32x32, from Downsampled ImageNet"
    yield imagenet32("tiny_imagenet32", what, read=load_tiny_imagenet32)
    terms = "Stanford CS231n, from ILSVRC 2012; ImageNet's terms, non-commercial research"
    location, read = "tiny-imagenet-200", load_tiny_imagenet
    yield Source("tiny_imagenet", "Tiny ImageNet, 64x64", location, terms, read, fetch=download.tiny_imagenet)

    lsun_how = (
        "download dl.yf.io/lsun/scenes/test_lmdb.zip, export its images with LSUN's own data.py, and put "
        "them into the folder lsun/test of the data root"
    )
    for size, suffix in ((32, ""), (64, "-64")):  # the larger ones are OOD images for Tiny ImageNet
        svhn, textures, places, lsun = (
            functools.partial(read, size=size) for read in (load_svhn, load_textures, load_places365, load_unlabelled)
        )
        what, terms = f"Street View House Numbers, {size}x{size}", "Netzer et al. (2011), non-commercial use"
        yield Source(f"svhn{suffix}", what, "svhn", terms, svhn, fetch=fetch)
        what, terms = f"DTD, {size}x{size}", "Cimpoi et al. (2014), research use"
        yield Source(f"textures{suffix}", what, "dtd/dtd", terms, textures, _TEST, fetch)
        yield Source(f"places365{suffix}", f"Places365, {size}x{size}", "places365", _PLACES, places, fetch=fetch)
        what, terms = f"LSUN test scenes, {size}x{size}", "Yu et al. (2015), research use"
        yield Source(f"lsun{suffix}", what, "lsun/test", terms, lsun, _TEST, how=lsun_how)
    yield Source(
        "miniplaces",
        "MiniPlaces, 100 scene classes of Places2",
        "miniplaces",
        _PLACES,
        _read_bundle,
        how=(
            "MiniPlaces is to be had from github.com/CSAILVision/miniplaces; write its training and validation part as "
            "train.npz and test.npz into the folder miniplaces of the data root, as the data page (book/data.md) shows"
        ),
    )
    yield Source(
        "imagenet21k",
        "ImageNet-21K classes outside ImageNet-1k, 64x64",
        "imagenet21k/test",
        "Deng et al. (2009); ImageNet's terms, non-commercial research",
        functools.partial(load_unlabelled, size=64, folder="imagenet21k/test"),
        _TEST,
        how=(
            "ImageNet-21K is to be had from image-net.org (free registration); put images of classes that are not "
            "among ImageNet-1k's into the folder imagenet21k/test of the data root"
        ),
    )
    own = "made by this package"
    yield Source("synthetic-source", "Synthetic, 40 classes to pre-train on", "", own, load_synthetic)
    yield Source("synthetic", "Synthetic, 10 other classes of the same visual parts", "", own, load_synthetic)
    yield Source("synthetic-shifted", "The target under other conditions", "", own, load_synthetic)


SOURCES: dict[str, Source] = {source.name: source for source in _sources()}
"""The image sets by name."""


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
    if name not in options and (name in _RESERVED or name.startswith("cifar10n-")) and (root / name).is_dir():
        raise UserError(
            f"results use the name {name!r} themselves, so no data set can be called so; rename {root / name}"
        )
    published = {Path(place).parts[0] for place in (FOLDER, *(s.location for s in SOURCES.values() if s.location))}
    if name not in {*options, *published} and re.fullmatch(_OWN_NAME, name) and (root / name).is_dir():
        raise UserError(
            f"unknown data set {name!r}: the folder {root / name} has neither train.npz nor test.npz in it; make them "
            "of your images, as the data page (book/data.md) shows"
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
    """Load an image set.

    Args:
        name: A name of :data:`SOURCES`, or of a folder of the data root that holds bundles ``train.npz`` or
            ``test.npz`` with ``images`` (uint8 [N, H, W, 3]), ``labels`` (0..K-1) and ``class_names``. Bundles
            under the name of a published set are read in its place.
        split: ``"train"`` or ``"test"`` (the published test or validation part).
        root: The data root (see :func:`~robustness_lib.data.data_root`).

    Raises:
        MissingData: The set, the split or the data root is not there; says how to get it.
        UserError: The name or split is unknown, or a file is damaged; says which, with both checksums where one was
            published.
    """
    choose(split, SPLITS, "split")
    folder = data_root(root)
    source = SOURCES.get(name)
    if source and not source.location:
        return source.read(name, split, folder)
    if not folder.is_dir():
        raise _no_root(folder)
    if source is None or _is_bundled(name, folder):
        return _read_bundle(_check_name(name, folder), split, folder)
    if split not in source.splits:
        raise MissingData(f"{name} has no {split} split, only {', '.join(source.splits)}; choose another data set")
    if not _is_published(source, folder):
        bundle = _bundle(name, split, folder)
        raise MissingData(f"{folder / source.location} is missing (nor is there a bundle {bundle}): {source.remedy}")
    return source.read(name, split, folder)


@dataclass(frozen=True)
class Status:
    """Whether an image set is there and intact.

    Attributes:
        name: Its name.
        state: ``"intact"``, ``"incomplete"`` (a bundle whose other split is not there), ``"damaged"`` or ``"missing"``.
        message: What is there, or one sentence on what is wrong and what to do.
    """

    name: str
    state: str
    message: str


def check(name: str, root: Path | str | None = None) -> Status:
    """Read the whole of an image set or table, and say whether it is there and intact.

    Published checksums are compared where there are any; elsewhere everything must be readable (``.npz``
    files against their own checksums), with the shapes, types and label ranges that the format has.
    """
    folder = data_root(root)
    _check_name(name, folder, TABLES)
    present, absent, reason = [], [], ""
    source = SOURCES.get(name)
    try:
        if name in TABLES:
            return Status(name, "intact", TABLES[name].describe(folder))
        for split in SPLITS:
            try:
                present.append(f"{split}: {_summary(load(name, split, folder), split, source)}")
            except MissingData as error:
                reason = str(error)
                if source is None or split in source.splits:
                    absent.append(split)
    except MissingData as error:
        return Status(name, "missing", str(error))
    except UserError as error:
        return Status(name, "damaged", str(error))
    if not present:
        return Status(name, "missing", reason)
    bundled = _is_bundled(name, folder)
    lacking = [f"{split}: {_bundle(name, split, folder) if bundled else 'it'} is not there" for split in absent]
    return Status(name, "incomplete" if lacking and bundled else "intact", "; ".join(present + lacking))


def _summary(images: ImageDataset, split: str, source: Source | None) -> str:
    whole = source is not None and source.name in ("imagenet32", "imagenet64")
    total = f" of the published {PUBLISHED_IMAGES[split]:,}" if whole else ""
    height, width = images.images.shape[2:]
    words = f", {known}" if (known := recognised(images.checksum)) else ""
    return f"{len(images)}{total} images, {height}x{width}, {images.num_classes} classes{words}"


def list_sets(root: Path | str | None = None, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Image sets and tables, the user's own bundles among them, without reading any.

    Args:
        root: The data root. One that was named must exist; the folder ``data`` of the working directory need not.
        names: Which, in this order, as for :func:`expand_names`; None for all.

    Returns:
        One row a set: ``name``, ``what``, ``where`` (path), ``found`` ("yes", "no", "made on the fly"),
        ``origin`` (publisher and terms) and ``get`` (how to get it).
    """
    folder = data_root(root)
    if (root is not None or os.environ.get("ROBUSTNESS_DATA")) and not folder.is_dir():
        raise _no_root(folder)
    rows = []
    for source in SOURCES.values():
        bundled = _is_bundled(source.name, folder)
        where = str(folder / (source.name if bundled else source.location)) if source.location else ""
        present = "yes" if bundled or _is_published(source, folder) else "no"
        found = present if source.location else "made on the fly"
        rows.append([source.name, source.what, where, found, source.origin, source.remedy])
    for table in TABLES.values():
        path = folder / FOLDER / table.filename
        get = f"'robustness data fetch {table.name}' downloads it"
        rows.append([table.name, table.what, str(path), "yes" if path.is_file() else "no", table.origin, get])
    for name in _own_sets(folder):
        absent = [path.name for path in (_bundle(name, split, folder) for split in SPLITS) if not path.is_file()]
        what = "your own bundle" + (f", without {absent[0]}" if absent else "")
        rows.append([name, what, str(folder / name), "yes", "yourself", ""])
    by_name = {row[0]: dict(zip(("name", "what", "where", "found", "origin", "get"), row, strict=True)) for row in rows}
    return [by_name[name] for name in (by_name if names is None else expand_names(names, root))]


def fetch(name: str, root: Path | str | None = None) -> Status:
    """Download an image set or table into the data root, unless it is there and intact, and check it.

    Raises:
        UserError: The name is unknown or of the user's own, the set cannot be downloaded without a person, or the
            download failed; then nothing is left of it.
    """
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
    if name in TABLES:
        published_predictions_download.fetch(name, folder)
    elif (download_into := SOURCES[name].fetch) is not None:
        download_into(name, folder)
    else:
        raise UserError(f"{name} cannot be downloaded by this command: {SOURCES[name].remedy}")
    return check(name, folder)
