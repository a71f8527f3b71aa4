"""The synthetic image sets: the same at every call, and of the classes that they say."""

import pytest
import torch

from robustness_lib.data import load
from robustness_lib.data.synthetic import COUNTS, SHAPES, TEXTURES, load_synthetic


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
    others = [load_synthetic("synthetic", "test", seed=1), load("synthetic-shifted", "test"), load("synthetic")]
    assert len({first.checksum, *(other.checksum for other in others)}) == 4
    both = torch.cat([first.images, load("synthetic").images]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(both)
