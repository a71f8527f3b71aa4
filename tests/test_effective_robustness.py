"""The effective robustness section's own trainings: jobs, metrics against a testbed, records."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toys

from robustness_lib.errors import UserError
from robustness_lib.experiments import effective_robustness as section
from robustness_lib.experiments import evaluations
from robustness_lib.experiments.effective_robustness import OWN_METHODS, SHARES, EffectiveRobustnessConfig, Tuning, jobs
from robustness_lib.experiments.evaluations import ORIGINAL, Evaluations, TargetTests, target_tests
from robustness_lib.experiments.testbed_comparison import metrics_against, testbed_metrics, whole_testbed_metrics
from robustness_lib.metrics.effective_robustness import effective_robustness, fit_line
from robustness_lib.runner.records import SCRATCH, Job, Store
from robustness_lib.runner.sweep import sweep

testbed_metrics.__test__ = False  # type: ignore[attr-defined]  # a function of the library, not a test


def own(scale: str, **selection: object) -> list[Job]:
    return [job for job in jobs(scale, **selection) if job.method in OWN_METHODS]  # type: ignore[arg-type]


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
    assert (standard.schedule, standard.nesterov, standard.weight_decay) == ("constant", False, 1e-4)
    assert (standard.batch_size, standard.shifts.split(",")[0]) == (64, "cifar10.1")


def test_selections() -> None:
    assert [job.level for job in own("cpu", methods=["testbed-model"], chosen_levels=[3, 5])] == [3, 5]
    assert [job.level for job in own("cpu", methods=["head-penalty"], chosen_levels=[0.5], seeds=[1])] == [0.5]
    assert not own("cpu", methods=["fit-logit"])
    assert {job.method for job in jobs("cpu", methods=["fit-logit", "mse"])} == {"fit-logit", "mse"}
    assert not own("cpu", datasets=["imagenet"])
    plain = own("cpu", methods=["mse"], seeds=[0])
    colons = own("cpu", methods=["mse"], seeds=[0], overrides={"shifts": "excluded:included:corrupted"})
    assert [job.key for job in colons] == [job.key for job in plain]  # one measurement, however it is written


DATA = toys.images(200, 4, size=2)
TESTS = TargetTests({ORIGINAL: DATA, "corrupted": DATA})


def model(*pairs: tuple[float, float], shift: str = "corrupted", classes: list[int] | None = None) -> Evaluations:
    """One with these accuracies on original and shifted images, right on the first ones, else naming the next class."""
    labels, place = DATA.labels.numpy(), np.arange(200)
    scores = {}
    for side, name in enumerate((ORIGINAL, shift)):
        answers = [np.where(place < round(200 * pair[side]), labels, (labels + 1) % 4) for pair in pairs]
        scores[name] = np.eye(4, dtype=np.float32)[np.stack(answers)]
    return Evaluations(np.arange(len(pairs), dtype=float), scores, classes=classes)


PAIRS = [(0.2, 0.15), (0.4, 0.3), (0.6, 0.45), (0.8, 0.7)]
TESTBED = [model(pair) for pair in PAIRS]
LINE = fit_line(*np.array(PAIRS).T)


def test_metrics_are_those_of_the_definitions() -> None:
    observed = [(0.1, 0.3), (0.5, 0.5), (0.7, 0.6), (0.9, 0.8)]
    found = metrics_against(TESTBED, model(*observed), TESTS)
    beyond = effective_robustness(*np.array(observed).T, LINE)
    assert found["history_effective_robustness_corrupted"] == pytest.approx(beyond, abs=1e-4)
    assert found["history_accuracy_corrupted"] == found["history_accuracy"] == [0.1, 0.5, 0.7, 0.9]
    assert found["history_shifted_accuracy_corrupted"] == [0.3, 0.5, 0.6, 0.8]
    assert found["slope_corrupted"] == pytest.approx(LINE.slope)
    assert (found["lowest_corrupted"], found["highest_corrupted"]) == (0.2, 0.8)
    assert beyond[0] > beyond[1]  # but the testbed has no model as weak
    assert found["maximum_effective_robustness"] == pytest.approx(beyond[1])
    assert found["maximum_at_corrupted"] == 1
    assert found["final_effective_robustness"] == pytest.approx(beyond[3])
    assert found["lost_effective_robustness"] == pytest.approx(beyond[1] - beyond[3])
    assert found["accuracy"] == 0.9
    # all are right on the first images, so none is ever right where a better one is wrong
    assert found["dominance_at_maximum"] == found["dominance_at_end"] == [0, 0, 0, 0]
    assert (found["hard_images"], found["hard_share_correct"]) == (40, 0)
    assert found["final_hard_share_correct"] == pytest.approx(20 / 40)


def test_the_printed_line_is_the_baseline_of_its_shift() -> None:
    """The values of the line at 0.9 and 0.5 are those of PROTOCOL §8.1."""
    tests = TargetTests({ORIGINAL: DATA, "cifar10.1": DATA})
    testbed = [model(pair, shift="cifar10.1") for pair in PAIRS]
    found = metrics_against(testbed, model((0.9, 0.8), (0.5, 0.5), shift="cifar10.1"), tests)
    assert found["history_effective_robustness_cifar10.1"] == pytest.approx([0.8 - 0.794791, 0.116235], abs=1e-4)
    assert (found["slope_cifar10.1"], found["intercept_cifar10.1"]) == (0.8318, -0.4736)
    some = metrics_against(testbed, model((0.5, 0.5), shift="cifar10.1", classes=[0, 2]), tests)
    assert some["slope_cifar10.1"] != 0.8318, "for some of the classes no line is printed"


def test_bins_average_neighbouring_observations() -> None:
    observed = [(0.51, 0.45), (0.52, 0.55), (0.7, 0.5)]
    beyond = effective_robustness(*np.array(observed).T, LINE)
    for bins, expected in ((100, beyond[1]), (10, beyond[:2].mean())):
        found = metrics_against(TESTBED, model(*observed), TESTS, bins=bins)
        assert found["maximum_effective_robustness"] == pytest.approx(expected)


def test_a_network_that_knows_some_classes_alone() -> None:
    found = metrics_against(TESTBED, model((0.5, 0.5), classes=[0, 2]), TESTS)
    assert found["accuracy"] == 0.75  # where the answer is another class, both tie and the first is taken
    with pytest.raises(UserError, match="no shift has two classes"):
        metrics_against(TESTBED, model((0.5, 0.5), classes=[1]), TESTS)


def test_one_model_and_all_of_them() -> None:
    counts = {"images_corrupted": 200, "shifted_images_corrupted": 200}
    accuracies = {"accuracy": 0.6, "accuracy_corrupted": 0.6, "shifted_accuracy_corrupted": 0.45}
    assert testbed_metrics(TESTBED[2], TESTS) == accuracies | counts
    whole = whole_testbed_metrics(TESTBED, TESTS)
    assert whole["accuracy_corrupted"] == whole["model_accuracy"] == [0.2, 0.4, 0.6, 0.8]
    assert whole["dominance"] == [0] * 6
    assert whole["hard_images"] == 40
    assert whole["model_hard_share_correct"] == pytest.approx([0, 0, 0, 40 / 80])
    for scaling in ("linear", "probit", "logit"):
        expected = fit_line(*np.array(PAIRS).T, scaling).r_squared  # type: ignore[arg-type]
        assert whole[f"r_squared_corrupted_{scaling}"] == pytest.approx(expected)
    with pytest.raises(UserError, match="at least three"):
        whole_testbed_metrics(TESTBED[:2], TESTS)


SIZES = {"test_images": "40", "shifted_images": "30", "replay_images": "40"}
TINY = {**SIZES, "train_images": "60", "epochs": "2", "batch_size": "30", "observations": "2"}
MODELS = [{"model": "ridge", "train_images": 60}, {"model": "bayes", "train_images": 600},
          {"architecture": "wrn-10-1", "train_images": 60, "epochs": 1}]  # fmt: skip
LEFT = ("seen", "low-rate", "high-rate", "easy", "replay-10", "replay-100", "zero-shot-mean", "zero-shot-sum")
SWEPT = [name for name, method in OWN_METHODS.items() if method.profiles and name not in LEFT]
SWEPT += ["class-map-replay", "hardening"]
CHECKPOINT = "wrn-10-1_synthetic-source_4000x40_e0_s1_aaaaaa"


@pytest.fixture(scope="module")
def swept(few_test_images: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Job], pd.DataFrame]:
    """The methods at a tiny scale, on the synthetic set."""
    context = toys.context(tmp_path_factory.mktemp("sweep") / "runs")
    toys.keep_checkpoint(context.store, CHECKPOINT, classes=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(section.TESTBEDS, "smoke", MODELS)
        few = dataclasses.replace(OWN_METHODS["testbed-model"], levels={"smoke": [1.0, 2.0, 3.0]})
        patch.setitem(OWN_METHODS, "testbed-model", few)
        patch.setattr(evaluations, "cross_validated_scores", lambda data, *_: np.linspace(0, 1, len(data)))
        planned = []
        for method in SWEPT:
            changes = SIZES if method in ("testbed-model", "own-testbed") else TINY
            levels = [0.01] if method == "head-penalty" else None
            planned += jobs(
                "smoke", methods=[method], seeds=[0], init=CHECKPOINT, overrides=changes, chosen_levels=levels
            )
        sweep(planned, section.run, context).check()
    store = Store(context.store)
    return store, planned, toys.frame(map(store.get, planned))


def test_every_method_is_measured(swept: tuple[Store, list[Job], pd.DataFrame]) -> None:
    _, _, found = swept
    assert set(found["method"]) == set(SWEPT)
    assert set(found.loc[found["method"] == "standard", "arm"]) == {"scratch", "pre-trained"}
    for row in found[~found["method"].isin(["testbed-model", "own-testbed"])].to_dict("records"):
        lengths = {len(row[name]) for name in row if name.startswith("history_") and isinstance(row[name], list)}
        assert len(lengths) == 1, row["method"]
        assert -1 <= row["maximum_effective_robustness"] <= 1
        assert len(row["dominance_at_end"]) == len(MODELS)
    rows = {row["method"]: row for row in found[found["arm"] == "pre-trained"].to_dict("records")}
    assert rows["mse"]["history_epoch"] == [0.5, 1, 2]  # two updates an epoch: a half of them, a quarter is none
    assert rows["wise-ft"]["history_epoch"] == list(SHARES)
    assert rows["wise-ft"]["history_accuracy"][0] == rows["zero-shot"]["history_accuracy"][0]
    assert rows["wise-ft"]["history_accuracy"][-1] == rows["class-map"]["history_accuracy"][-1]
    assert rows["replay"]["source_accuracy_before"] == rows["standard"]["source_accuracy_before"]
    assert all(0 <= rows[name]["source_accuracy"] <= 1 for name in ("standard", "replay"))
    assert np.isnan(rows["class-map"].get("source_accuracy", np.nan))


def test_networks_are_described_by_what_makes_them(swept: tuple[Store, list[Job], pd.DataFrame]) -> None:
    """One network a job, those of the testbed trained once, and one of ``class-map`` and ``wise-ft``."""
    store, planned, _ = swept
    untrained = {"own-testbed", "zero-shot", "wise-ft"}
    trained = [job for job in planned if job.method not in untrained]
    assert len(list((store.folder / "networks").glob("*.safetensors"))) == len(trained)


def test_scores_are_kept_and_give_the_same_metrics(swept: tuple[Store, list[Job], pd.DataFrame]) -> None:
    store, planned, _ = swept
    [job] = [job for job in planned if job.method == "standard" and job.init == SCRATCH]
    record = store.get(job)
    assert record is not None
    tests = target_tests("synthetic", ["shifted"], toys.context(store.folder), original=40, shifted=30)
    with np.load(store.folder / "outputs" / job.section / f"{job.key}.npz") as kept:
        assert kept["epochs"].tolist() == record.metrics["history_epoch"]
        assert (kept[ORIGINAL].shape, kept["shifted"].shape) == ((3, 40, 10), (3, 30, 10))
        right = (kept[ORIGINAL].argmax(-1) == tests.sets[ORIGINAL].labels.numpy()).mean(-1)
    assert right == pytest.approx(record.metrics["history_accuracy"], abs=1e-4)


UNCOUNTED = "wrn-10-1_synthetic-source_1x1_e1_s0_aaaaaa"
PUBLISHED = "wrn-10-1_synthetic-source_authors_aaaaaa"


@pytest.mark.parametrize(
    ("method", "init", "changes", "there", "message"),
    [
        ("mse", "timm/any", {}, None, "is not tuned whole"),
        ("zero-shot", "x_y_z", {}, None, "old head"),
        ("zero-shot", UNCOUNTED, {"image_size": "64"}, None, "old head"),
        ("zero-shot", UNCOUNTED, {}, None, "is neither in"),
        ("class-map", PUBLISHED, {}, ("wrn-10-1", 7), "has 40 classes .*new head"),
        ("replay", PUBLISHED, {}, ("wrn-16-1", 40), "do not fit a trunk"),
        ("last-layer", SCRATCH, {"schedule": "cosine"}, None, "constant rate"),
        ("seen", "wrn-10-1_imagenet32_authors_aaaaaa", {}, ("wrn-10-1", 7), "imagenet32"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_training(
    method: str,
    init: str,
    changes: dict[str, str],
    there: tuple[str, int] | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluations, "kept", lambda *_, **__: pytest.fail("trained in vain"))
    context = toys.context(tmp_path / "runs", data=tmp_path)
    if there:
        toys.keep_checkpoint(context.store, init, *there)
    [job, *_] = jobs("smoke", methods=[method], seeds=[0], init=init, overrides={**TINY, **changes})
    with pytest.raises(UserError, match=message):
        section.run(dataclasses.replace(job, init=init), context)


def test_an_unknown_head_is_no_hindrance_to_a_new_one(tmp_path: Path) -> None:
    context = toys.context(tmp_path)
    toys.keep_checkpoint(context.store, PUBLISHED)
    [job] = own("smoke", methods=["seen"], seeds=[0], init=PUBLISHED, overrides=TINY)
    tests = target_tests("synthetic", ["shifted"], context, original=20, shifted=10)
    evaluations, further = section._new_head(Tuning(job, tests, context))
    assert evaluations.scores["shifted"].shape == (3, 10, 10)
    assert further == {}
