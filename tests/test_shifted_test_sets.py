"""Shifted test sets, common corruptions, and maps from the classes of a corpus."""

from __future__ import annotations

import csv
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
from torch import nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset, class_list, data_root, load
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.corruptions import CORRUPTIONS, PARAMETERS, SEVERITIES, corrupt, corrupted
from robustness_lib.data.imagenet_downsampled import cinic10_classes, read_class_map
from robustness_lib.errors import UserError
from robustness_lib.experiments import shifted_test_sets
from robustness_lib.experiments.shifted_test_sets import (
    ORIGINAL,
    TargetTests,
    parse_shifts,
    right_among,
    right_answers,
    target_tests,
)
from robustness_lib.methods import class_mapping
from robustness_lib.models.architectures import build, head

NUMBERS = {wnid: number for number, (wnid, _) in enumerate(read_class_map(), start=1)}


def smooth(count: int = 6, size: int = 32) -> torch.Tensor:
    """Images with gentle gradients, uint8 [N, 3, S, S]."""
    ramp = torch.linspace(30, 220, size)
    image = torch.stack([ramp.expand(size, size), ramp.expand(size, size).T, 128 + 0 * ramp.expand(size, size)])
    return torch.stack([image.roll(k, 2) for k in range(count)]).to(torch.uint8)


# ---------------------------------------------------------------------------------------- corruptions


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


def test_unknown_corruptions_and_severities_are_refused() -> None:
    with pytest.raises(UserError, match="unknown corruption 'fog'"):
        corrupt(smooth(1), "fog", 1)
    with pytest.raises(UserError, match="severity is 6"):
        corrupt(smooth(1), "contrast", 6)


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
    monkeypatch.setitem(shifted_test_sets.SHIFTS, "moved", "moved")
    for name in ("own", "moved"):
        toys.write_bundle(tmp_path, name, 20, 4)
    context = toys.context(tmp_path / "runs", data=tmp_path)
    assert len(target_tests("own", ["moved"], context).shifted["moved"]) == 20
    toys.write_bundle(tmp_path / "other", "moved", 24, 4)
    later = dataclasses.replace(context, _images={})
    (tmp_path / "moved" / "test.npz").write_bytes((tmp_path / "other" / "moved" / "test.npz").read_bytes())
    later.images("moved", "test")  # where nothing is kept they may change,
    for _ in range(2):
        with pytest.raises(UserError, match=r"moved/test have the checksum .* another folder to --store"):
            target_tests("own", ["moved"], toys.context(tmp_path / "runs", data=tmp_path))


def test_shifts_can_be_written_in_a_list_of_settings() -> None:
    assert parse_shifts("excluded:corrupted") == parse_shifts("excluded, corrupted") == ("excluded", "corrupted")
    with pytest.raises(UserError, match="separated by colons"):
        parse_shifts(" ")


# ---------------------------------------------------------------------------------------- ImageNet's images


def test_cinic10_s_classes_without_the_one_in_two_classes() -> None:
    found = cinic10_classes()
    assert len(found) == 141
    assert "n03770679" not in found
    counts = np.bincount(list(found.values()), minlength=10).tolist()
    assert counts == [1, 9, 59, 13, 1, 41, 3, 1, 6, 7]  # PROTOCOL: 10 automobiles and 8 trucks with the minivan


def test_they_are_those_of_the_published_list() -> None:
    path = data_root() / "testbeds" / "cinic10_synset_to_class.csv"
    if not path.is_file():
        pytest.skip("the published list is not in the data root")
    with path.open(newline="") as stream:
        rows = {(row["wnid"], row["cifar10_class"]) for row in csv.DictReader(stream)}
    assert {(wnid, CIFAR10_CLASSES[number]) for wnid, number in cinic10_classes().items()} <= rows


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


# ---------------------------------------------------------------------------------------- comparisons


def sets_of(count: int = 12) -> TargetTests:
    names = ("a", "b", "c")
    original = ImageDataset("own", smooth(count), torch.arange(count) % 3, names)
    shifted = ImageDataset("other", smooth(6), torch.tensor([0, 2, 0, 2, 2, 0]), names)
    return TargetTests(original, {"corrupted": shifted}, "some")


def test_both_sides_choose_among_the_classes_of_the_shift() -> None:
    tests = sets_of()
    assert tests.classes("corrupted").tolist() == [0, 2]
    scores = {ORIGINAL: np.zeros((12, 3)), "corrupted": np.zeros((6, 3))}
    for part in scores.values():
        part[:, 1] = 5  # a class that does not occur is never chosen
        part[:, 2] = 1
    inside, outside = right_answers(scores, tests, "corrupted")
    assert inside.tolist() == [False, True] * 4
    assert outside.tolist() == [False, True, False, True, True, False]
    only, _ = right_answers(scores, tests, "corrupted", [2])
    assert only.tolist() == [True] * 4
    with pytest.raises(UserError, match="none of the classes"):
        right_answers(scores, tests, "corrupted", [1])


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
    assert len(first.original) == 50
    assert {name: len(part) for name, part in first.shifted.items()} == {"shifted": 30, "corrupted": 30}
    assert torch.bincount(first.original.labels).tolist() == [5] * 10
    assert torch.equal(first.shifted["corrupted"].images, again.shifted["corrupted"].images)
    whole = target_tests("synthetic", ["shifted"], context)
    assert len(whole.shifted["shifted"]) == len(whole.original) == 1000
    assert first.description != whole.description


def test_bad_shifts_are_refused(tmp_path: Path) -> None:
    assert parse_shifts("excluded, corrupted") == ("excluded", "corrupted")
    with pytest.raises(UserError, match="unknown shift 'fog'"):
        parse_shifts("fog")
    with pytest.raises(UserError, match="no shift was named"):
        parse_shifts(" , ")
    toys.write_bundle(tmp_path / "data", "own", 20, 4)
    with pytest.raises(UserError, match="not those of own"):
        target_tests("own", ["shifted"], toys.context(tmp_path / "runs", data=tmp_path / "data"))


# ---------------------------------------------------------------------------------------- class maps


def test_corpus_classes_are_mapped_by_name() -> None:
    names = ["convertible", "lion", "robin", "crane", "teapot", "sorrel"]
    members = class_mapping.class_map("cifar10", CIFAR10_CLASSES, names)
    assert members.shape == (10, 6)
    found = {(int(k), int(j)) for k, j in torch.nonzero(members)}
    assert found == {(1, 0), (3, 1), (2, 2), (7, 5)}  # "crane" is a bird and a machine
    synthetic = class_mapping.class_map("synthetic", ("plain disc", "striped square"), ["dotted square", "dotted disc"])
    assert synthetic.tolist() == [[False, True], [True, False]]
    with pytest.raises(UserError, match="no map"):
        class_mapping.class_map("cifar100", ("a",), ("b",))


def test_mapped_scores_are_maximum_mean_and_sum_of_probabilities() -> None:
    members = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    logits = torch.tensor([[1.0, 0.0, 1.2]])
    p = logits.softmax(1)[0].double()
    for rule, first in (("max", p[0]), ("sum", p[0] + p[1]), ("mean", (p[0] + p[1]) / 2)):
        found = class_mapping.mapped_scores(logits, members, rule)[0]
        assert found[0] == pytest.approx(float(first), rel=1e-6)
        assert found[1] == pytest.approx(float(p[2]), rel=1e-6)
        assert found[2] == -torch.inf
    assert class_mapping.mapped_scores(logits, members).argmax() == 1
    assert class_mapping.mapped_scores(logits, members, "sum").argmax() == 0
    with pytest.raises(UserError, match="unknown rule"):
        class_mapping.mapped_scores(logits, members, "median")


def test_class_map_loss_takes_the_likeliest_member_as_the_target() -> None:
    members = torch.tensor([[True, True, False], [False, False, True]])
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.0, -1.0]])
    loss = class_mapping.class_map_loss(members)
    value = loss(lambda images: logits, torch.zeros(2), torch.tensor([0, 1]), torch.arange(2))
    assert float(value) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0, 2]))), rel=1e-6)


def test_replayed_images_of_the_class_map_have_their_own_label() -> None:
    members = torch.tensor([[True, True, False], [False, False, True]])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 4, 10, 11])
    value = class_mapping.class_map_loss(members, old_labels_from=10)(lambda images: logits, labels, labels, indices)
    first = int(logits[0, :2].argmax())
    expected = F.cross_entropy(logits[:2], torch.tensor([first, 2])) + F.cross_entropy(logits[2:], labels[2:])
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_two_headed_loss_is_the_sum_of_both_mean_cross_entropies() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.tensor([0, 2, 3, 1, 0]), torch.tensor([0, 1, 12, 10, 2])
    value = class_mapping.two_headed_loss(4, 10)(lambda images: logits, torch.zeros(5), labels, indices)
    new = F.cross_entropy(logits[[0, 1, 4], 4:], labels[[0, 1, 4]])
    old = F.cross_entropy(logits[[2, 3], :4], labels[[2, 3]])
    assert float(value) == pytest.approx(float(new + old), rel=1e-6)
    alone = class_mapping.two_headed_loss(4, 10)(lambda images: logits[:1], torch.zeros(1), labels[:1], indices[:1])
    assert float(alone) == pytest.approx(float(F.cross_entropy(logits[:1, 4:], labels[:1])), rel=1e-6)


def test_an_extended_head_keeps_its_classes_and_a_completed_map_uses_the_new_ones() -> None:
    members = torch.tensor([[False, False], [True, False], [False, False]])
    every = class_mapping.completed(members)
    assert every.tolist() == [[False, False, True, False], [True, False, False, False], [False, False, False, True]]
    assert torch.equal(class_mapping.completed(every), every)
    network = build("wrn-10-1", 2, 0.0, 0).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = network(images)
    assert class_mapping.extend_head(network, 2, seed=1) is network
    assert network(images).shape == (3, 4)
    assert torch.allclose(network(images)[:, :2], before)
    assert isinstance(head(network), nn.Linear)
    assert class_mapping.extend_head(network, 0, seed=1)(images).shape == (3, 4)
