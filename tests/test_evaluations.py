"""Shifted test sets, and what models say about them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st

from robustness_lib.errors import UserError
from robustness_lib.experiments import effective_robustness as section
from robustness_lib.experiments import evaluations
from robustness_lib.experiments.effective_robustness import Tuning
from robustness_lib.experiments.evaluations import (
    ORIGINAL,
    cross_validated_scores,
    parse_shifts,
    right_among,
    target_tests,
)
from robustness_lib.methods.fine_tuning import without_head
from robustness_lib.models.architectures import new_head
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict


def test_shifted_images_stay_the_same_as_what_was_said_of_them_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluations.SHIFTS, "moved", "moved")
    for name in ("own", "moved"):
        toys.write_bundle(tmp_path, name, 20, 4)
    context = toys.context(tmp_path / "runs", data=tmp_path)
    assert len(target_tests("own", ["moved"], context).sets["moved"]) == 20
    toys.write_bundle(tmp_path / "other", "moved", 24, 4)
    later = dataclasses.replace(context, _images={})
    (tmp_path / "moved" / "test.npz").write_bytes((tmp_path / "other" / "moved" / "test.npz").read_bytes())
    later.images("moved", "test")  # where nothing is kept they may change,
    for _ in range(2):
        with pytest.raises(UserError, match=r"moved/test have the checksum .* another folder to --store"):
            target_tests("own", ["moved"], toys.context(tmp_path / "runs", data=tmp_path))


@given(st.integers(0, 1000))
def test_answers_among_classes_are_those_of_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, labels = random.normal(size=(3, 20, 5)), random.integers(0, 5, 20)
    classes = np.unique(random.integers(0, 5, 3))
    found = right_among(scores, labels, classes)
    for row, right in zip(scores, found, strict=True):
        kept = [(s, y) for s, y in zip(row, labels, strict=True) if y in classes]
        plain = [max(classes, key=lambda c, s=s: s[c]) == y for s, y in kept]
        assert right.tolist() == plain


def test_target_tests_are_the_same_for_every_network(tmp_path: Path) -> None:
    context = toys.context(tmp_path)
    first = target_tests("synthetic", ["shifted", "corrupted"], context, original=50, shifted=30)
    again = target_tests("synthetic", ["shifted", "corrupted"], context, original=50, shifted=30)
    assert {name: len(part) for name, part in first.sets.items()} == {ORIGINAL: 50, "shifted": 30, "corrupted": 30}
    assert torch.bincount(first.sets[ORIGINAL].labels).tolist() == [5] * 10
    assert torch.equal(first.sets["corrupted"].images, again.sets["corrupted"].images)
    whole = target_tests("synthetic", ["shifted"], context)
    assert len(whole.sets["shifted"]) == len(whole.sets[ORIGINAL]) == 1000


def test_bad_shifts_are_refused(tmp_path: Path) -> None:
    assert parse_shifts("excluded:corrupted") == parse_shifts("excluded, corrupted") == ["excluded", "corrupted"]
    with pytest.raises(UserError, match="unknown shift 'fog'"):
        parse_shifts("fog")
    with pytest.raises(UserError, match=r"no shift was named.*separated by colons"):
        parse_shifts(" , ")
    toys.write_bundle(tmp_path / "data", "own", 20, 4)
    with pytest.raises(UserError, match="not those of own"):
        target_tests("own", ["shifted"], toys.context(tmp_path / "runs", data=tmp_path / "data"))


SETTINGS = {"train_images": 60, "epochs": 2, "batch_size": 20, "observations": 2, "early_looks": 1}
FIXED = {"schedule": "constant", "learning_rate": 0.1, "crop_padding": 0, "flip": False, "nesterov": False}


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    """A training on the synthetic set, evaluated on a few images."""
    [job, *_] = section.jobs("smoke", methods=["standard"])
    recipe = {**job.recipe, **SETTINGS, **FIXED, "shifts": "shifted"}
    context = toys.context(tmp_path / "runs")
    tests = target_tests("synthetic", ["shifted"], context, original=20, shifted=10)
    return Tuning(dataclasses.replace(job, init="scratch", recipe=recipe), tests, context)


def test_what_is_kept_is_what_the_network_says(tuning: Tuning) -> None:
    first = tuning.fit(tuning.new_head())
    assert first.epochs.tolist() == [2 / 3, 1, 2]  # after 2 of 3 updates, rounded from a half
    assert {name: part.shape for name, part in first.scores.items()} == {ORIGINAL: (3, 20, 10), "shifted": (3, 10, 10)}
    network = tuning.new_head()
    network.load_state_dict(dict(first.weights))
    for name, images in tuning.tests.sets.items():
        logits = predict(network, images, "half", toys.PLAIN)
        assert np.allclose(first.scores[name][-1], logits.numpy(), atol=1e-5)
    again = tuning.fit(network, loss=lambda *_: pytest.fail("trained twice"))
    assert np.array_equal(first.scores["shifted"], again.scores["shifted"])
    other = tuning.fit(network, "from other weights")
    assert not np.array_equal(first.scores["shifted"], other.scores["shifted"])


def test_what_a_published_network_says_of_images_is_asked_once(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, others) = tuning.new_head(), tuning.tests.sets.values()
    vars(network)["published"] = "a toy"
    score = evaluations.scorer(network, tuning.config, tuning.context)
    first, asked = score(images), []
    monkeypatch.setattr(evaluations, "predict", lambda *_: asked.append(1) or torch.zeros(10, 10))
    assert torch.equal(score(images), first)
    assert not asked
    assert torch.equal(score(others), torch.zeros(10, 10))


def test_a_linear_layer_on_fixed_features_is_that_of_the_whole_loop(tuning: Tuning) -> None:
    extractor = without_head(tuning.new_head())
    _, history = evaluations.train_head(tuning.described(), extractor, tuning.data, tuning.tests, tuning.context)
    frozen = dataclasses.replace(tuning.config, trainable="head")
    whole = tuning.fit(new_head(tuning.new_head().eval(), 10, 0), config=frozen)
    assert list(history.observed) == whole.epochs.tolist() == [2 / 3, 1, 2]
    for place, observed in enumerate(history.observed.values()):
        for name, scores in observed.items():
            assert np.allclose(scores, whole.scores[name][place], atol=2e-3), name
    first, last = history.observed[2 / 3][ORIGINAL], history.observed[2][ORIGINAL]
    assert not torch.allclose(first, last, atol=1e-3)
    diverging = dataclasses.replace(tuning.config, learning_rate=1e30)
    with pytest.raises(UserError, match="diverged in epoch"):
        evaluations.train_head(tuning.described("", diverging), extractor, tuning.data, tuning.tests, tuning.context)


def test_cross_validated_scores_tell_spoilt_images_and_are_kept(tmp_path: Path) -> None:
    context = toys.context(tmp_path)
    data = toys.images(160, 2, seed=3)
    wrong = torch.arange(160) % 8 == 0
    spoilt = data.with_labels(torch.where(wrong, 1 - data.labels, data.labels))
    recipe = TrainingConfig(architecture="wrn-10-1", epochs=6, batch_size=20, learning_rate=0.05)
    scores = cross_validated_scores(spoilt, recipe, context)
    assert scores.shape == (160,)
    assert 0 <= scores.min() <= scores.max() <= 1
    assert scores[wrong].mean() < 0.5 < scores[~wrong].mean()
    [path] = (context.store / "difficulty").glob("*.npz")
    changed = path.stat().st_mtime_ns
    assert np.array_equal(cross_validated_scores(spoilt, recipe, context), scores)
    assert path.stat().st_mtime_ns == changed
