"""Trained networks, each made once, though several jobs need it.

A network is described by a :class:`Training`, made by :func:`trained`, and kept as safetensors under the key of its
description. Pre-trained checkpoints are found by their id.
"""

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.data import ImageDataset, class_balanced_subset, data_root, load
from robustness_lib.errors import UserError
from robustness_lib.files import locked, write_atomically
from robustness_lib.models.architectures import build, load_trunk, new_head
from robustness_lib.models.checkpoint_ids import check_id
from robustness_lib.models.checkpoints import load_weights, save_weights
from robustness_lib.runner.records import SCRATCH, Job, short_hash
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime
from robustness_lib.training.trainer import History, Observe, predict, train

SHIPPED = Path("book/checkpoints")
"""Pre-trained checkpoints that come with the repository, relative to its root."""


class Kept(NamedTuple):
    """What a file of :func:`save_trained` holds."""

    weights: dict[str, Tensor]
    observed: dict[str, Tensor]
    metadata: dict[str, str]


@dataclass(kw_only=True)
class Context:
    """What a job needs beside its description; nothing in it changes a result beyond rounding.

    ``data`` is the data root, None for ``$ROBUSTNESS_DATA`` or ``data``.
    """

    data: Path | None = None
    store: Path = Path("runs")
    runtime: Runtime = field(default_factory=Runtime.detect)
    progress: bool = True
    _images: dict[tuple[str, str], ImageDataset] = field(default_factory=dict, repr=False)
    _used: dict[str, str] = field(default_factory=dict, repr=False)
    _trained_on: list[str] = field(default_factory=list, repr=False)

    def images(self, name: str, split: str, *, kept: bool = False) -> ImageDataset:
        """An image set (:func:`robustness_lib.data.load`), its checksum noted for the provenance of the running job.

        Those that networks are trained on, or of which predictions are ``kept``, must stay the same in one store.
        """
        images = self._images.get((name, split))
        if images is None:
            images = load(name, split, data_root(self.data))
        if kept or split == "train" or self._note(name, "train").exists():
            self._check_unchanged(name, split, images.checksum)
        if split == "train" and (name, "test") in self._images:
            self._check_unchanged(name, "test", self._images[name, "test"].checksum)
        self._images[name, split] = images
        self._used[f"{name}/{split}"] = images.checksum
        return images

    def _note(self, name: str, split: str) -> Path:
        return self.store / "data" / f"{name}-{split}.sha256"

    def _check_unchanged(self, name: str, split: str, checksum: str) -> None:
        note = self._note(name, split)
        if not note.exists():
            with contextlib.suppress(UserError):  # a store that can be read only is as it was
                write_atomically(note, f"{checksum}\n".encode())
        elif (before := note.read_text().strip()) != checksum:
            raise UserError(
                f"the images {name}/{split} have the checksum {checksum[:12]}…, but what is in {self.store} was made "
                f"with {before[:12]}…; give another folder to --store, or the changed images another name"
            )

    def note_data(self, name: str, checksum: str) -> None:
        """Note the checksum of other data than image sets for the provenance of the running job."""
        self._used[name] = checksum

    def made_once(
        self, path: Path, description: Mapping[str, Any], make: Callable[[], tuple[nn.Module, History]]
    ) -> Kept:
        """What is kept of a network at ``path``, made first if it is not there, by one process alone."""
        with locked(self.store / "locks" / f"{path.stem}.lock"):
            if not path.exists():
                save_trained(path, *make(), description)
            path.with_suffix(".partial.safetensors").unlink(missing_ok=True)  # only when the result is there
        kept = read_trained(path)
        self._trained_on += json.loads(kept.metadata.get("trained_on", "[]"))
        return kept

    def training_options(self, path: Path, progress: str | None) -> dict[str, Any]:
        """How :func:`~robustness_lib.training.trainer.train` is called for what will be kept at ``path``."""
        return {
            "runtime": self.runtime,
            "checkpoint": path.with_suffix(".partial.safetensors"),
            "progress": progress if self.progress else None,
        }

    def trained_elsewhere(self) -> dict[str, list[str]]:
        """``trained_on``, device and precision of the networks that the running job read, unless all are its own."""
        devices = sorted(set(self._trained_on))
        return {"trained_on": devices} if devices not in ([], [self.runtime.in_words()]) else {}

    def take_used_data(self) -> dict[str, str]:
        """Checksums of the data used since the last call; of image sets by ``name/split``."""
        used, self._used = self._used, {}
        return dict(sorted(used.items()))


@dataclass(frozen=True, kw_only=True)
class Training:
    """The complete description of a trained network; ``variant`` is what else determines it, "" for nothing."""

    dataset: str
    init: str
    seed: int
    recipe: TrainingConfig
    held_out: bool = False
    variant: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The description as plain values."""
        return vars(self) | {"recipe": self.recipe.training_part().as_dict()}

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits, equal for equal descriptions."""
        return short_hash(self.as_dict())

    def path(self, store: Path) -> Path:
        """Where the network is kept."""
        return store / "networks" / f"{self.key}.safetensors"


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, on the runtime's device, and what was observed on the way.

    Attributes:
        epochs: [E], the observed epochs, from 1; float64 where some are within the first, else int64.
        confidence: float32 [E, N], largest softmax probability of each test image; ``correct``: bool [E, N].
        further: By name, what else was observed, [E, ...] (:func:`trained`).
        losses: Of every epoch the mean of its batches' training losses (nats).
    """

    network: nn.Module
    epochs: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    further: Mapping[str, np.ndarray] = field(default_factory=dict)
    losses: Sequence[float] = ()


def held_out_split(data: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The first 90 % of the training images, and the last 10 % to tune the temperature on (P1 §4.2), in file order.

    Where that is sorted or grouped by class it is permuted from NumPy seed 0 first, as the authors do for one set.
    """
    count = len(data) // 10
    if count == 0:
        raise UserError(
            f"{len(data)} training images are too few to hold a tenth out for the temperature; set train_images to 10 "
            "or more"
        )
    labels, order = data.labels.numpy(), np.arange(len(data))
    permuted = np.random.RandomState(0).permutation(len(data))
    classes = [len(np.unique(labels[places[-count:]])) for places in (order, permuted)]
    if (np.diff(labels) >= 0).all() or classes[0] < 0.7 * classes[1]:
        order = permuted
    first, last = torch.from_numpy(order[:-count]), torch.from_numpy(order[-count:])
    return data.subset(first, f"{data.name}[:90%]"), data.subset(last, f"{data.name}[90%:]")


def check_size(data: ImageDataset, count: int) -> None:
    """Refuse a recipe that asks for more training images than there are."""
    if count > len(data):
        raise UserError(
            f"train_images is {count} but {data.name} has {len(data)} training images; add --set train_images=0 to "
            "train on all of them"
        )


def target_images(training: Training, context: Context) -> ImageDataset:
    """The training images of the target that a job may use, before any is held out."""
    data = context.images(training.dataset, "train")
    count = training.recipe.train_images
    check_size(data, count)
    return data.subset(class_balanced_subset(data.labels, count, training.seed)) if count else data


def find_checkpoint(checkpoint: str, store: Path) -> Path | None:
    """The file of a pre-trained checkpoint: among those that come with the repository, or in the store."""
    name = f"{check_id(checkpoint)}.safetensors"
    return next((p for folder in (SHIPPED, store / "checkpoints") if (p := folder / name).is_file()), None)


def missing_checkpoint(checkpoint: str, store: Path) -> UserError:
    """What is said where :func:`find_checkpoint` finds none."""
    return UserError(
        f"the checkpoint {checkpoint} is neither in {store / 'checkpoints'} nor in {SHIPPED}; make it with 'robustness "
        "pretrain', or choose another with --init"
    )


def ship(checkpoint: str, store: Path) -> Path:
    """Put a checkpoint of the store among those that come with the repository, in half precision; give its file.

    From then on all tune the rounded weights, this store's owner too. One that is there already stays as it is.
    """
    name = f"{check_id(checkpoint)}.safetensors"
    source, path = store / "checkpoints" / name, SHIPPED / name
    if path.is_file():
        return path
    weights, metadata = load_weights(source)
    rounded = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    if beyond := [name for name, value in rounded.items() if not bool(torch.isfinite(value).all())]:
        raise UserError(
            f"{source} has weights that half precision cannot hold ({beyond[0]}); copy the file itself to {SHIPPED}"
        )
    save_weights(path, rounded, {**metadata, "precision": "float16"})
    return path


def initialise(training: Training, num_classes: int, context: Context) -> nn.Module:
    """The network before its training: random, or the pre-trained trunk under a new head."""
    recipe = training.recipe
    network = build(recipe.architecture, num_classes, recipe.dropout, training.seed)
    if training.init == SCRATCH:
        return network
    path = find_checkpoint(training.init, context.store)
    if path is None:
        raise missing_checkpoint(training.init, context.store)
    load_trunk(network, read_trained(path)[0])
    return new_head(network, num_classes, training.seed, recipe.head_bias)


def trained(
    training: Training,
    context: Context,
    *,
    progress: str | None = None,
    data: ImageDataset | None = None,
    observe: Observe | None = None,
    **hooks: Any,
) -> Trained:
    """The network that ``training`` describes: read if it was trained before, else trained and kept.

    Args:
        training: Its description, whose ``variant`` must say what ``data``, ``observe`` and the hooks are.
        data: What to train on in place of the target's images, such as the same images with other labels.
        observe: What else to record after the observed epochs, beside predictions for the test set; in ``further``.
        **hooks: ``loss``, ``perturb`` or ``sampler`` for :func:`robustness_lib.training.trainer.train`.
    """
    if data is not None and not training.variant:
        raise ValueError("other training images than the target's need a variant that says which they are")
    test = context.images(training.dataset, "test")
    if data is None:
        data = target_images(training, context)
        if training.held_out:
            data = held_out_split(data)[0]
    recipe, classes = training.recipe.training_part(), data.num_classes

    def observe_test_set(network: nn.Module) -> dict[str, Tensor]:
        logits = predict(network, test, recipe.normalisation, context.runtime)
        confidence, prediction = logits.softmax(1).max(1)
        observed = {"confidence": confidence, "correct": prediction == test.labels}
        return observed | dict(observe(network) if observe is not None else {})

    path, images = training.path(context.store), data

    def make() -> tuple[nn.Module, History]:
        network = initialise(training, classes, context)
        options = context.training_options(path, progress) | hooks
        return network, train(network, images, recipe, seed=training.seed, observe=observe_test_set, **options)

    kept = context.made_once(path, training.as_dict(), make)
    network = build(recipe.architecture, classes, recipe.dropout)
    if training.init != SCRATCH:
        new_head(network, classes, training.seed, recipe.head_bias)
    network.load_state_dict(kept.weights)
    network.to(context.runtime.device).eval()
    further = {name: value.numpy() for name, value in kept.observed.items()}
    epochs, confidence, correct = (further.pop(name) for name in ("epochs", "confidence", "correct"))
    return Trained(network, epochs, confidence, correct, further, json.loads(kept.metadata["losses"]))


def read_trained(path: Path) -> Kept:
    """Read what :func:`save_trained` wrote."""
    tensors, metadata = load_weights(path)
    kept = Kept({}, {}, metadata)
    for name, value in tensors.items():
        kind, _, quantity = name.rpartition("/")
        (kept.observed if kind == "observed" else kept.weights)[quantity] = value
    return kept


def save_trained(path: Path, network: nn.Module, history: History, description: Mapping[str, Any]) -> None:
    """Keep a network with what was observed of it, its description and the course of its training."""
    epochs = sorted(history.observed)
    names = history.observed[epochs[0]] if epochs else ("confidence", "correct")
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    whole = all(float(epoch).is_integer() for epoch in epochs)
    tensors["observed/epochs"] = torch.tensor(epochs, dtype=torch.int64 if whole else torch.float64)
    for name in names:
        rows = [history.observed[epoch][name] for epoch in epochs]
        tensors[f"observed/{name}"] = torch.stack(rows) if rows else torch.zeros(0)
    metadata = {
        "training": json.dumps(description, sort_keys=True),
        "losses": json.dumps([round(loss, 5) for loss in history.losses]),
        "images_per_second": f"{history.images / max(history.seconds, 1e-9):.6g}",
        "trained_on": json.dumps(history.trained_on),
    }
    save_weights(path, tensors, metadata)


def keep_outputs(job: Job, context: Context, outputs: Mapping[str, np.ndarray]) -> None:
    """Keep what an evaluation computed for each example, such as logits, as ``outputs/<section>/<key>.npz``."""
    content = io.BytesIO()
    np.savez_compressed(content, **dict(outputs))  # type: ignore[arg-type]
    write_atomically(context.store / "outputs" / job.section / f"{job.key}.npz", content.getvalue())
