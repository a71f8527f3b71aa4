"""Shifted test sets, what models say about them, and the images that they are made of."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import formats
import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustness_lib.data import ImageDataset, class_list, load
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.corruptions import CORRUPTIONS, PARAMETERS, SEVERITIES, corrupt, corrupted
from robustness_lib.data.imagenet_downsampled import cinic10_classes, read_class_map
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
from robustness_lib.methods.fine_tuning import Features
from robustness_lib.models.architectures import new_head
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict

NUMBERS = {wnid: number for number, (wnid, _) in enumerate(read_class_map(), start=1)}


def smooth(count: int = 6, size: int = 32) -> torch.Tensor:
    """Images with gentle gradients, uint8 [N, 3, S, S]."""
    ramp = torch.linspace(30, 220, size)
    image = torch.stack([ramp.expand(size, size), ramp.expand(size, size).T, 128 + 0 * ramp.expand(size, size)])
    return torch.stack([image.roll(k, 2) for k in range(count)]).to(torch.uint8)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruptions_grow_with_severity_and_repeat(corruption: str) -> None:
    images = torch.from_numpy(formats.some_images(4)).permute(0, 3, 1, 2).contiguous()
    if corruption == "jpeg_compression":
        images = smooth(4)
    away = []
    for severity in SEVERITIES:
        found = corrupt(images, corruption, severity)
        assert found.dtype == torch.uint8
        assert found.shape == images.shape
        assert torch.equal(found, corrupt(images, corruption, severity))
        away.append(float((found.double() - images.double()).abs().mean()))
    assert away == sorted(away)
    assert away[0] < away[-1]


def test_noise_has_the_standard_deviation_of_its_severity_and_is_seeded() -> None:
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    for severity in SEVERITIES:
        found = corrupt(grey, "gaussian_noise", severity)
        assert float(found.double().std()) / 255 == pytest.approx(PARAMETERS["gaussian_noise"][severity - 1], rel=0.02)
    assert not torch.equal(corrupt(grey, "gaussian_noise", 1), corrupt(grey, "gaussian_noise", 1, seed=1))
    assert not torch.equal(found[0], found[1])


def test_contrast_blur_pixelate_and_jpeg_are_what_their_names_say() -> None:
    images = smooth()
    means = images.double().mean((2, 3), keepdim=True)
    weak = corrupt(images, "contrast", 5).double()
    assert torch.allclose(weak, means + 0.15 * (images.double() - means), atol=0.51)
    uniform = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    for corruption in ("gaussian_blur", "contrast", "pixelate"):
        assert torch.equal(corrupt(uniform, corruption, 5), uniform), corruption
    blurred = corrupt(images, "gaussian_blur", 5).double()
    assert float(blurred.diff(dim=3).abs().max()) < float(images.double().diff(dim=3).abs().max())
    file = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
    assert torch.equal(corrupt(images[:1], "jpeg_compression", 5)[0], expected)
    coarse = corrupt(torch.from_numpy(formats.some_images(1)).permute(0, 3, 1, 2).contiguous(), "pixelate", 5)
    assert len(torch.unique(coarse[0, 0], dim=0)) <= int(32 * 0.65)  # so many rows of blocks


def test_each_image_of_a_corrupted_set_is_corrupted_in_one_of_the_ways() -> None:
    data = ImageDataset("own", smooth(100), torch.arange(100) % 2, ("a", "b"))
    found = corrupted(data)
    assert torch.equal(found.labels, data.labels)
    ways = [corrupt(data.images, corruption, s) for corruption in ("contrast", "pixelate") for s in SEVERITIES]
    exact = torch.stack([(way == found.images).flatten(1).all(1) for way in ways]).sum(1)
    assert exact[3:5].tolist() == [4, 4]  # 100 images, 25 ways; weak ones may coincide with others
    assert torch.equal(corrupted(data).images, found.images)


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


def test_cinic10_s_classes_without_the_one_in_two_classes() -> None:
    found = cinic10_classes()
    assert len(found) == 141
    assert "n03770679" not in found
    counts = np.bincount(list(found.values()), minlength=10).tolist()
    assert counts == [1, 9, 59, 13, 1, 41, 3, 1, 6, 7]  # PROTOCOL: 10 automobiles and 8 trucks with the minivan


def test_imagenet_s_images_by_whether_pre_training_leaves_their_classes_out(tmp_path: Path) -> None:
    related = set(class_list("cifar10_related"))
    birds = [wnid for wnid, number in cinic10_classes().items() if number == 2]
    left, kept = ([w for w in birds if (w in related) == out][:2] for out in (True, False))
    dogs = [wnid for wnid, number in cinic10_classes().items() if number == 5 and wnid in related][:1]
    other = [wnid for wnid in NUMBERS if wnid not in cinic10_classes()][:1]
    wnids = [*left * 3, *dogs * 4, *kept * 5, *other * 9]
    formats.write_downsampled(tmp_path, [[NUMBERS[wnid] for wnid in wnids]], [1])
    excluded = load("cifar10-imagenet-excluded", "test", tmp_path)
    assert excluded.class_names == CIFAR10_CLASSES
    assert torch.bincount(excluded.labels, minlength=10).tolist() == [0, 0, 4, 0, 0, 4, 0, 0, 0, 0]
    numbers = (excluded.images[:, 0, 0, 0].int() * 256 + excluded.images[:, 0, 0, 1].int()).tolist()
    assert sorted(numbers) == sorted([NUMBERS[w] for w in [*left * 2, *dogs * 4]])  # both birds equally often
    included = load("cifar10-imagenet-included", "test", tmp_path)
    assert torch.bincount(included.labels, minlength=10).tolist() == [0, 0, 10, 0, 0, 0, 0, 0, 0, 0]
    assert torch.equal(load("cifar10-imagenet-included", "test", tmp_path).images, included.images)
    with pytest.raises(UserError, match="no train split"):
        load("cifar10-imagenet-included", "train", tmp_path)


def test_every_tenth_class_of_a_corpus(tmp_path: Path) -> None:
    related = {NUMBERS[wnid] for wnid in class_list("cifar10_related")}
    labels = [number for number in range(1, 60) if number not in related]
    formats.write_downsampled(tmp_path, [labels * 2], labels)
    whole, part = (load(f"imagenet32-no-cifar10{end}", "train", tmp_path) for end in ("", "-tenth"))
    assert part.class_names == whole.class_names[::10]
    assert len(part) == 2 * part.num_classes
    assert part.name == f"imagenet32-no-cifar10-tenth_{len(part)}x{part.num_classes}"
    for label in range(part.num_classes):
        assert torch.equal(part.images[part.labels == label], whole.images[whole.labels == 10 * label])
    assert load("imagenet32-no-cifar10-tenth", "test", tmp_path).class_names == part.class_names


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


def test_a_linear_layer_on_fixed_features_is_that_of_the_whole_loop(tuning: Tuning) -> None:
    extractor = Features(tuning.new_head())
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
