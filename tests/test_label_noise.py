"""The label noise section: its jobs, its losses and estimates, what it measures, and what the report makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib import paper
from robustness_lib.data import class_balanced_subset, load
from robustness_lib.errors import UserError
from robustness_lib.experiments import label_noise
from robustness_lib.experiments.label_noise import LabelNoiseConfig, noisy_training
from robustness_lib.methods.label_noise import corrupt_labels, corruption_matrix
from robustness_lib.methods.loss_correction import (
    GoldLoss,
    estimate_forward_matrix,
    estimate_glc_matrix,
    forward_loss,
    forward_training_loss,
    matrix_error,
    trusted_split,
)
from robustness_lib.metrics.calibration import area_under_error_curve
from robustness_lib.models.architectures import build
from robustness_lib.models.checkpoints import load_weights
from robustness_lib.runner import model_cache, records
from robustness_lib.runner.model_cache import Context, save_trained, trained
from robustness_lib.runner.records import SCRATCH, Job, Store
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.config import TrainingConfig, learning_rate_at
from robustness_lib.training.trainer import History, predict

CORRECTED = ("forward", "glc-5", "glc-10")
SMALL = {"train_images": "80", "epochs": "1", "observations": "1", "batch_size": "40"}

# ---------------------------------------------------------------------------------------- the area


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("arm", ["scratch", "pre-trained"])
@pytest.mark.parametrize("method", ["none", "forward", "glc-5"])
def test_areas_of_the_papers_curves_are_its_printed_areas(dataset: str, arm: str, method: str) -> None:
    where = {"dataset": dataset, "arm": arm, "method": method}
    curve = paper.select("label_noise", **where, metric="error").sort_values("level")
    [printed] = paper.select("label_noise", **where, metric="error_area", locator="P1 Table 2")["printed"]
    assert f"{100 * area_under_error_curve(curve['level'], curve['value']):.1f}" == printed


def test_area_by_hand() -> None:
    assert area_under_error_curve([0, 0.5, 1], [0.2, 0.4, 1.0]) == pytest.approx(0.15 + 0.35)
    errors = np.linspace(0.1, 0.9, 11) ** 2
    by_hand = 0.1 * (errors[0] / 2 + errors[1:-1].sum() + errors[-1] / 2)
    assert area_under_error_curve(label_noise.STRENGTHS, errors) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("strengths", "message"),
    [([0, 0.5], "rise from 0 to 1"), ([0, 1, 0.5], "rise from 0 to 1"), ([0, 0.5, 1], "the shape of errors is")],
)
def test_area_of_another_range_is_refused(strengths: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        area_under_error_curve(strengths, [0.1] * (len(strengths) if "rise" in message else 2))


# ---------------------------------------------------------------------------------------- Forward correction


def test_forward_loss_by_hand() -> None:
    logits, labels = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    matrix = torch.from_numpy(corruption_matrix(4, 0.7, "flip"))
    each = -(logits.softmax(1) @ matrix)[torch.arange(7), labels].log()
    torch.testing.assert_close(forward_loss(logits, labels, matrix), each.mean())
    torch.testing.assert_close(forward_loss(logits, labels, matrix, reduction="sum"), each.sum())
    torch.testing.assert_close(forward_loss(logits, labels, matrix, reduction="none"), each)
    torch.testing.assert_close(forward_loss(logits, labels, torch.eye(4)), F.cross_entropy(logits, labels))
    half = forward_loss(logits.bfloat16(), labels, matrix)
    assert half.dtype == torch.float32


def test_forward_loss_has_finite_gradients_where_the_matrix_is_zero() -> None:
    logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]], requires_grad=True)
    forward_loss(logits, torch.tensor([0, 0]), torch.eye(2)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", ["uniform", "flip"])
def test_forward_with_the_true_matrix_recovers_the_clean_classifier(kind: str) -> None:
    """With infinitely many examples: the loss is the expectation over all images and labels."""
    clean = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(5, 2.0), size=20))
    matrix = torch.from_numpy(corruption_matrix(5, 0.4, kind))
    noisy = clean @ matrix

    labels = torch.arange(5).repeat(20)

    def best(through: Tensor) -> Tensor:
        logits = torch.zeros(20, 5, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([logits], max_iter=1000, tolerance_change=1e-14, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            each = forward_loss(logits.repeat_interleave(5, dim=0), labels, through, reduction="none")
            total = (noisy.flatten() * each).sum()
            total.backward()
            return total

        optimiser.step(loss)
        return logits.detach().softmax(1)

    torch.testing.assert_close(best(matrix), clean, atol=1e-4, rtol=0)
    torch.testing.assert_close(best(torch.eye(5, dtype=torch.float64)), noisy, atol=1e-4, rtol=0)


def test_forward_estimate_is_the_prediction_for_the_purest_image() -> None:
    table = np.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
    np.testing.assert_array_equal(estimate_forward_matrix(table), table[[0, 2, 2]])


def test_forward_estimate_passes_over_outliers() -> None:
    """Of 100 images the 97th percentile, taken upwards, is the 98th smallest value: it and what is above are left."""
    sure = np.linspace(0.01, 0.99, 100)
    table = np.stack([sure, 1 - sure], axis=1)
    found = estimate_forward_matrix(table, 97)
    np.testing.assert_allclose(found[0], table[96])
    np.testing.assert_allclose(found[1], table[3])
    np.testing.assert_allclose(estimate_forward_matrix(table)[0], table[99])


# ---------------------------------------------------------------------------------------- Gold Loss Correction


def test_glc_estimate_is_the_mean_by_class() -> None:
    table = np.random.default_rng(1).dirichlet(np.ones(3), size=30)
    labels = np.arange(30) % 3
    expected = pd.DataFrame(table).groupby(labels).mean().to_numpy()
    np.testing.assert_allclose(estimate_glc_matrix(table, labels), expected)


def test_glc_estimate_converges_with_the_number_of_trusted_images() -> None:
    """To the true matrix, where the network's predictions are right on average."""
    draw, matrix = np.random.default_rng(2), corruption_matrix(10, 0.6)
    errors = []
    for count in (100, 1_000, 10_000, 100_000):
        labels = np.arange(count) % 10
        table = draw.gamma(5 * matrix[labels])  # normalised below: a Dirichlet draw with the row as its mean
        table /= table.sum(axis=1, keepdims=True)
        errors.append(matrix_error(estimate_glc_matrix(table, labels), matrix))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.005
    assert errors[0] / errors[-1] == pytest.approx(1000**0.5, rel=0.5)  # as the root of the number


def test_trusted_images() -> None:
    labels = torch.tensor([0, 1, 1, 0, 2, 1, 2, 0, 2, 1, 0, 2])
    assert torch.nonzero(trusted_split(labels, 0.5, "first", 0)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.nonzero(trusted_split(labels, 0.5, "balanced", 0)).flatten().tolist() == [0, 1, 2, 3, 4, 6]
    many = labels.repeat(20)
    drawn = [trusted_split(many, 0.25, "random", seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert {int(part.sum()) for part in drawn} == {60}


class Linear(nn.Module):
    """Keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(12, 3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1) @ self.weight


def test_gold_loss_by_hand() -> None:
    images, labels = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    indices = torch.tensor([9, 0, 3, 4, 1, 7])  # positions 0, 3 and 7 are trusted
    trusted = torch.zeros(10, dtype=torch.bool)
    trusted[[0, 3, 7]] = True
    matrix, network = corruption_matrix(3, 0.5), Linear()
    logits = network(images)
    network.seen.clear()
    gold = torch.tensor([False, True, True, False, False, True])
    probabilities = logits.softmax(1) @ torch.from_numpy(matrix).float()
    untrusted_part = -probabilities[~gold, labels[~gold]].log().sum()
    total = untrusted_part + F.cross_entropy(logits[gold], labels[gold], reduction="sum")
    for separate in (True, False):
        loss = GoldLoss(matrix, trusted, batch_size=8, separate_passes=separate)
        torch.testing.assert_close(loss(network, images, labels, indices), total / 8)
        at_hand = GoldLoss(matrix, trusted, batch_size=None, separate_passes=separate)
        torch.testing.assert_close(at_hand(network, images, labels, indices), total / 6)
        assert getattr(loss, "static_shapes", True) is not separate
    sizes = [len(seen) for seen in network.seen]
    assert sizes == [3, 3, 3, 3, 6, 6]
    torch.testing.assert_close(network.seen[0], images[~gold])  # the untrusted part goes first
    torch.testing.assert_close(network.seen[1], images[gold])


def test_gold_loss_of_a_batch_of_one_kind_is_one_pass() -> None:
    images, labels, indices = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]), torch.arange(4)
    network = Linear()
    for trusted in (torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)):
        GoldLoss(np.eye(3), trusted, batch_size=4)(network, images, labels, indices)
    assert [len(seen) for seen in network.seen] == [4, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forward_training_loss([[0.5, 0.4], [0, 1]]), "row 0 of the corruption matrix sums to 0.9"),
        (lambda: GoldLoss([[0.5, 0.4], [0, 1]], torch.ones(1), batch_size=1), "row 0 of the corruption matrix"),
        (lambda: estimate_glc_matrix(np.eye(3)[:2], [0, 1]), "class 2 has no trusted image"),
        (lambda: estimate_glc_matrix(np.eye(3), [0, 1]), r"the shape of labels is \[2\]; give \[3\]"),
        (lambda: estimate_forward_matrix(np.ones((4, 3))), "row 0 of predictions sums to 3 instead of 1"),
        (lambda: estimate_forward_matrix(np.eye(3), 100), "percentile is 100"),
        (lambda: estimate_forward_matrix(np.full((4, 2), 0.5), 97), "filter_outliers=false"),
        (lambda: trusted_split(torch.tensor([0, 0, 0, 1]), 0.5, "first", 0), "hold none of class 1"),
        (lambda: trusted_split(torch.tensor([0, 0, 0, 1]), 0.25, "balanced", 0), "trust at least 0.5 of the images"),
        (lambda: trusted_split(torch.tensor([0, 1]), 1.0, "first", 0), "trusted share is 1.0"),
        (lambda: trusted_split(torch.tensor([0, 1]), 0.5, "best", 0), "first, balanced, random"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- jobs


def one_job(scale: str, method: str, arm: str, **selection: object) -> Job:
    """The one job of a method and arm at seed 0 and strength 0.6, on CIFAR-10 unless told otherwise."""
    settings = {"datasets": ["cifar10"], "seeds": [0], "chosen_levels": [0.6]} | selection
    [job] = [
        job
        for job in label_noise.jobs(scale, methods=[method], **settings)
        if (job.init == SCRATCH) == (arm == "scratch")
    ]
    return job


def test_the_papers_settings() -> None:
    """P1 §3.2 and its code: epochs, learning rates, dropout, normalisation and head of the four kinds of training."""
    table = {
        ("none", "scratch"): (100, 0.1, 1e-6, 0.3, "half", True),
        ("none", "tuned"): (10, 0.001, 1e-6, 0.0, "half", True),
        ("corrected", "scratch"): (100, 0.1, 1e-6, 0.3, "cifar", True),
        ("corrected", "tuned"): (10, 0.01, 1e-7, 0.0, "cifar", False),
    }
    for method in ("none", *CORRECTED):
        for arm in ("scratch", "tuned"):
            recipe = LabelNoiseConfig(**one_job("paper", method, arm).recipe)
            found = (recipe.epochs, recipe.learning_rate, recipe.final_learning_rate, recipe.dropout)
            found += (recipe.normalisation, recipe.head_bias)
            assert found == table[method if method == "none" else "corrected", arm]
            assert (recipe.architecture, recipe.batch_size, recipe.train_images) == ("wrn-40-2", 128, 0)
            assert (recipe.noise, recipe.trusted, recipe.schedule) == ("uniform", "first", "cosine")
            assert recipe.filter_outliers
            assert recipe.separate_passes
            assert recipe.nominal_divisor
    longer = LabelNoiseConfig(**one_job("paper", "longer", "scratch").recipe)
    assert (longer.epochs, longer.schedule, longer.dropout, longer.normalisation) == (200, "step", 0.3, "half")


def test_step_schedule_drops_where_the_paper_says() -> None:
    recipe = TrainingConfig(epochs=200, schedule="step")
    steps = 391
    rates = {
        epoch: {round(learning_rate_at(epoch * steps + k, 200 * steps, recipe), 12) for k in (1, steps)}
        for epoch in (0, 79, 80, 119, 120, 159, 160, 199)
    }
    assert [rates[e] for e in (0, 79)] == [{0.1}] * 2
    assert [rates[e] for e in (80, 119)] == [{0.02}] * 2
    assert [rates[e] for e in (120, 159)] == [{0.004}] * 2
    assert [rates[e] for e in (160, 199)] == [{0.0008}] * 2
    with pytest.raises(UserError, match="cosine, step"):
        TrainingConfig(schedule="steps")


def test_another_kind_of_noise_is_part_of_the_name() -> None:
    job = one_job("cpu", "glc-10", "tuned", overrides={"noise": "flip"})
    assert (job.method, job.level) == ("glc-10-flip", 0.6)


def test_human_labels_have_no_strength() -> None:
    jobs = label_noise.jobs("cpu", datasets=["cifar10n-worse", "cifar100"], methods=["none"], seeds=[0])
    human = [job for job in jobs if job.dataset == "cifar10n-worse"]
    assert [(job.level, job.method, job.recipe["noise"]) for job in human] == [(None, "none", "human")] * 2
    assert len(jobs) == 2 + 22
    same = label_noise.jobs("cpu", datasets=["cifar10"], methods=["none"], seeds=[0], chosen_levels=[0.5])
    assert [job.init for job in human] == [job.init for job in same]


def test_a_strength_of_human_labels_is_refused() -> None:
    with pytest.raises(UserError, match=r"cifar10n-worse: labels that people gave have no strength"):
        label_noise.jobs("cpu", datasets=["cifar10n-worse"], chosen_levels=[0.5])
    both = label_noise.jobs("cpu", datasets=["cifar10", "cifar10n-worse"], methods=["none"], chosen_levels=[0.5])
    assert {(job.dataset, job.level) for job in both} == {("cifar10", 0.5), ("cifar10n-worse", None)}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"chosen_levels": [0.5, 1.5]}, r"corruption strength is 1\.5 but must lie in \[0, 1\]"),
        ({"chosen_levels": [-0.1]}, r"corruption strength is -0\.1"),
        ({"chosen_levels": [0.5], "methods": ["longer"]}, r"nothing to measure.*0\.6"),
        ({"overrides": {"noise": "unifrom"}}, "did you mean 'uniform'"),
        ({"overrides": {"noise": "human"}}, "does not go with the data set cifar10"),
        ({"datasets": ["cifar10n-worse"], "overrides": {"noise": "flip"}}, "annotators gave its labels"),
        ({"overrides": {"trusted": "last"}}, "first, balanced, random"),
        ({"overrides": {"noise_seed": "-1"}}, "noise_seed is -1"),
        ({"overrides": {"observations": "0"}}, "observations is 0"),
    ],
)
def test_unsuitable_choices_are_one_sentence(selection: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        label_noise.jobs("cpu", **selection)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- corrupted labels


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one's own, and one that is named like CIFAR-10, with human labels."""
    folder = tmp_path_factory.mktemp("data")
    toys.write_bundle(folder, "own", 80, 4)
    toys.write_bundle(folder, "cifar10", 80, 4)
    (folder / "cifar10n-worse").mkdir()
    for split in ("train", "test"):
        arrays = dict(np.load(folder / "cifar10" / f"{split}.npz"))
        if split == "train":
            arrays["labels"] = np.where(np.arange(80) % 5 == 0, (arrays["labels"] + 1) % 4, arrays["labels"])
        np.savez(folder / "cifar10n-worse" / f"{split}.npz", **arrays)
    return folder


def make_context(root: Path, store: Path) -> Context:
    """A store with a checkpoint called ``tiny``, of another task."""
    save_trained(store / "checkpoints" / "tiny.safetensors", build("wrn-10-1", 7, 0.0, 1), History(), {})
    return toys.context(store, data=root)


@pytest.fixture
def context(root: Path, tmp_path: Path) -> Context:
    return make_context(root, tmp_path / "runs")


def own_jobs(**selection: object) -> list[Job]:
    overrides = SMALL | dict(selection.pop("overrides", {}))
    settings = {"datasets": ["own"], "chosen_levels": [0.6], "init": "tiny"} | selection
    return label_noise.jobs("smoke", overrides=overrides, **settings)


def own_job(method: str = "none", arm: str = "scratch", **selection: object) -> Job:
    return next(job for job in own_jobs(methods=[method], **selection) if (job.init == SCRATCH) == (arm == "scratch"))


def test_labels_are_the_same_for_both_arms_and_all_methods(context: Context) -> None:
    jobs = own_jobs(methods=["none", *CORRECTED])
    found = [noisy_training(job, context).given.labels for job in jobs]
    assert len(found) == 8
    assert all(torch.equal(labels, found[0]) for labels in found)
    assert not torch.equal(found[0], noisy_training(own_job(seeds=[1]), context).given.labels)
    longer = noisy_training(own_job(overrides={"epochs": "9", "batch_size": "7"}), context)
    assert torch.equal(longer.given.labels, found[0])


def test_seed_zero_has_the_noise_of_the_papers_seed(context: Context) -> None:
    noise = noisy_training(own_job(), context)
    true = load("own", "train", context.data).labels
    assert torch.equal(noise.true.labels, true)
    matrix = corruption_matrix(4, 0.6)
    for seed, expected in ((0, 1), (4, 5)):
        given = noisy_training(own_job(seeds=[seed]), context).given.labels
        assert given.tolist() == corrupt_labels(true, matrix, expected).tolist()
    fixed = noisy_training(own_job(seeds=[4], overrides={"noise_seed": "1"}), context)
    assert torch.equal(fixed.given.labels, noise.given.labels)
    np.testing.assert_allclose(noise.matrix, matrix)


def test_a_subset_is_drawn_by_true_labels_and_corrupted_in_file_order(context: Context) -> None:
    noise = noisy_training(own_job(overrides={"train_images": "40"}), context)
    data = load("own", "train", context.data)
    chosen = class_balanced_subset(data.labels, 40, 0)
    assert torch.equal(noise.true.images, data.images[chosen])
    assert noise.true.labels.bincount().tolist() == [10] * 4
    expected = corrupt_labels(data.labels[chosen], corruption_matrix(4, 0.6), 1)
    assert noise.given.labels.tolist() == expected.tolist()


def test_human_labels_are_those_of_the_images(context: Context) -> None:
    job = own_job(datasets=["cifar10n-worse"], chosen_levels=None, overrides={"train_images": "40"})
    noise = noisy_training(job, context)
    data = load("cifar10", "train", context.data)
    people = load("cifar10n-worse", "train", context.data).labels
    chosen = class_balanced_subset(data.labels, 40, 0)
    assert torch.equal(noise.true.images, data.images[chosen])
    assert torch.equal(noise.true.labels, data.labels[chosen])
    assert torch.equal(noise.given.labels, people[chosen])
    found = label_noise.run(job, context)
    assert found["changed_labels"] == pytest.approx(float((people[chosen] != data.labels[chosen]).double().mean()))
    assert set(context.take_used_data()) == {"cifar10/test", "cifar10/train", "cifar10n-worse/train"}


# ---------------------------------------------------------------------------------------- measuring

NUMBERS = {"error", "train_error", "train_error_clean", "changed_labels"}
CURVES = {"history_epoch", "history_error", "history_train_error", "history_train_error_clean"}
MATRICES = {"estimated_matrix", "true_matrix"}


@pytest.fixture(scope="module")
def measured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Job], Context]:
    """Both ends of the range at two seeds for what has one network a stage, and all methods at some strength."""
    context = make_context(root, tmp_path_factory.mktemp("measured"))
    jobs = own_jobs(chosen_levels=[0, 1], methods=["none", "forward"], seeds=[0, 1])
    jobs += own_jobs(chosen_levels=[0.6], methods=[*CORRECTED, "longer"])
    outcome = sweep(jobs, label_noise.run, context)
    outcome.check()
    return jobs, context


def metrics_of(job: Job, context: Context) -> records.Metrics:
    record = Store(context.store).get(job)
    assert record is not None
    return record.metrics


def test_every_job_has_the_documented_metrics(measured: tuple[list[Job], Context]) -> None:
    jobs, context = measured
    for job in jobs:
        found = metrics_of(job, context)
        estimates = MATRICES | {"matrix_error"} if job.method in CORRECTED else set()
        assert set(found) == NUMBERS | CURVES | estimates
        assert all(0 <= float(str(found[name])) <= 1 for name in NUMBERS)
        assert found["history_epoch"][-1] == job.recipe["epochs"]
        for name in ("error", "train_error", "train_error_clean"):
            assert found[f"history_{name}"][-1] == pytest.approx(found[name], abs=1e-5)
        if estimates:
            matrices = {name: np.reshape(found[name], (4, 4)) for name in MATRICES}
            np.testing.assert_allclose(matrices["true_matrix"], corruption_matrix(4, job.level or 0), atol=1e-5)
            np.testing.assert_allclose(matrices["estimated_matrix"].sum(axis=1), 1, atol=1e-4)
            expected = matrix_error(matrices["estimated_matrix"], matrices["true_matrix"])
            assert found["matrix_error"] == pytest.approx(expected, abs=1e-4)


def test_errors_are_those_of_the_network(measured: tuple[list[Job], Context]) -> None:
    jobs, context = measured
    job = next(job for job in jobs if (job.method, job.level) == ("none", 1.0))
    noise, found = noisy_training(job, context), metrics_of(job, context)
    recipe = LabelNoiseConfig(**job.recipe)
    network = trained(noise.plain, context, data=noise.given).network
    right = predict(network, noise.true, recipe.normalisation, context.runtime).argmax(1)
    assert found["train_error"] == pytest.approx(float((right != noise.given.labels).double().mean()))
    assert found["train_error_clean"] == pytest.approx(float((right != noise.true.labels).double().mean()))
    with np.load(context.store / "outputs" / "label_noise" / f"{job.key}.npz") as kept:
        assert found["error"] == pytest.approx((kept["logits"].argmax(1) != kept["labels"]).mean())
    assert found["changed_labels"] == pytest.approx(float((noise.true.labels != noise.given.labels).double().mean()))


def test_first_stage_of_forward_is_the_uncorrected_network(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    train = model_cache.train

    def watch(network: nn.Module, data: object, *arguments: object, **options: object) -> History:
        counts.append(len(data))
        return train(network, data, *arguments, **options)

    monkeypatch.setattr(model_cache, "train", watch)
    label_noise.run(own_job("none"), context)
    label_noise.run(own_job("forward"), context)
    assert counts == [80, 80]
    label_noise.run(own_job("forward", overrides={"normalisation": "cifar"}), context)  # another first stage
    assert counts == [80] * 4
    label_noise.run(own_job("glc-10"), context)
    assert counts[4:] == [72, 80]  # the first stage does not see the trusted images
    label_noise.run(own_job("glc-10", overrides={"separate_passes": "true"}), context)
    assert counts[6:] == [80]  # of which only the second makes two passes


def test_each_setting_of_the_corrections_changes_the_network(context: Context) -> None:
    def weights(method: str, **overrides: str) -> str:
        before = set((context.store / "networks").glob("*"))
        label_noise.run(own_job(method, overrides=overrides), context)
        new = set((context.store / "networks").glob("*")) - before
        return max(new, key=lambda path: path.stat().st_mtime_ns).name if new else ""

    assert weights("forward")
    assert weights("forward", filter_outliers="false")
    assert weights("glc-10")
    for name, value in (("separate_passes", "true"), ("nominal_divisor", "false"), ("trusted", "random")):
        assert weights("glc-10", **{name: value}), name
    assert not weights("glc-10")


@pytest.mark.parametrize("method", ["none", "forward"])
def test_network_without_a_head_bias_is_read_back(method: str, context: Context) -> None:
    job = own_job(method, "tuned", overrides={"head_bias": "false"})
    first = label_noise.run(job, context)
    for path in (context.store / "networks").glob("*.safetensors"):
        assert "fc.bias" not in load_weights(path)[0]
    assert label_noise.run(job, context) == first
    biased = own_job(method, "tuned")
    label_noise.run(biased, context)
    assert sum("fc.bias" in load_weights(path)[0] for path in (context.store / "networks").glob("*.safetensors")) > 0


# ---------------------------------------------------------------------------------------- what the report makes of it


def test_recipes_differ_only_in_what_is_compared() -> None:
    """At the small scales, where all methods share their settings."""
    for scale in ("smoke", "cpu"):
        dataset = "synthetic" if scale == "smoke" else "cifar10"
        for arm in ("scratch", "tuned"):
            recipes = [
                LabelNoiseConfig(**one_job(scale, method, arm, datasets=[dataset]).recipe)
                for method in ("none", *CORRECTED)
            ]
            assert all(recipe == recipes[0] for recipe in recipes)
            assert dataclasses.replace(recipes[0], trusted="first") != recipes[0]
