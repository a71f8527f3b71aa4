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
from robustness_lib.data.cifar import (
    CIFAR10N_LABELS,
    load_cifar10,
    load_cifar10n,
    load_cifar100,
    load_cifar101,
)
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
    TENTH,
    check_corpus,
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
    def way(self) -> str:
        """How to get it, as the end of a sentence."""
        if not self.location:
            return "it is made on the fly and needs no file"
        return f"'robustness data fetch {self.name}' downloads it" if self.fetch else self.how


def _sources() -> Iterator[Source]:
    krizhevsky = "Krizhevsky (2009); no licence stated, research use"
    image_net = "Chrabaszcz et al. (2017), from ILSVRC 2012; ImageNet's terms, non-commercial research"
    tiny = "Stanford CS231n, from ILSVRC 2012; ImageNet's terms, non-commercial research"
    cifar10, cifar100 = "cifar-10-batches-py", "cifar-100-python"
    tv = download.torchvision_set
    yield Source("cifar10", "CIFAR-10", cifar10, krizhevsky, load_cifar10, fetch=tv)
    yield Source("cifar100", "CIFAR-100", cifar100, krizhevsky, load_cifar100, fetch=tv)
    for suffix, column in CIFAR10N_LABELS.items():
        yield Source(
            f"cifar10n-{suffix}",
            f"CIFAR-10 with human annotators' labels ({column})",
            "cifar10n",
            "Wei et al. (2022), CC BY-NC 4.0",
            load_cifar10n,
            fetch=download.cifar10n,
        )
    for version, number in (("v4", "2,021"), ("v6", "2,000")):
        yield Source(
            f"cifar10.1-{version}",
            f"CIFAR-10.1 {version}: {number} new test images for CIFAR-10",
            "cifar10.1",
            "Recht et al. (2018), from Tiny Images; terms of Tiny Images",
            load_cifar101,
            ("test",),
            fetch=download.cifar101,
        )
    for kind, which in (("excluded", "outside"), ("included", "in")):
        yield Source(
            f"cifar10-imagenet-{kind}",
            f"Test images for CIFAR-10: classes {which} imagenet32-no-cifar10",
            "imagenet32",
            image_net,
            load_cifar10_imagenet,
            ("test",),
            how=how_to_get(32),
        )
    for size in (32, 64):
        for suffix in ("", *EXCLUSIONS):
            left_out = {"": "", "no-cifar10": " without 153 CIFAR-10-related classes"}
            yield Source(
                f"imagenet{size}" + (f"-{suffix}" if suffix else ""),
                f"Downsampled ImageNet {size}x{size}" + left_out.get(suffix, " without Tiny ImageNet's 200 classes"),
                f"imagenet{size}",
                image_net,
                load_corpus,
                how=how_to_get(size),
            )
    yield Source(
        f"imagenet32-no-cifar10{TENTH}",
        "Every tenth class of imagenet32-no-cifar10",
        "imagenet32",
        image_net,
        load_corpus,
        how=how_to_get(32),
    )
    yield Source(
        "tiny_imagenet32",
        "Tiny ImageNet's 200 classes at 32x32, from Downsampled ImageNet",
        "imagenet32",
        image_net,
        load_tiny_imagenet32,
        how=how_to_get(32),
    )
    yield Source(
        "tiny_imagenet",
        "Tiny ImageNet, 64x64",
        "tiny-imagenet-200",
        tiny,
        load_tiny_imagenet,
        fetch=download.tiny_imagenet,
    )
    svhn_origin = "Netzer et al. (2011), non-commercial use"
    dtd_origin = "Cimpoi et al. (2014), research use"
    places_origin = "Zhou et al. (2017), terms of the Places project"
    lsun_origin = "Yu et al. (2015), research use"
    lsun_how = (
        "download dl.yf.io/lsun/scenes/test_lmdb.zip, export its images with LSUN's own data.py, and put "
        "them into the folder lsun/test of the data root"
    )
    for size, suffix in ((32, ""), (64, "-64")):  # the larger ones are foreign images for Tiny ImageNet
        svhn, textures, places, lsun = (
            functools.partial(read, size=size) for read in (load_svhn, load_textures, load_places365, load_unlabelled)
        )
        digits = "Street View House Numbers" + (f", {size}x{size}" if suffix else "")
        yield Source(f"svhn{suffix}", digits, "svhn", svhn_origin, svhn, fetch=tv)
        yield Source(f"textures{suffix}", f"DTD, {size}x{size}", "dtd/dtd", dtd_origin, textures, ("test",), tv)
        yield Source(f"places365{suffix}", f"Places365, {size}x{size}", "places365", places_origin, places, fetch=tv)
        yield Source(
            f"lsun{suffix}", f"LSUN test scenes, {size}x{size}", "lsun/test", lsun_origin, lsun, ("test",), how=lsun_how
        )
    yield Source(
        "imagenet21k",
        "ImageNet-21K classes outside ImageNet-1k, 64x64",
        "imagenet21k/test",
        "Deng et al. (2009); ImageNet's terms, non-commercial research",
        functools.partial(load_unlabelled, size=64, folder="imagenet21k/test"),
        ("test",),
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
"""What a data set of one's own may be called; human labels are told by their prefix."""

_RESERVED = {"all", "default", "known", "mean", "gaussian", "rademacher", "blobs", *TABLES}
"""Words that parameters and results have beside names of data sets."""


def _bundle(name: str, split: str, root: Path) -> Path:
    return root / name / f"{split}.npz"


def _is_published(source: Source, root: Path) -> bool:
    """Whether the published files of a set may be there: there is something in their place other than a bundle."""
    place = root / source.location
    if not place.is_dir():
        return place.exists()
    inside = {path.name for path in place.iterdir() if not path.name.startswith(".")}
    return not inside or not inside <= {f"{split}.npz" for split in SPLITS}


_UNLIKE = ("places365", "places365-64")
"""The sets whose published splits differ in their classes: the labels of one are not public."""


def _read_own(name: str, split: str, root: Path) -> ImageDataset:
    """A split of a bundle, which is like the other one, where that is there."""
    path = _bundle(name, split, root)
    images = read_bundle(path, name)
    [other] = (_bundle(name, another, root) for another in SPLITS if another != split)
    if name not in _UNLIKE and other.is_file():
        expect_same_form(path, images, other)
    return images


def _own_sets(root: Path) -> list[str]:
    """The names of the user's own bundles."""
    found = {path.parent.name for split in SPLITS for path in root.glob(f"*/{split}.npz")}
    return sorted(name for name in found - set(SOURCES) - _RESERVED if re.fullmatch(_OWN_NAME, name))


def _known(name: str, root: Path, others: Iterable[str] = ()) -> str:
    """``name``, if a set of :data:`SOURCES`, a bundle or one of ``others`` is called so.

    Raises:
        UserError: Nothing is; where a folder of the user's is, the message says what it lacks.
    """
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
    """Names of image sets and tables, a family's name (``"cifar10n"``) replaced by those of its members.

    Raises:
        UserError: A name is unknown.
    """
    folder, found = data_root(root), []
    for name in names:
        family = [other for other in SOURCES if name not in SOURCES and other.startswith(f"{name}-")]
        found += family or [_known(name, folder, TABLES)]
    return found


def load(name: str, split: str = "train", root: Path | str | None = None) -> ImageDataset:
    """Load an image set.

    Args:
        name: A name of :data:`SOURCES`, or of a folder of the data root that holds bundles ``train.npz`` or
            ``test.npz`` with ``images`` (uint8 [N, H, W, 3]), ``labels`` (0..K-1) and ``class_names``. Where
            the published files of a known set are not there, a bundle under its name is read in their place.
        split: ``"train"`` or ``"test"`` (the published test or validation part).
        root: The data root (see :func:`~robustness_lib.data.data_root`).

    Returns:
        The image set.

    Raises:
        UserError: The name or split is unknown, the data root or a file is missing (says how to get it), or a
            file is damaged (says which, with both checksums where one was published) or, of a bundle, unlike that
            of the other split (says in what).
    """
    choose(split, SPLITS, "split")
    folder = data_root(root)
    source, bundle = SOURCES.get(name), _bundle(name, split, folder)
    if source and not source.location:
        return source.read(name, split, folder)
    if not folder.is_dir():
        raise _no_root(folder)
    if source is None:
        _known(name, folder)
        if not bundle.is_file():
            raise MissingData(
                f"{bundle} is missing, but a data set of one's own has train.npz and test.npz (for foreign images "
                "test.npz is enough); write it, as the data page (book/data.md) shows"
            )
        return _read_own(name, split, folder)
    published = _is_published(source, folder)
    if bundle.is_file() and not published:
        return _read_own(name, split, folder)
    if split not in source.splits:
        raise MissingData(f"{name} has no {split} split, only {', '.join(source.splits)}; choose another data set")
    if not published:
        place = folder / source.location
        raise MissingData(f"{place} is missing (nor is there a bundle {bundle}): {source.way}")
    try:
        return source.read(name, split, folder)
    except MissingData:
        if not bundle.is_file():
            raise
        return _read_own(name, split, folder)


@dataclass(frozen=True)
class Status:
    """How an image set is found.

    Attributes:
        name: Its name.
        state: ``"intact"``, ``"incomplete"`` (a bundle whose other split is not there), ``"damaged"`` or ``"missing"``.
        message: What was found, or one sentence on what is wrong and what to do.
    """

    name: str
    state: str
    message: str


def check(name: str, root: Path | str | None = None) -> Status:
    """Read the whole of an image set and say whether it is there and intact.

    Published checksums are compared where there are any; elsewhere everything must be readable (``.npz``
    files against their own checksums), with the shapes, types and label ranges that the format has.

    Args:
        name: As for :func:`load`.
        root: The data root.

    Returns:
        The status.

    Raises:
        UserError: The name is unknown.
    """
    folder = data_root(root)
    _known(name, folder, TABLES)
    found, lacking, reasons = [], [], []
    source = SOURCES.get(name)
    try:
        if name in TABLES:
            return Status(name, "intact", TABLES[name].describe(folder))
        if source and source.read is load_corpus and _is_published(source, folder):
            return Status(name, "intact", check_corpus(name, folder))
        for split in SPLITS:
            try:
                images = load(name, split, folder)
            except MissingData as error:
                reasons.append(str(error))
                if source is None or split in source.splits:
                    lacking.append(split)
            else:
                shape = "x".join(str(side) for side in images.images.shape[2:])
                words = recognised(images.checksum)
                more = f", {words}" if words else ""
                found.append(f"{split}: {len(images)} images, {shape}, {images.num_classes} classes{more}")
    except MissingData as error:
        return Status(name, "missing", str(error))
    except UserError as error:
        return Status(name, "damaged", str(error))
    if not found:
        return Status(name, "missing", reasons[-1])
    bundled = source is None or not _is_published(source, folder)
    absent = [f"{split}: {_bundle(name, split, folder) if bundled else 'it'} is not there" for split in lacking]
    return Status(name, "incomplete" if absent and bundled else "intact", "; ".join(found + absent))


def list_sets(root: Path | str | None = None, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Image sets and tables, the user's own bundles among them, without reading any.

    Args:
        root: The data root.
        names: Which, in this order, as for :func:`expand_names`; None for all.

    Returns:
        One row a set: ``name``, ``what``, ``where`` (path), ``found`` ("yes", "no", "made on the fly"),
        ``origin`` (publisher and terms) and ``get`` (how to get it).

    Raises:
        UserError: A name is unknown, or the data root that was named does not exist; only the folder ``data`` of the
            working directory need not.
    """
    folder = data_root(root)
    if (root is not None or os.environ.get("ROBUSTNESS_DATA")) and not folder.is_dir():
        raise _no_root(folder)
    if names is not None:
        rows_by_name = {row["name"]: row for row in list_sets(root)}
        return [rows_by_name[name] for name in expand_names(names, root)]
    rows = []
    for source in SOURCES.values():
        bundles = [path for split in SPLITS if (path := _bundle(source.name, split, folder)).is_file()]
        published = _is_published(source, folder)
        place = folder / source.location if published or not bundles else bundles[0]
        found = "yes" if published or bundles else "no"
        rows.append(
            {
                "name": source.name,
                "what": source.what,
                "where": str(place) if source.location else "",
                "found": found if source.location else "made on the fly",
                "origin": source.origin,
                "get": source.way,
            }
        )
    for table in TABLES.values():
        place = folder / FOLDER / table.filename
        row = {"name": table.name, "what": table.what, "where": str(place), "found": "yes" if place.is_file() else "no"}
        rows.append({**row, "origin": table.origin, "get": f"'robustness data fetch {table.name}' downloads it"})
    for name in _own_sets(folder):
        absent = [path.name for path in (_bundle(name, split, folder) for split in SPLITS) if not path.is_file()]
        what = "your own bundle" + (f", without {absent[0]}" if absent else "")
        rows.append(
            {"name": name, "what": what, "where": str(folder / name), "found": "yes", "origin": "yourself", "get": ""}
        )
    return rows


def fetch(name: str, root: Path | str | None = None) -> Status:
    """Download an image set into the data root, unless it is there and intact, and check it.

    Args:
        name: As for :func:`load`.
        root: The data root; made if it does not exist.

    Returns:
        The status afterwards.

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
        return check(name, folder)
    source = SOURCES[name]
    if source.fetch is None:
        raise UserError(f"{name} cannot be downloaded by this command: {source.way}")
    source.fetch(name, folder)
    return check(name, folder)
