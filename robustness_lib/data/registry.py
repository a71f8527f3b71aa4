"""Every image set and table of published predictions, the rows of ``sets.csv``: where it is, whether it is intact."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name

from robustness_lib.data import published_predictions
from robustness_lib.data.dataset import SPLITS, ImageDataset, data_root
from robustness_lib.data.io import MissingData, bundle_path, load_bundle
from robustness_lib.errors import UserError, choose
from robustness_lib.models.corpora import recognised


@dataclass(frozen=True)
class Source:
    """A row of ``sets.csv``."""

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


def _sources() -> Iterator[Source]:
    with (files("robustness_lib.data") / "sets.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            read, fetch = (row[key] and resolve_name(f"robustness_lib.data.{row[key]}") for key in ("read", "fetch"))
            splits = tuple(row["splits"].split())
            yield Source(**row | {"read": read or None, "fetch": fetch or None, "splits": splits})


_ALL = list(_sources())
SOURCES: dict[str, Source] = {source.name: source for source in _ALL if source.read}
"""The image sets by name."""

TABLES: dict[str, Source] = {source.name: source for source in _ALL if not source.read}
"""The tables of published predictions by name."""

_OWN_NAME = r"(?!cifar10n-)[\w+-][\w.+-]{0,99}"  # of a set of one's own; human labels are recognised by their prefix

_RESERVED = {"all", "default", "known", "mean", "gaussian", "rademacher", "blobs", *TABLES}
"""Words that parameters and results have beside names of data sets."""


def _is_bundled(name: str, root: Path) -> bool:
    return any(bundle_path(name, split, root).is_file() for split in SPLITS)


def _is_published(source: Source, root: Path) -> bool:
    """Whether there is something in the place of a set's published files other than a bundle."""
    folder = root / source.location
    names = {path.name for path in folder.glob("[!.]*")}
    return folder.exists() and not (names and names <= {f"{split}.npz" for split in SPLITS})


def _own_sets(root: Path) -> list[str]:
    names = {path.parent.name for split in SPLITS for path in root.glob(f"*/{split}.npz")}
    return sorted(name for name in names - set(SOURCES) - _RESERVED if re.fullmatch(_OWN_NAME, name))


def _check_name(name: str, root: Path, others: Iterable[str] = ()) -> str:
    """``name``, if a set of :data:`SOURCES`, a bundle or one of ``others`` is called so; says what a folder lacks."""
    options = [*SOURCES, *others, *_own_sets(root)]
    if name not in options and os.path.isdir(root / name):  # False also of what no file can be called
        if name in _RESERVED or name.startswith("cifar10n-"):
            raise UserError(f"results use the name {name!r} themselves; rename the folder {root / name}")
        published = {source.location.partition("/")[0] for source in (SOURCES | TABLES).values()}
        if name not in published and re.fullmatch(_OWN_NAME, name):
            raise UserError(
                f"unknown data set {name!r}: the folder {root / name} has neither train.npz nor test.npz in it; make "
                "them of your images, as the data page (book/data.md) shows"
            )
    return choose(name, options, "data set")


def _no_root(folder: Path) -> MissingData:
    return MissingData(f"the data root {folder} does not exist; make it, or set --data-root or $ROBUSTNESS_DATA")


def expand_names(names: Iterable[str], root: Path | str | None = None) -> list[str]:
    """Names of image sets and tables, a family's name (``"cifar10n"``) replaced by those of its members."""
    folder, members = data_root(root), []
    for name in names:
        family = [other for other in SOURCES if name not in SOURCES and other.startswith(f"{name}-")]
        members += family or [_check_name(name, folder, TABLES)]
    return members


def load(name: str, split: str = "train", root: Path | str | None = None) -> ImageDataset:
    """Load the ``"train"`` or ``"test"`` split of an image set from a data root.

    It is one of :data:`SOURCES`, or a folder of bundles (:func:`~robustness_lib.data.io.read_bundle`), which go before.
    A :class:`MissingData` says how to get what is not there.
    """
    choose(split, SPLITS, "split")
    folder = data_root(root)
    source = SOURCES.get(name)
    if source is None or source.location:
        if not folder.is_dir():
            raise _no_root(folder)
        if source is None or _is_bundled(name, folder):
            return load_bundle(_check_name(name, folder), split, folder)
        if split not in source.splits:
            raise MissingData(f"{name} has no {split} split, only {', '.join(source.splits)}; choose another data set")
        if not _is_published(source, folder):
            place, bundle = folder / source.location, bundle_path(name, split, folder)
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
                    absent.append(f"{split}: {bundle_path(name, split, folder) if bundled else 'it'} is not there")
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
    """All image sets, tables and bundles, or those named (as for :func:`expand_names`), unread: a row each.

    ``found`` is "yes", "no" or "made on the fly", ``origin`` publisher and terms, ``get`` how to get it.
    """
    folder = data_root(root)
    if (root is not None or os.environ.get("ROBUSTNESS_DATA")) and not folder.is_dir():
        raise _no_root(folder)
    rows = {}
    for source in (SOURCES | TABLES).values():
        bundled = _is_bundled(source.name, folder)
        found = "made on the fly"
        if source.location:
            found = "yes" if bundled or _is_published(source, folder) else "no"
        rows[source.name] = {
            "name": source.name,
            "what": source.what,
            "where": str(folder / (source.name if bundled else source.location)) if source.location else "",
            "found": found,
            "origin": source.origin,
            "get": source.remedy,
        }
    for name in _own_sets(folder):
        absent = [f", without {split}.npz" for split in SPLITS if not bundle_path(name, split, folder).is_file()]
        own = {"what": "".join(["your own bundle", *absent]), "where": str(folder / name), "found": "yes"}
        rows[name] = {"name": name, **own, "origin": "yourself", "get": ""}
    return [rows[name] for name in (rows if names is None else expand_names(names, root))]


def fetch(name: str, root: Path | str | None = None) -> Status:
    """Download an image set or table, unless it is there and intact, and check it; nothing is left of a failure."""
    folder = data_root(root)
    if name in _own_sets(folder):
        raise UserError(f"{name} is a bundle of your own in {folder / name}, so there is nothing to fetch")
    choose(name, [*SOURCES, *TABLES], "data set")
    status = check(name, folder)
    if status.state == "intact":
        return status
    source = (SOURCES | TABLES)[name]
    if source.fetch is None:
        raise UserError(f"{name} cannot be downloaded by this command: {source.remedy}")
    source.fetch(name, folder)
    return check(name, folder)
