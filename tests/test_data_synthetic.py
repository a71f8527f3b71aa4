"""The synthetic image sets: the same on every machine and call, and hard enough that pre-training shows."""

from __future__ import annotations

import pytest
import torch

from robustness_lib.data import ImageDataset, load
from robustness_lib.data.synthetic import COUNTS, SHAPES, TEXTURES, load_synthetic
from robustness_lib.models import architectures
from robustness_lib.training import trainer
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime


@pytest.mark.parametrize("name", list(COUNTS))
@pytest.mark.parametrize("split", ["train", "test"])
def test_counts_and_classes(name: str, split: str) -> None:
    data = load(name, split, "no such root")
    assert tuple(data.images.shape) == (COUNTS[name][split], 3, 16, 16)
    sizes = torch.bincount(data.labels)
    assert int(sizes.max() - sizes.min()) <= 1
    assert data.labels[:20].diff().unique().numel() > 2
    assert 60 < float(data.images.float().mean()) < 195


def test_target_classes_are_others_made_of_the_same_parts() -> None:
    source, target = load("synthetic-source", "test").class_names, load("synthetic", "test").class_names
    assert (len(set(source)), len(set(target)), set(source) & set(target)) == (40, 10, set())
    for part, kinds in ((0, TEXTURES), (1, SHAPES)):
        assert {name.split()[part] for name in source} == {name.split()[part] for name in target} == set(kinds)
    assert load("synthetic-shifted", "test").class_names == target


def test_the_same_seed_gives_the_same_images_and_splits_differ() -> None:
    first = load_synthetic("synthetic", "test")
    assert load("synthetic", "test").checksum == first.checksum
    others = [
        load_synthetic("synthetic", "test", seed=1),
        load("synthetic-shifted", "test"),
        load("synthetic"),
    ]
    assert len({first.checksum, *(other.checksum for other in others)}) == 4
    both = torch.cat([first.images, load("synthetic").images]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(both)


def test_pretraining_beats_training_from_scratch() -> None:
    """A small network tuned for 5 epochs on 400 target images, against one from scratch that is given 10."""
    architecture, target = "wrn-10-1", load("synthetic").subset(torch.arange(400))
    test, shifted = load("synthetic", "test"), load("synthetic-shifted", "test")
    runtime = Runtime.detect("cpu", threads=1)

    def fit(network: torch.nn.Module, data: ImageDataset, epochs: int, rate: float) -> torch.nn.Module:
        recipe = TrainingConfig(
            architecture=architecture, epochs=epochs, batch_size=32, learning_rate=rate, crop_padding=2
        )
        trainer.train(network, data, recipe, seed=0, runtime=runtime)
        return network

    def error(network: torch.nn.Module, data: ImageDataset) -> float:
        logits = trainer.predict(network, data, "half", runtime)
        return float((logits.argmax(1) != data.labels).float().mean())

    pretrained = fit(architectures.build(architecture, 40, seed=0), load("synthetic-source"), epochs=6, rate=0.1)
    architectures.new_head(pretrained, 10, seed=0)
    tuned = fit(pretrained, target, epochs=5, rate=0.05)
    scratch = fit(architectures.build(architecture, 10, seed=0), target, epochs=10, rate=0.1)
    assert error(tuned, test) < 0.25
    assert error(tuned, test) < error(scratch, test) - 0.1
    assert error(tuned, test) + 0.05 < error(tuned, shifted) < 0.6
