"""The effective robustness section's own trainings: jobs, metrics against a testbed, records."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.experiments import effective_robustness as section
from robustness_lib.experiments import testbed as testbeds
from robustness_lib.experiments.effective_robustness import (
    OWN_METHODS,
    SHARES,
    EffectiveRobustnessConfig,
    jobs,
    metrics_against,
    testbed_metrics,
    whole_testbed_metrics,
)
from robustness_lib.experiments.fine_tuning import Evaluations
from robustness_lib.experiments.shifted_test_sets import ORIGINAL, TargetTests
from robustness_lib.methods import baseline_models
from robustness_lib.metrics.effective_robustness import effective_robustness, fit_line
from robustness_lib.models.architectures import build
from robustness_lib.runner.model_cache import Context, save_trained
from robustness_lib.runner.records import SCRATCH, Job, Store, frame
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.trainer import History

testbed_metrics.__test__ = False  # type: ignore[attr-defined]  # a function of the library, not a test

# ---------------------------------------------------------------------------------------- jobs


def own(scale: str, **selection: object) -> list[Job]:
    return [job for job in jobs(scale, **selection) if not testbeds.is_job(job)]  # type: ignore[arg-type]


def test_what_a_method_changes() -> None:
    standard, low, high, mse, hard, last = (
        EffectiveRobustnessConfig.of(job.recipe)
        for name in ("standard", "low-rate", "high-rate", "mse", "hard", "last-layer")
        for job in own("paper", methods=[name], seeds=[0])
        if job.init != SCRATCH
    )
    assert (standard.learning_rate, low.learning_rate, high.learning_rate) == (0.001, 0.0001, 0.01)
    assert mse == standard
    assert hard == dataclasses.replace(standard, examples="hard", train_images=5000)
    assert (last.batch_size, last.epochs, last.momentum, last.weight_decay) == (4096, 1000, 0, 0)
    for recipe in (standard, hard):
        assert (recipe.schedule, recipe.nesterov, recipe.weight_decay, recipe.batch_size) == (
            "constant",
            False,
            1e-4,
            64,
        )
    assert standard.shifts.startswith("cifar10.1,")


def test_testbed_models_are_the_same_as_a_job_and_as_part_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fit(training: section.Training, *_: object) -> Evaluations:
        asked.append(training.key)
        return Evaluations(np.ones(1), {}, {})

    monkeypatch.setattr(section, "_fit_testbed_model", fit)
    [other, _] = own("smoke", methods=["standard"])
    data = ImageDataset("own", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4), tuple("abcd"))
    tests = TargetTests(data, {"shifted": data}, "some")
    section.testbed_of(other, EffectiveRobustnessConfig.of(other.recipe), tests, Context())
    models = own("smoke", methods=["testbed-model"])
    single = [section._training(job, EffectiveRobustnessConfig.of(job.recipe), tests, "").key for job in models]
    assert asked == single
    assert len(set(single)) == len(baseline_models.TESTBEDS["smoke"])


def test_selections() -> None:
    assert [job.level for job in own("cpu", methods=["testbed-model"], chosen_levels=[3, 5])] == [3, 5]
    assert [job.level for job in own("cpu", methods=["head-penalty"], chosen_levels=[0.5], seeds=[1])] == [0.5]
    assert not own("cpu", methods=["fit-logit"])
    assert {job.method for job in jobs("cpu", methods=["fit-logit", "mse"])} == {"fit-logit", "mse"}
    assert not own("cpu", datasets=["imagenet"])
    assert section.shifts_of(own("smoke")) == ("shifted", "corrupted")
    assert section.shifts_of([]) == ()
    with pytest.raises(UserError, match="unknown method"):
        jobs("cpu", methods=["standrad"])
    with pytest.raises(UserError, match=r"nothing to measure at the levels 0, 1\.5, 99: testbed-model has 1, 2, 3"):
        jobs("cpu", methods=["testbed-model"], chosen_levels=[0, 1.5, 99])
    with pytest.raises(UserError, match="no pre-training for the method fewer-classes"):
        jobs("smoke", methods=["fewer-classes"])
    plain = own("cpu", methods=["mse"], seeds=[0])
    colons = own("cpu", methods=["mse"], seeds=[0], overrides={"shifts": "excluded:included:corrupted"})
    assert [job.key for job in colons] == [job.key for job in plain]  # one measurement, however it is written
    with pytest.raises(UserError, match=r"penalty of -1 .* at least 0"):
        jobs("cpu", methods=["head-penalty"], chosen_levels=[-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shifts": "fog"}, "unknown shift"),
        ({"examples": "odd"}, "unknown choice of examples"),
        ({"difficulty": "guess"}, "unknown score of difficulty"),
        ({"bins": "0"}, "bins is 0"),
        ({"test_images": "-1"}, "test_images is -1"),
        ({"observations": "0"}, "observations is 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        jobs("cpu", methods=["standard"], overrides=changes)


# ---------------------------------------------------------------------------------------- metrics


def scores_right(labels: torch.Tensor, right: np.ndarray, classes: int) -> np.ndarray:
    """Scores [N, K] of a model that is right where ``right`` says so, and else takes the next class."""
    answer = np.where(right, labels.numpy(), (labels.numpy() + 1) % classes)
    return np.eye(classes, dtype=np.float32)[answer]


@pytest.fixture
def sets() -> TargetTests:
    labels = torch.arange(200) % 4
    images = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    data = ImageDataset("own", images, labels, tuple("abcd"))
    return TargetTests(data, {"corrupted": data}, "200 of each")


def model(tests: TargetTests, pairs: list[tuple[float, float]], seed: int = 0) -> Evaluations:
    """A model with these accuracies on original and shifted images at each observation, right on the first images."""
    labels = tests.original.labels
    place = np.arange(200)
    scores = {
        name: np.stack([scores_right(labels, place < round(200 * pair[side]), 4) for pair in pairs])
        for side, name in enumerate((ORIGINAL, "corrupted"))
    }
    return Evaluations(np.arange(len(pairs), dtype=float), scores, {})


PAIRS = [(0.2, 0.15), (0.4, 0.3), (0.6, 0.45), (0.8, 0.7)]


def test_metrics_are_those_of_the_definitions(sets: TargetTests) -> None:
    testbed = [model(sets, [pair]) for pair in PAIRS]
    line = fit_line(*np.array(PAIRS).T)
    looks = [(0.1, 0.3), (0.5, 0.5), (0.7, 0.6), (0.9, 0.8)]
    found = metrics_against(testbed, model(sets, looks), sets)
    beyond = effective_robustness(*np.array(looks).T, line)
    assert found["history_effective_robustness_corrupted"] == pytest.approx(beyond, abs=1e-4)
    assert found["history_accuracy_corrupted"] == found["history_accuracy"] == [0.1, 0.5, 0.7, 0.9]
    assert found["history_shifted_accuracy_corrupted"] == [0.3, 0.5, 0.6, 0.8]
    assert found["slope_corrupted"] == pytest.approx(line.slope)
    assert (found["lowest_corrupted"], found["highest_corrupted"]) == (0.2, 0.8)
    assert beyond[0] > beyond[1]  # but the testbed has no model as weak
    assert found["maximum_effective_robustness"] == pytest.approx(beyond[1])
    assert found["maximum_at_corrupted"] == 1
    assert found["final_effective_robustness"] == pytest.approx(beyond[3])
    assert found["lost_effective_robustness"] == pytest.approx(beyond[1] - beyond[3])
    assert found["accuracy"] == 0.9
    # all are right on the first images, so none is ever right where a better one is wrong
    assert found["dominance_at_maximum"] == found["dominance_at_end"] == [0, 0, 0, 0]
    assert found["hard_images"] == 40
    assert found["hard_share_correct"] == 0
    assert found["final_hard_share_correct"] == pytest.approx(20 / 40)


def test_the_printed_line_is_the_baseline_of_its_shift(sets: TargetTests) -> None:
    """The values of the line at 0.9 and 0.5 are those of PROTOCOL §8.1."""
    own = dataclasses.replace(sets, shifted={"cifar10.1": sets.original})

    def renamed(evaluations: Evaluations) -> Evaluations:
        return Evaluations(
            evaluations.epochs,
            {ORIGINAL: evaluations.scores[ORIGINAL], "cifar10.1": evaluations.scores["corrupted"]},
            {},
        )

    testbed = [renamed(model(sets, [pair])) for pair in PAIRS]
    found = metrics_against(testbed, renamed(model(sets, [(0.9, 0.8), (0.5, 0.5)])), own)
    assert found["history_effective_robustness_cifar10.1"] == pytest.approx([0.8 - 0.794791, 0.116235], abs=1e-4)
    assert (found["slope_cifar10.1"], found["intercept_cifar10.1"]) == (0.8318, -0.4736)
    some = metrics_against(testbed, renamed(model(sets, [(0.5, 0.5)])), own, [0, 2])
    assert some["slope_cifar10.1"] != 0.8318, "for some of the classes no line is printed"


def test_bins_average_neighbouring_looks(sets: TargetTests) -> None:
    testbed = [model(sets, [pair]) for pair in PAIRS]
    looks = [(0.51, 0.45), (0.52, 0.55), (0.7, 0.5)]
    beyond = effective_robustness(*np.array(looks).T, fit_line(*np.array(PAIRS).T))
    assert metrics_against(testbed, model(sets, looks), sets)["maximum_effective_robustness"] == pytest.approx(
        beyond[1]
    )
    wide = metrics_against(testbed, model(sets, looks), sets, bins=10)
    assert wide["maximum_effective_robustness"] == pytest.approx(beyond[:2].mean())


def test_a_network_that_knows_some_classes_alone(sets: TargetTests) -> None:
    testbed = [model(sets, [pair]) for pair in PAIRS]
    found = metrics_against(testbed, model(sets, [(0.5, 0.5)]), sets, [0, 2])
    assert found["accuracy"] == 0.75  # where the answer is another class, both tie and the first is taken
    with pytest.raises(UserError, match="no shift has two classes"):
        metrics_against(testbed, model(sets, [(0.5, 0.5)]), sets, [1])


def test_one_model_and_all_of_them(sets: TargetTests) -> None:
    testbed = [model(sets, [pair]) for pair in PAIRS]
    assert testbed_metrics(testbed[2], sets) == {
        "accuracy": 0.6,
        "accuracy_corrupted": 0.6,
        "shifted_accuracy_corrupted": 0.45,
        "images_corrupted": 200,
        "shifted_images_corrupted": 200,
    }
    whole = whole_testbed_metrics(testbed, sets)
    assert whole["accuracy_corrupted"] == whole["model_accuracy"] == [0.2, 0.4, 0.6, 0.8]
    assert whole["dominance"] == [0] * 6
    assert whole["hard_images"] == 40
    assert whole["model_hard_share_correct"] == pytest.approx([0, 0, 0, 40 / 80])
    for scaling in ("linear", "probit", "logit"):
        assert whole[f"r_squared_corrupted_{scaling}"] == pytest.approx(
            fit_line(*np.array(PAIRS).T, scaling).r_squared  # type: ignore[arg-type]
        )
    with pytest.raises(UserError, match="at least three"):
        whole_testbed_metrics(testbed[:2], sets)


# ---------------------------------------------------------------------------------------- a whole sweep

TINY = {
    "train_images": "60",
    "epochs": "2",
    "batch_size": "30",
    "test_images": "40",
    "shifted_images": "30",
    "replay_images": "40",
    "observations": "2",
}
_TESTBED = [{"model": "ridge", "train_images": 60}, {"model": "bayes", "train_images": 600},
            {"architecture": "wrn-10-1", "train_images": 60, "epochs": 1}]  # fmt: skip


_LEFT = ("low-rate", "high-rate", "replay-100", "zero-shot-sum")
_SWEPT = [name for name, method in OWN_METHODS.items() if method.profiles and name not in _LEFT]
_SWEPT += ["class-map-replay", "hardening"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Job]]:
    """The methods at a tiny scale, on the synthetic set."""
    folder = tmp_path_factory.mktemp("sweep")
    context = toys.context(folder / "runs")
    name = "wrn-10-1_synthetic-source_4000x40_e0_s1_aaaaaa"
    save_trained(context.store / "checkpoints" / f"{name}.safetensors", build("wrn-10-1", 40, 0.0, 1), History(), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(baseline_models.TESTBEDS, "smoke", _TESTBED)
        planned = []
        for method in _SWEPT:
            sizes = ("test_images", "shifted_images", "replay_images")
            kept = sizes if method in ("testbed-model", "own-testbed") else tuple(TINY)
            changes = {key: TINY[key] for key in kept}
            levels = {"head-penalty": [0.01], "testbed-model": range(1, len(_TESTBED) + 1)}.get(method)
            planned += jobs("smoke", methods=[method], seeds=[0], init=name, overrides=changes, chosen_levels=levels)
        outcome = sweep(planned, section.run, context)
        outcome.check()
    return Store(context.store), planned


@pytest.fixture
def live(swept: tuple[Store, list[Job]]) -> pd.DataFrame:
    store, planned = swept
    return frame(record for job in planned if (record := store.get(job)) is not None)


def test_every_method_is_measured(live: pd.DataFrame) -> None:
    assert set(live["method"]) == set(_SWEPT)
    standard = live[live["method"] == "standard"]
    assert set(standard["arm"]) == {"scratch", "pre-trained"}
    for row in live[~live["method"].isin(["testbed-model", "own-testbed"])].to_dict("records"):
        lengths = {len(row[name]) for name in row if name.startswith("history_") and isinstance(row[name], list)}
        assert len(lengths) == 1, row["method"]
        assert -1 <= row["maximum_effective_robustness"] <= 1
        assert len(row["dominance_at_end"]) == len(_TESTBED)


def test_looks_are_where_the_recipe_says(live: pd.DataFrame) -> None:
    [row] = live[(live["method"] == "mse")].to_dict("records")
    assert row["history_epoch"] == [0.5, 1, 2]  # two updates an epoch: a half of them, a quarter is none
    [row] = live[(live["method"] == "wise-ft")].to_dict("records")
    assert row["history_epoch"] == list(SHARES)
    [row] = live[(live["method"] == "zero-shot")].to_dict("records")
    assert row["history_epoch"] == [0]


def test_weight_space_ends_at_the_fine_tuned_network_and_begins_at_zero_shot(live: pd.DataFrame) -> None:
    by = {row["method"]: row for row in live[live["arm"] == "pre-trained"].to_dict("records")}
    path, tuned, zero = by["wise-ft"], by["class-map"], by["zero-shot"]
    assert path["history_accuracy"][0] == zero["history_accuracy"][0]
    assert path["history_accuracy"][-1] == tuned["history_accuracy"][-1]


def test_source_accuracy_is_measured_where_there_is_an_old_head(live: pd.DataFrame) -> None:
    by = {row["method"]: row for row in live[live["arm"] == "pre-trained"].to_dict("records")}
    assert by["replay"]["source_accuracy_before"] == by["standard"]["source_accuracy_before"]
    for name in ("standard", "replay", "replay-10"):
        assert 0 <= by[name]["source_accuracy"] <= 1
    assert np.isnan(by["class-map"].get("source_accuracy", np.nan))


def test_scores_are_kept_and_give_the_same_metrics(swept: tuple[Store, list[Job]]) -> None:
    store, planned = swept
    [job] = [job for job in planned if job.method == "standard" and job.init == SCRATCH]
    record = store.get(job)
    assert record is not None
    path = store.folder / "outputs" / job.section / f"{job.key}.npz"
    with np.load(path) as kept:
        assert kept["epochs"].tolist() == record.metrics["history_epoch"]
        assert kept[ORIGINAL].shape == (3, 40, 10)
        assert kept["shifted"].shape == (3, 30, 10)
        tests = section.target_tests("synthetic", ["shifted"], toys.context(store.folder), original=40, shifted=30)
        right = (kept[ORIGINAL].argmax(-1) == tests.original.labels.numpy()).mean(-1)
    assert right == pytest.approx(record.metrics["history_accuracy"], abs=1e-4)


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    context = toys.context(tmp_path)
    [job] = jobs("smoke", methods=["mse"], seeds=[0], init="timm/any", overrides=TINY)
    with pytest.raises(UserError, match="gives features alone"):
        section.run(job, context)
    for init, changes in (
        ("x_y_z", TINY),
        ("wrn-10-1_synthetic-source_1x1_e1_s0_aaaaaa", {**TINY, "image_size": "64"}),
    ):
        [job] = jobs("smoke", methods=["zero-shot"], seeds=[0], init=init, overrides=changes)
        with pytest.raises(UserError, match="old head"):
            section.run(job, context)
    [job] = jobs(
        "smoke", methods=["zero-shot"], seeds=[0], init="wrn-10-1_synthetic-source_1x1_e1_s0_aaaaaa", overrides=TINY
    )
    with pytest.raises(UserError, match="is neither in"):
        section.run(job, context)


@pytest.mark.parametrize(
    ("network", "classes", "message"),
    [("wrn-10-1", 7, "synthetic-source has 40 classes .*new head"), ("wrn-16-1", 40, "do not fit a trunk")],
)
def test_another_head_or_network_ends_a_job_with_a_sentence(
    network: str, classes: int, message: str, tmp_path: Path
) -> None:
    context = toys.context(tmp_path)
    name = "wrn-10-1_synthetic-source_authors_aaaaaa"
    save_trained(context.store / "checkpoints" / f"{name}.safetensors", build(network, classes, 0.0, 1), History(), {})
    for method in ("zero-shot", "class-map", "replay"):
        [job] = own("smoke", methods=[method], seeds=[0], init=name, overrides=TINY)
        with pytest.raises(UserError, match=message):
            section.run(job, context)


def test_a_missing_corpus_is_said_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "fit", lambda *_, **__: pytest.fail("trained in vain"))
    context = toys.context(tmp_path, data=tmp_path)
    name = "wrn-10-1_imagenet32_authors_aaaaaa"
    save_trained(context.store / "checkpoints" / f"{name}.safetensors", build("wrn-10-1", 7, 0.0, 1), History(), {})
    [job] = [one for one in own("smoke", methods=["seen"], seeds=[0], init=name, overrides=TINY) if one.init == name]
    with pytest.raises(UserError, match="imagenet32"):
        section.run(job, context)


def test_an_unknown_head_is_no_hindrance_to_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(baseline_models.TESTBEDS, "smoke", _TESTBED)
    context = toys.context(tmp_path)
    name = "wrn-10-1_synthetic-source_authors_aaaaaa"
    save_trained(context.store / "checkpoints" / f"{name}.safetensors", build("wrn-10-1", 7, 0.0, 1), History(), {})
    [job] = [one for one in own("smoke", methods=["seen"], seeds=[0], init=name, overrides=TINY) if one.init == name]
    found = section.run(job, context)
    assert "maximum_effective_robustness" in found
    assert "source_accuracy" not in found
