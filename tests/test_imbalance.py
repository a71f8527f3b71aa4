"""The class imbalance section: class sizes, remedies, and what it measures."""

import csv
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from torch.nn import functional as F

from robustness_lib import paper
from robustness_lib.data import ImageDataset, load
from robustness_lib.errors import UserError
from robustness_lib.experiments import hyperparameter_search, imbalance
from robustness_lib.experiments.imbalance import METHODS, evaluate
from robustness_lib.methods import resampling
from robustness_lib.methods.resampling import class_sizes, class_weights, minority_classes, oversample, smote, subsample
from robustness_lib.metrics import Metrics
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.trainer import cross_entropy, predict, weighted_cross_entropy

# Independently computed tables of both laws, for all of P1's exponents and both data sets.
with (Path(__file__).parent / "class_sizes.csv").open() as stream:
    GOLDEN = list(csv.DictReader(stream))


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['classes']}-{row['gamma']}-{row['law']}")
def test_class_sizes_are_the_golden_ones(row: dict[str, str]) -> None:
    largest, smallest = {"10": (5000, 250), "100": (500, 25)}[row["classes"]]
    sizes = class_sizes(int(row["classes"]), float(row["gamma"]), largest, smallest, row["law"])
    assert sizes == [int(size) for size in row["sizes"].split()]
    few = minority_classes(sizes)
    assert few.sum() == int(row["minority"])
    assert few[-int(row["minority"]) :].all()  # the last classes, those with the fewest images


def test_published_errors_fit_only_the_first_law() -> None:
    """The test set is balanced, so the errors imply the error on the other classes, which cannot be negative."""
    implied = {law: [] for law in resampling.LAWS}
    for (_, _, level), rows in paper.select("imbalance", dataset="cifar10").groupby(["arm", "method", "level"]):
        error = rows.set_index("metric")["value"]
        for law, found in implied.items():
            share = minority_classes(class_sizes(10, level, 5000, 250, law)).mean()
            found.append((error["error"] - share * error["minority_error"]) / (1 - share))
    assert len(implied["v1"]) == 35
    assert min(implied["v1"]) > 0
    assert min(implied["v5"]) < -0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 0}, "gamma is 0 but must be above 0"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"law": "v2"}, "unknown size law 'v2'.*v1, v5"),
        ({"smallest": 50}, "smallest is 50 and largest 50"),
        ({"smallest": 0}, "smallest is 0 and largest 50"),
        ({"num_classes": 1}, "num_classes is 1"),
    ],
)
def test_unsuitable_sizes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_sizes(**({"num_classes": 10, "gamma": 1.0, "largest": 50, "smallest": 5} | change))


SIZES = (20, 9, 6)


def shuffled() -> ImageDataset:
    return toys.images(90, 3, size=4).subset(torch.randperm(90, generator=torch.Generator().manual_seed(1)))


def thin() -> ImageDataset:
    return shuffled().subset(subsample(shuffled().labels, SIZES, 0))


def test_subsample_has_exactly_these_sizes_in_file_order_and_keeps_what_fewer_have() -> None:
    labels = shuffled().labels
    chosen = subsample(labels, SIZES, 0)
    assert labels[chosen].bincount().tolist() == list(SIZES)
    assert (chosen.diff() > 0).all()
    assert torch.equal(chosen, subsample(labels, SIZES, 0))
    assert not torch.equal(chosen, subsample(labels, SIZES, 1))
    few, more = (set(subsample(labels, sizes, 3).tolist()) for sizes in ((20, 6, 5), (20, 15, 5)))
    assert few < more
    assert {labels[index].item() for index in more - few} == {1}
    with pytest.raises(UserError, match="31 images of class 2 are asked for but it has 30"):
        subsample(labels, (20, 31, 6), 0)
    with pytest.raises(UserError, match="2 class sizes but labels up to 2"):
        subsample(labels, (20, 10), 0)


def rows(data: ImageDataset) -> np.ndarray:
    return data.images.flatten(1).numpy().astype(np.float64)


def test_oversampling_repeats_images_until_classes_are_equal() -> None:
    data = thin()
    found = oversample(data, 0)
    assert found.labels.bincount().tolist() == [20, 20, 20]
    assert torch.equal(found.images[: len(data)], data.images)
    for label in range(3):
        before = {row.tobytes() for row in rows(data)[data.labels.numpy() == label]}
        after = Counter(row.tobytes() for row in rows(found)[found.labels.numpy() == label])
        assert set(after) == before
    assert max(after.values()) - min(after.values()) > 1  # drawn with replacement, not dealt out in turn
    assert torch.equal(oversample(data, 0).images, found.images)
    assert not torch.equal(oversample(data, 1).images, found.images)


def test_smote_is_that_of_imbalanced_learn_on_raw_pixels() -> None:
    from imblearn.over_sampling import SMOTE  # takes a second

    data = thin()
    state = resampling._random_state(4, "smote")
    expected, labels = SMOTE(k_neighbors=5, random_state=state).fit_resample(rows(data), data.labels.numpy())
    found = smote(data, 5, 4)
    assert np.abs(rows(found) - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(found.labels.numpy(), labels)
    assert torch.equal(found.images[: len(data)], data.images)
    assert torch.equal(found.labels, oversample(data, 0).labels)  # the same places, so the same order in training


def test_smote_needs_more_images_than_neighbours() -> None:
    with pytest.raises(UserError, match="smote_neighbours is 6 but the smallest class has 6 images"):
        smote(thin(), 6, 0)
    with pytest.raises(UserError, match=r"smote_neighbours is 5 but the smallest class has 5 images.*smallest=6"):
        imbalance.jobs("cpu", overrides={"smallest": "5"})
    assert imbalance.jobs("cpu", overrides={"smallest": "5"}, methods=["normal"])


def test_cost_sensitive_loss_is_pytorchs_weighted_cross_entropy() -> None:
    data = thin()
    weights = class_weights(data.labels)
    logits = torch.randn(35, 3, generator=torch.Generator().manual_seed(0))
    loss = weighted_cross_entropy(weights)
    for indices in (torch.arange(35), torch.tensor([1, 1, 30, 7])):
        labels, outputs = data.labels[indices], logits[indices]
        ours = loss(lambda images, outputs=outputs: outputs, data.images[indices], labels, indices)
        expected = F.cross_entropy(outputs, labels, weight=1 / torch.tensor(SIZES).float())
        assert float(ours) == pytest.approx(float(expected), rel=1e-6)
    sums = torch.zeros(3).index_add_(0, data.labels, weights)
    assert sums.tolist() == pytest.approx([float(sums[0])] * 3)
    assert float((sums / torch.tensor(SIZES)).mean()) == pytest.approx(1)


def test_metrics_of_a_case_by_hand() -> None:
    # sizes 8, 3, 1: the mean is 4, so the last two classes are the minority
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    found = evaluate([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 2], labels, [8, 3, 1])
    excess = pytest.approx((0.5 + 0.75 - 0.25) / 3)
    assert found == {
        **{"error": 0.5, "minority_error": 0.625, "majority_error": 0.25, "minority_excess": excess},
        **{"balanced_accuracy": 0.5, "class_error": [0.25, 0.5, 0.75], "class_sizes": [8, 3, 1]},
    }
    assert evaluate([0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1], [8, 3])["balanced_accuracy"] == 0.75
    with pytest.raises(UserError, match="test images have 2 classes and the training images 3"):
        evaluate([0, 1], [0, 1], [8, 3, 1])


def test_recipes_of_the_paper() -> None:
    for job in imbalance.jobs("paper"):
        training = [job.recipe[name] for name in ("architecture", "epochs", "learning_rate", "dropout")]
        assert training == (["wrn-40-2", 100, 0.1, 0.3] if job.init == SCRATCH else ["wrn-40-2", 50, 0.001, 0])
        sizes = job.recipe["largest"], job.recipe["smallest"]
        assert sizes == ((5000, 250) if job.dataset == "cifar10" else (500, 25))


SETTINGS = {"epochs": "1", "batch_size": "20", "largest": "15", "smallest": "7"}
METRICS = {"error", "minority_error", "majority_error", "minority_excess", "balanced_accuracy"}
TINY = "tiny_imagenet32-no-cifar10_4x7_e1_s0_aaaaaa"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A data set called ``own``, 20 images of each of 4 classes, and a checkpoint, :data:`TINY`, of another task."""
    folder = tmp_path_factory.mktemp("imbalance")
    toys.write_bundle(folder / "data", "own", 80, 4, size=8)
    toys.keep_checkpoint(folder / "runs", TINY)
    return toys.context(folder / "runs", data=folder / "data")


def own_jobs(**changes: Any) -> list[Job]:
    chosen = {"datasets": ["own"], "seeds": [0], "chosen_levels": [0.5], "overrides": SETTINGS, "init": TINY}
    return imbalance.jobs("smoke", **chosen | changes)


@pytest.fixture(scope="module")
def measured(context: Context) -> tuple[dict[tuple[str, str], Metrics], dict[tuple[str, str], Any]]:
    """The metrics of all methods, by arm and method, and what each was trained on."""
    metrics: dict[tuple[str, str], Metrics] = {}
    calls: list[dict[str, Any]] = []
    train = imbalance.trained

    def watch(training: Any, context: Context, **options: Any) -> Any:
        calls.append({"key": training.key, **options})
        return train(training, context, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imbalance, "trained", watch)
        for job in own_jobs(methods=list(METHODS)):
            metrics["scratch" if job.init == SCRATCH else "tuned", job.method] = imbalance.run(job, context)
    return metrics, dict(zip(metrics, calls, strict=True))


def test_all_documented_metrics_are_measured(context: Context, measured: Any) -> None:
    test, metrics = load("own", "test", context.data), measured[0]
    jobs = own_jobs(methods=list(METHODS))
    assert len(metrics) == len(jobs) == 9
    for job in jobs:
        found = metrics["scratch" if job.init == SCRATCH else "tuned", job.method]
        curves = {"class_error", "class_sizes"}
        assert set(found) == METRICS | curves | ({"smote_seconds"} if job.method == "smote" else set())
        with np.load(context.store / "outputs" / "imbalance" / f"{job.key}.npz") as kept:
            again = evaluate(kept["logits"].argmax(1), kept["labels"], class_sizes(4, 0.5, 15, 7))
            assert np.array_equal(kept["labels"], test.labels.numpy())
        assert {name: found[name] for name in again} == again
        assert found["balanced_accuracy"] == pytest.approx(1 - found["error"])
    # excluded with the same checkpoint is the network of normal training, and needs no training of its own
    assert len(list((context.store / "networks").iterdir())) == 8


def test_arms_and_methods_share_images_and_order(context: Context, measured: Any) -> None:
    seen, sizes = measured[1], class_sizes(4, 0.5, 15, 7)
    whole = load("own", "train", context.data)
    thinned = whole.images[subsample(whole.labels, sizes, 0)]
    for (arm, method), options in seen.items():
        data = options["data"]
        assert torch.equal(data.images[: len(thinned)], thinned)
        assert data.labels.bincount().tolist() == ([15] * 4 if method in imbalance.ENLARGED else sizes)
        assert (options["loss"] is not cross_entropy) is (method == "cost-sensitive")
        if arm == "tuned" and method != "excluded":
            assert torch.equal(data.images, seen["scratch", method]["data"].images)
            assert options["key"] != seen["scratch", method]["key"]


def test_a_network_is_known_by_all_that_determines_it() -> None:
    settings = [{}, {"law": "v5"}, {"largest": "16"}, {"smallest": "8"}, {"smote_neighbours": "4"}]
    changes = [{"chosen_levels": [1.5]}, {"seeds": [1]}, *({"overrides": SETTINGS | setting} for setting in settings)]
    jobs = [job for change in changes for job in own_jobs(methods=["smote"], **change)]
    assert len({imbalance.training_of(job).key for job in jobs}) == 2 * 7


def test_lengths_on_imbalanced_sets_are_judged_on_images_that_no_exponent_keeps(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = hyperparameter_search.jobs("cpu", methods=["imbalanced"])
    assert {(job.section, job.level) for job in jobs} == {("recipe_choice", 0.2), ("recipe_choice", 2.0)}
    sizes = {level: sum(class_sizes(10, level, 1000, 50)) for level in (0.2, 2.0)}
    trained = [sizes[job.level] * job.recipe["epochs"] for job in jobs if job.init == SCRATCH]
    assert min(trained) == pytest.approx(40_000, rel=0.05)
    assert max(trained) == pytest.approx(200_000, rel=0.05)
    ours = {job.key for job in imbalance.jobs("cpu", datasets=["cifar10"], methods=["normal"], seeds=[0])}
    renamed = {dataclasses.replace(job, section="imbalance", method="normal").key for job in jobs}
    assert len(ours & renamed) == 4, "the recipes of the section are among the candidates"
    monkeypatch.setattr(hyperparameter_search, "HELD_OUT_IMAGES", 16)
    job = own_jobs(methods=["normal"])[0]
    candidate = dataclasses.replace(job, section="recipe_choice", method="imbalanced")
    measured = hyperparameter_search.run(candidate, context)
    data = context.images("own", "train")
    judged = hyperparameter_search.left_over(data, subsample(data.labels, [15] * 4, job.seed), job.seed)
    network, _ = imbalance.fitted(job, context)
    wrong = predict(network, judged, job.recipe["normalisation"], context.runtime).argmax(1) != judged.labels
    assert measured["error"] == pytest.approx(wrong.double().mean().item())
    for other in own_jobs(methods=["normal"], chosen_levels=[0.2, 2.0]):
        sizes = imbalance.ImbalanceConfig.of(other.recipe).sizes(4, other.level)
        used = {image.numpy().tobytes() for image in data.images[subsample(data.labels, sizes, other.seed)]}
        assert not used & {image.numpy().tobytes() for image in judged.images}
