"""Trainings that are evaluated on the way, replay, weight space, difficulty, and the testbed's models."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.experiments import fine_tuning
from robustness_lib.experiments.fine_tuning import Evaluations, cross_validated_scores, fit, fit_head
from robustness_lib.experiments.shifted_test_sets import ORIGINAL, TargetTests, target_tests
from robustness_lib.methods import baseline_models, example_difficulty
from robustness_lib.methods.example_difficulty import C_SCORES, c_scores, chosen_by_difficulty
from robustness_lib.methods.fine_tuning import (
    Features,
    at_size,
    head_penalty_loss,
    interpolated,
    public_features,
    renew_statistics,
    with_replay,
)
from robustness_lib.models.architectures import build, features, head
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, Training
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict

RECIPE = TrainingConfig(
    architecture="wrn-10-1",
    train_images=60,
    epochs=2,
    batch_size=20,
    learning_rate=0.02,
    schedule="constant",
    observations=2,
    early_looks=1,
    crop_padding=0,
    flip=False,
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return toys.context(tmp_path / "runs")


@pytest.fixture
def sets(context: Context) -> TargetTests:
    return target_tests("synthetic", ["shifted"], context, original=20, shifted=10)


def training(recipe: TrainingConfig = RECIPE, variant: str = "toy") -> Training:
    return Training(dataset="synthetic", init="scratch", seed=0, recipe=recipe, variant=variant)


def fresh() -> nn.Module:
    return build("wrn-10-1", 10, 0.0, 0)


# ---------------------------------------------------------------------------------------- fit


def test_what_is_seen_is_what_the_network_says(context: Context, sets: TargetTests) -> None:
    evaluations = fit(training(), sets, context, start=fresh)
    assert evaluations.epochs.tolist() == [2 / 3, 1, 2]  # after 2 of 3 updates, rounded from a half
    shapes = {name: part.shape for name, part in evaluations.scores.items()}
    assert shapes == {
        ORIGINAL: (3, 20, 10),
        "shifted": (3, 10, 10),
    }
    network = fresh()
    network.load_state_dict(dict(evaluations.weights))
    for name, images in {ORIGINAL: sets.original, "shifted": sets.shifted["shifted"]}.items():
        logits = predict(network, images, "half", context.runtime)
        assert np.allclose(evaluations.scores[name][-1], logits.numpy(), atol=1e-5)


def test_it_is_read_the_second_time(context: Context, sets: TargetTests) -> None:
    first = fit(training(), sets, context, start=fresh)

    def start() -> nn.Module:
        raise AssertionError("trained twice")

    again = fit(training(), sets, context, start=start)
    assert np.array_equal(first.scores["shifted"], again.scores["shifted"])
    other = fit(training(variant="other"), sets, context, start=lambda: build("wrn-10-1", 10, 0.0, 9))
    assert not np.array_equal(first.scores["shifted"], other.scores["shifted"])


# ---------------------------------------------------------------------------------------- last layer


def test_a_linear_layer_on_fixed_features_is_that_of_the_whole_loop(context: Context, sets: TargetTests) -> None:
    recipe = dataclasses.replace(RECIPE, nesterov=False, weight_decay=1e-4, learning_rate=0.1)
    evaluations = fit_head(training(recipe), sets, context, extractor=lambda: Features(fresh()))
    frozen = dataclasses.replace(recipe, trainable="head")

    def start() -> nn.Module:
        from robustness_lib.models.architectures import new_head

        return new_head(fresh().eval(), 10, 0)

    whole = fit(training(frozen, "whole"), sets, context, start=start)
    assert evaluations.epochs.tolist() == whole.epochs.tolist() == [2 / 3, 1, 2]
    for name, scores in evaluations.scores.items():
        assert np.allclose(scores, whole.scores[name], atol=2e-3), name
    assert not np.allclose(evaluations.scores[ORIGINAL][0], evaluations.scores[ORIGINAL][1], atol=1e-3)


def test_the_layer_needs_a_constant_rate_and_says_when_it_diverges(context: Context, sets: TargetTests) -> None:
    cosine = dataclasses.replace(RECIPE, schedule="cosine")
    with pytest.raises(UserError, match="constant rate"):
        fit_head(training(cosine), sets, context, extractor=lambda: Features(fresh()))
    with pytest.raises(UserError, match="diverged in epoch"):
        fit_head(
            training(dataclasses.replace(RECIPE, learning_rate=1e30)),
            sets,
            context,
            extractor=lambda: Features(fresh()),
        )


# ---------------------------------------------------------------------------------------- other networks


@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_torchvision_networks_see_enlarged_images(name: str) -> None:
    network = at_size(build(name, 10, 0.0, 0), 64).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        large = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
        assert list(network.state_dict()) == [f"network.{key}" for key in network.network.state_dict()]
        assert torch.allclose(network(images), network.network(large))
        found = Features(network)(images)
        assert torch.allclose(found, features(network.network, large))
        assert torch.allclose(head(network)(found), network(images), atol=1e-5)
    assert at_size(network, 0) is network


def test_features_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []

    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        made.append((name, pretrained, num_classes))
        if name == "no":
            raise RuntimeError("Unknown model (no)")
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    network = public_features("resnetv2_50x1_bit.goog_in21k", 48)
    assert network(torch.ones(2, 3, 32, 32)).shape == (2, 3)
    assert made == [("resnetv2_50x1_bit.goog_in21k", True, 0)]
    with pytest.raises(UserError, match=r"cannot provide no \(Unknown model"):
        public_features("no", 0)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="that timm is installed"):
        public_features("any", 0)


# ---------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("ratio", [1, 3])
def test_every_batch_has_the_target_s_and_replayed_images_in_their_ratio(ratio: int) -> None:
    target, old = toys.images(25, 4), toys.images(10, 7, seed=1)
    both, recipe, sampler = with_replay(target, old, dataclasses.replace(RECIPE, batch_size=10), ratio)
    assert len(both) == 35
    assert both.num_classes == 7
    assert torch.equal(both.labels[25:], old.labels)
    assert recipe.batch_size == 10 * (1 + ratio)
    order = sampler(1, generator(0, "order", 1))
    assert len(order) == 25 * (1 + ratio)
    for part, size in zip(order.split(recipe.batch_size), (10, 10, 5), strict=True):
        assert int((part < 25).sum()) == size
        assert int((part >= 25).sum()) == size * ratio
    assert sorted(order[order < 25].tolist()) == list(range(25))
    assert torch.bincount(order[order >= 25] - 25).max() <= -(-25 * ratio // 10)
    assert not torch.equal(order, sampler(2, generator(0, "order", 2)))


# ---------------------------------------------------------------------------------------- weight space


def test_between_two_networks(context: Context) -> None:
    one, other = build("wrn-10-1", 3, 0.0, 0), build("wrn-10-1", 3, 0.0, 1)
    other.bn1.num_batches_tracked += 7
    ends = [interpolated(one, other.state_dict(), share) for share in (0.0, 1.0)]
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(ends[0][name], value)
            assert torch.allclose(ends[1][name], other.state_dict()[name])
            middle = interpolated(one, other.state_dict(), 0.25)[name]
            assert torch.allclose(middle, 0.75 * value + 0.25 * other.state_dict()[name])
        else:
            assert torch.equal(ends[0][name], other.state_dict()[name])


def test_renewed_statistics_are_those_of_the_images(context: Context) -> None:
    network, data = build("wrn-10-1", 3, 0.0, 0), toys.images(40)
    renew_statistics(network, data, dataclasses.replace(RECIPE, batch_size=40), "cpu")
    assert not network.training
    evaluations: list[Tensor] = []
    network.block1.layer[0].bn1.register_forward_pre_hook(lambda module, inputs: evaluations.append(inputs[0]))
    predict(network, data, "half", context.runtime)
    values = torch.cat(evaluations)
    norm = network.block1.layer[0].bn1
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, values.var((0, 2, 3)), atol=1e-3)


def test_head_penalty_is_the_squared_distance_from_where_it_was() -> None:
    network = build("wrn-10-1", 3, 0.0, 0)
    loss = head_penalty_loss(network, lambda *_: torch.tensor(2.0), 0.5)
    nothing = torch.zeros(1)
    assert float(loss(network, nothing, nothing, nothing).detach()) == 2
    with torch.no_grad():
        head(network).weight += 0.1
        head(network).bias -= 0.2
    away = 0.01 * head(network).weight.numel() + 0.04 * 3
    assert float(loss(network, nothing, nothing, nothing).detach()) == pytest.approx(2 + 0.5 * away, rel=1e-5)


# ---------------------------------------------------------------------------------------- difficulty


def test_the_easiest_and_the_hardest_of_every_class() -> None:
    labels = torch.arange(12) % 3
    scores = np.arange(12) / 12
    assert chosen_by_difficulty(labels, scores, 6, "hard").tolist() == [0, 1, 2, 3, 4, 5]
    assert chosen_by_difficulty(labels, scores, 6, "easy").tolist() == [6, 7, 8, 9, 10, 11]
    assert chosen_by_difficulty(labels, np.zeros(12), 3, "easy").tolist() == [0, 1, 2]
    for count in (5, 15, 0):
        with pytest.raises(UserError, match="cannot be chosen equally"):
            chosen_by_difficulty(labels, scores, count, "easy")


def test_ever_harder_images() -> None:
    labels, scores = torch.arange(40) % 2, np.arange(40) / 40
    sampler = example_difficulty.hardening(labels, scores, epochs=4, last=10)
    for epoch, left in enumerate((20, 15, 10, 5), start=1):
        order = sampler(epoch, generator(0, "order", epoch))
        assert len(set(order.tolist())) == 10
        assert torch.bincount(labels[order]).tolist() == [5, 5]
        assert int(order.max()) < 2 * left  # the hardest come first in this file
    assert sorted(sampler(4, generator(0, "order", 4)).tolist()) == list(range(10))
    assert len(sampler(1, generator(0, "order", 1))) == len(
        example_difficulty.hardening(labels, scores, 1, 10)(1, generator(0))
    )
    with pytest.raises(UserError, match="cannot be chosen equally"):
        example_difficulty.hardening(labels, scores, 4, 41)


def test_cross_validated_scores_tell_spoilt_images_and_are_kept(context: Context) -> None:
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


def test_published_c_scores(tmp_path: Path) -> None:
    data = toys.images(6, 3)
    with pytest.raises(UserError, match=r"cross-validated score with --set difficulty"):
        c_scores(data, tmp_path)
    path = tmp_path / C_SCORES
    path.parent.mkdir()
    np.savez(path, scores=np.linspace(0, 1, 6), labels=data.labels.numpy())
    assert c_scores(data, tmp_path).tolist() == np.linspace(0, 1, 6).tolist()
    np.savez(path, scores=np.linspace(0, 1, 6), labels=np.zeros(6, int))
    with pytest.raises(UserError, match="other labels"):
        c_scores(data, tmp_path)
    assert example_difficulty.EXAMPLES[0] == "random"


# ---------------------------------------------------------------------------------------- testbed


@pytest.mark.parametrize("name", baseline_models.PIXEL_MODELS)
def test_models_of_pixels_learn_and_score_every_class(name: str) -> None:
    data, new = toys.images(300, 4, seed=5), toys.images(60, 4, seed=6)
    wider = ImageDataset("wider", data.images, data.labels, (*data.class_names, "absent"))
    score = baseline_models.fit_pixel_model(name, wider, seed=0)
    found = score(ImageDataset("new", new.images, new.labels, wider.class_names))
    assert found.shape == (60, 5)
    assert (found[:, 4] == -torch.inf).all()
    assert float((found.argmax(1) == new.labels).double().mean()) > 0.45  # chance is 0.25
    again = baseline_models.fit_pixel_model(name, wider, seed=0)(wider)
    assert torch.equal(again, score(wider))


def test_a_model_without_a_network_is_fitted_once(context: Context, sets: TargetTests) -> None:
    fitted: list[int] = []

    def score() -> object:
        fitted.append(1)
        return lambda images: torch.arange(len(images))[:, None].float().expand(-1, 10)

    first, again = (
        fine_tuning.fit_without_network(training(), sets, context, score=score)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert fitted == [1]
    assert isinstance(first, Evaluations)
    assert np.array_equal(first.scores["shifted"], again.scores["shifted"])
    assert first.scores["shifted"][0, :, 0].tolist() == list(range(10))
