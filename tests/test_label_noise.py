"""The label noise section: its losses and estimates, its jobs, and what it measures."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch import Tensor
from torch.nn import functional as F

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
    matrix_error,
    trusted_split,
)
from robustness_lib.models.architectures import build
from robustness_lib.runner.model_cache import Context, Training, trained
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.trainer import predict

CORRECTED = ("forward", "glc-5", "glc-10")


def test_forward_loss_by_hand() -> None:
    logits, labels = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    matrix = torch.from_numpy(corruption_matrix(4, 0.7, "flip"))
    each = -(logits.softmax(1) @ matrix)[torch.arange(7), labels].log()
    torch.testing.assert_close(forward_loss(logits, labels, matrix), each.mean())
    torch.testing.assert_close(forward_loss(logits, labels, matrix, reduction="sum"), each.sum())
    torch.testing.assert_close(forward_loss(logits, labels, matrix, reduction="none"), each)
    torch.testing.assert_close(forward_loss(logits, labels, torch.eye(4)), F.cross_entropy(logits, labels))
    assert forward_loss(logits.bfloat16(), labels, matrix).dtype == torch.float32


def test_forward_loss_has_finite_gradients_where_the_matrix_is_zero() -> None:
    logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]], requires_grad=True)
    forward_loss(logits, torch.tensor([0, 0]), torch.eye(2)).backward()
    assert torch.isfinite(logits.grad).all()


def test_forward_estimate_passes_over_outliers() -> None:
    """A row is the prediction for the purest image; of 100 the 98th smallest value, the percentile, is left out."""
    sure = np.linspace(0.01, 0.99, 100)
    table = np.stack([sure, 1 - sure], axis=1)
    found = estimate_forward_matrix(table, 97)
    np.testing.assert_allclose(found[0], table[96])
    np.testing.assert_allclose(found[1], table[3])
    np.testing.assert_allclose(estimate_forward_matrix(table)[0], table[99])


def test_glc_estimate_is_the_mean_by_class() -> None:
    table = np.random.default_rng(1).dirichlet(np.ones(3), size=30)
    labels = np.arange(30) % 3
    expected = pd.DataFrame(table).groupby(labels).mean().to_numpy()
    np.testing.assert_allclose(estimate_glc_matrix(table, labels), expected)


def test_trusted_images() -> None:
    labels = torch.tensor([0, 1, 1, 0, 2, 1, 2, 0, 2, 1, 0, 2])
    assert torch.nonzero(trusted_split(labels, 0.5, "first", 0)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.nonzero(trusted_split(labels, 0.5, "balanced", 0)).flatten().tolist() == [0, 1, 2, 3, 4, 6]
    many = labels.repeat(20)
    drawn = [trusted_split(many, 0.25, "random", seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert {int(part.sum()) for part in drawn} == {60}


def test_gold_loss_by_hand() -> None:
    images, labels = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    indices = torch.tensor([9, 0, 3, 4, 1, 7])  # positions 0, 3 and 7 are trusted
    trusted = torch.zeros(10, dtype=torch.bool)
    trusted[[0, 3, 7]] = True
    matrix, weight, seen = corruption_matrix(3, 0.5), torch.randn(12, 3), []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1) @ weight

    logits = images.flatten(1) @ weight
    gold = torch.tensor([False, True, True, False, False, True])
    probabilities = logits.softmax(1) @ torch.from_numpy(matrix).float()
    untrusted_part = -probabilities[~gold, labels[~gold]].log().sum()
    total = untrusted_part + F.cross_entropy(logits[gold], labels[gold], reduction="sum")
    for separate in (True, False):
        loss = GoldLoss(matrix, trusted, batch_size=8, separate_passes=separate)
        torch.testing.assert_close(loss(network, images, labels, indices), total / 8)
        by_size = GoldLoss(matrix, trusted, batch_size=None, separate_passes=separate)
        torch.testing.assert_close(by_size(network, images, labels, indices), total / 6)
        assert getattr(loss, "static_shapes", True) is not separate
    assert [len(part) for part in seen] == [3, 3, 3, 3, 6, 6]
    torch.testing.assert_close(seen[0], images[~gold])  # the untrusted part goes first
    for all_or_none in (torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.bool)):
        GoldLoss(matrix, all_or_none, batch_size=6)(network, images, labels, indices)
    assert [len(part) for part in seen[6:]] == [6, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GoldLoss(np.eye(2), torch.ones(1).byte(), batch_size=1), "trusted is torch.uint8; give bool"),
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
    with pytest.raises(UserError, match=message):
        call()


def one_job(scale: str, method: str, arm: str, **selection: Any) -> Job:
    """The one job of a method and arm at seed 0 and strength 0.6, on CIFAR-10 unless told otherwise."""
    settings = {"datasets": ["cifar10"], "seeds": [0], "chosen_levels": [0.6]} | selection
    jobs = label_noise.jobs(scale, methods=[method], **settings)
    [job] = [job for job in jobs if (job.init == SCRATCH) == (arm == "scratch")]
    return job


@pytest.mark.parametrize("method", ["none", *CORRECTED])
@pytest.mark.parametrize("arm", ["scratch", "tuned"])
def test_the_papers_settings(method: str, arm: str) -> None:
    """P1 §3.2 and its code: epochs, learning rates, dropout, normalisation and head of the four kinds of training."""
    table = {
        ("none", "scratch"): (100, 0.1, 1e-6, 0.3, "half", True),
        ("none", "tuned"): (10, 0.001, 1e-6, 0.0, "half", True),
        ("corrected", "scratch"): (100, 0.1, 1e-6, 0.3, "cifar", True),
        ("corrected", "tuned"): (10, 0.01, 1e-7, 0.0, "cifar", False),
    }
    config = LabelNoiseConfig(**one_job("paper", method, arm).recipe)
    found = (config.epochs, config.learning_rate, config.final_learning_rate, config.dropout)
    assert (*found, config.normalisation, config.head_bias) == table[method if method == "none" else "corrected", arm]
    assert (config.architecture, config.batch_size, config.train_images) == ("wrn-40-2", 128, 0)
    assert (config.noise, config.trusted, config.schedule) == ("uniform", "first", "cosine")
    assert all((config.filter_outliers, config.separate_passes, config.nominal_divisor))
    for scale, dataset in (("smoke", "synthetic"), ("cpu", "cifar10")):  # there all methods share their settings
        recipes = [one_job(scale, name, arm, datasets=[dataset]).recipe for name in ("none", method)]
        assert recipes[0] == recipes[1]


def test_longer_training_and_another_kind_of_noise() -> None:
    longer = LabelNoiseConfig(**one_job("paper", "longer", "scratch").recipe)
    assert (longer.epochs, longer.schedule, longer.dropout, longer.normalisation) == (200, "step", 0.3, "half")
    assert one_job("cpu", "glc-10", "tuned", overrides={"noise": "flip"}).method == "glc-10-flip"


def test_human_labels_have_no_strength() -> None:
    jobs = label_noise.jobs("cpu", datasets=["cifar10n-worse", "cifar100"], methods=["none"], seeds=[0])
    human = [(job.method, job.level, job.recipe["noise"]) for job in jobs if job.dataset == "cifar10n-worse"]
    assert human == [("none", None, "human")] * 2
    assert [job.level for job in jobs[2:]] == [level for level in label_noise.STRENGTHS for _ in range(2)]
    both = label_noise.jobs("cpu", datasets=["cifar10n-worse", "cifar10"], methods=["none"], chosen_levels=[0.5])
    assert {(job.dataset, job.level) for job in both} == {("cifar10", 0.5), ("cifar10n-worse", None)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one's own, and one that is named like CIFAR-10, with human labels."""
    folder = tmp_path_factory.mktemp("data")
    toys.write_bundle(folder, "own", 80, 4, size=8)
    toys.write_bundle(folder, "cifar10", 80, 4, size=8)
    (folder / "cifar10n-worse").mkdir()
    for split in ("train", "test"):
        arrays = dict(np.load(folder / "cifar10" / f"{split}.npz"))
        if split == "train":
            arrays["labels"] = np.where(np.arange(80) % 5 == 0, (arrays["labels"] + 1) % 4, arrays["labels"])
        np.savez(folder / "cifar10n-worse" / f"{split}.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def context(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A store with a checkpoint called ``tiny``, of another task."""
    store = tmp_path_factory.mktemp("runs")
    toys.keep_checkpoint(store)
    return toys.context(store, data=root)


def own_job(method: str = "none", arm: str = "scratch", **selection: Any) -> Job:
    small = {"train_images": "80", "epochs": "1", "observations": "1", "batch_size": "40"}
    overrides = small | selection.pop("overrides", {})
    return one_job("smoke", method, arm, **{"datasets": ["own"], "init": "tiny", "overrides": overrides} | selection)


def test_labels_are_the_same_for_both_arms_and_all_methods(context: Context) -> None:
    jobs = [own_job(method, arm) for method in ("none", *CORRECTED) for arm in ("scratch", "tuned")]
    jobs.append(own_job(overrides={"epochs": "9", "batch_size": "7"}))
    found = [noisy_training(job, context).given.labels for job in jobs]
    assert all(torch.equal(labels, found[0]) for labels in found)
    assert not torch.equal(found[0], noisy_training(own_job(seeds=[1]), context).given.labels)


def test_seed_zero_has_the_noise_of_the_papers_seed(context: Context) -> None:
    """A subset is drawn by true labels, and corrupted in file order."""
    data, matrix = load("own", "train", context.data), corruption_matrix(4, 0.6)
    for seed, noise_seed, expected in ((0, "none", 1), (4, "none", 5), (4, "1", 1)):
        changes = {"noise_seed": noise_seed, "train_images": "40"}
        noise = noisy_training(own_job(seeds=[seed], overrides=changes), context)
        chosen = class_balanced_subset(data.labels, 40, seed)
        assert torch.equal(noise.true.images, data.images[chosen])
        assert noise.given.labels.tolist() == corrupt_labels(data.labels[chosen], matrix, expected).tolist()
        np.testing.assert_allclose(noise.matrix, matrix)


def test_human_labels_are_those_of_the_images(context: Context) -> None:
    job = own_job(datasets=["cifar10n-worse"], chosen_levels=None, overrides={"train_images": "40"})
    noise = noisy_training(job, context)
    data = load("cifar10", "train", context.data)
    people = load("cifar10n-worse", "train", context.data).labels
    chosen = class_balanced_subset(data.labels, 40, 0)
    assert torch.equal(noise.true.images, data.images[chosen])
    assert torch.equal(noise.true.labels, data.labels[chosen])
    assert torch.equal(noise.given.labels, people[chosen])
    context.take_used_data()
    found = label_noise.run(job, context)
    assert found["changed_labels"] == pytest.approx(float((people[chosen] != data.labels[chosen]).double().mean()))
    assert set(context.take_used_data()) == {"cifar10/test", "cifar10/train", "cifar10n-worse/train"}


NUMBERS = {"error", "train_error", "train_error_clean", "changed_labels"}
CURVES = {"history_epoch", "history_error", "history_train_error", "history_train_error_clean"}
MATRICES = {"estimated_matrix", "true_matrix"}


@pytest.mark.parametrize(
    ("method", "arm"), [("none", "scratch"), ("forward", "tuned"), ("glc-10", "scratch"), ("longer", "scratch")]
)
def test_metrics_are_those_documented_and_of_the_last_network(method: str, arm: str, context: Context) -> None:
    job = own_job(method, arm, overrides={"epochs": "2", "observations": "2", "head_bias": "false"})
    found = label_noise.run(job, context)
    corrected = method in CORRECTED
    assert set(found) == NUMBERS | CURVES | (MATRICES | {"matrix_error"} if corrected else set())
    assert found["history_epoch"] == [1, 2]
    for name in NUMBERS - {"changed_labels"}:
        assert found[f"history_{name}"][-1] == pytest.approx(found[name], abs=1e-5)
    noise = noisy_training(job, context)
    assert found["changed_labels"] == pytest.approx(float((noise.true.labels != noise.given.labels).double().mean()))
    with np.load(context.store / "outputs" / "label_noise" / f"{job.key}.npz") as kept:
        assert found["error"] == pytest.approx((kept["logits"].argmax(1) != kept["labels"]).mean())
    if corrected:
        matrices = {name: np.reshape(found[name], (4, 4)) for name in MATRICES}
        np.testing.assert_allclose(matrices["true_matrix"], corruption_matrix(4, 0.6), atol=1e-5)
        expected = matrix_error(matrices["estimated_matrix"], matrices["true_matrix"])
        assert found["matrix_error"] == pytest.approx(expected, abs=1e-4)
    else:
        network = trained(noise.plain, context, data=noise.given).network
        said = predict(network, noise.true, noise.config.normalisation, context.runtime).argmax(1)
        assert found["train_error"] == pytest.approx(float((said != noise.given.labels).double().mean()))
        assert found["train_error_clean"] == pytest.approx(float((said != noise.true.labels).double().mean()))


def test_glc_can_be_evaluated_within_the_first_epoch(context: Context) -> None:
    job = own_job("glc-10", overrides={"epochs": "1", "observations": "1", "early_looks": "1", "batch_size": "20"})
    assert label_noise.run(job, context)["history_epoch"] == [0.5, 1]


@pytest.fixture
def trainings(context: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, int]]]:
    """The key and the number of images of each training that a job asks for, none of which is made."""
    found: list[tuple[str, int]] = []

    def watch(training: Training, context: Context, *, data: Any, **hooks: Any) -> SimpleNamespace:
        found.append((training.key, len(data)))
        observed = {"correct": np.ones((1, 80)), "epochs": np.ones(1), "further": {}}
        return SimpleNamespace(network=build("wrn-10-1", 4, 0.0, 0), **observed)

    def ask(method: str, **overrides: str) -> list[tuple[str, int]]:
        found.clear()
        label_noise.run(own_job(method, overrides=overrides), context)
        return list(found)

    monkeypatch.setattr(label_noise, "trained", watch)
    return ask


def test_stages_of_the_corrections(trainings: Callable[..., list[tuple[str, int]]]) -> None:
    [plain] = trainings("none")
    first, second = trainings("forward")
    assert first == plain
    assert second[1] == 80
    assert trainings("forward", normalisation="cifar")[0] != plain
    stages = trainings("glc-10")
    assert [count for _, count in stages] == [72, 80]  # the first stage does not see the trusted images
    assert trainings("glc-10") == stages
    assert trainings("glc-10", separate_passes="true")[0] == stages[0]


def test_each_setting_of_the_corrections_changes_the_network(trainings: Callable[..., list[tuple[str, int]]]) -> None:
    settings = [{}, {"separate_passes": "true"}, {"nominal_divisor": "false"}, {"trusted": "random"}]
    assert len({trainings("glc-10", **changes)[-1] for changes in settings} | {trainings("glc-5")[-1]}) == 5
    assert trainings("forward")[-1] != trainings("forward", filter_outliers="false")[-1]
