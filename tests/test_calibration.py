"""The calibration section: its jobs, what it measures, and what it keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

from robustness_lib.data import ImageDataset, class_balanced_subset, load
from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, hyperparameter_search, registry
from robustness_lib.experiments.calibration import CalibrationConfig
from robustness_lib.metrics import calibration as metrics
from robustness_lib.models.architectures import build
from robustness_lib.runner import comparison, model_cache, records
from robustness_lib.runner.model_cache import Context, Training, held_out_split, save_trained, target_images, trained
from robustness_lib.runner.records import SCRATCH, Job, Store
from robustness_lib.runner.sweep import perform, sweep
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import History, predict

PLAIN_METRICS = {
    "error",
    "rms_calibration_error",
    "mad_calibration_error",
    "rms_calibration_error_dropped_bin",
    "mad_calibration_error_dropped_bin",
    "expected_calibration_error",
    "negative_log_likelihood",
    "brier_score",
}
CURVES = {
    "reliability_confidence",
    "reliability_accuracy",
    "history_epoch",
    "history_error",
    "history_rms_calibration_error",
}
SETTINGS = {"train_images": "40", "epochs": "2", "observations": "2", "batch_size": "20", "bin_size": "20"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    toys.write_bundle(tmp_path / "data", "own", 60, 4)
    return tmp_path / "data"


@pytest.fixture
def context(root: Path, tmp_path: Path) -> Context:
    """A store with a checkpoint called ``tiny``, of another task."""
    save_trained(tmp_path / "runs" / "checkpoints" / "tiny.safetensors", build("wrn-10-1", 7, 0.0, 1), History(), {})
    return toys.context(tmp_path / "runs", data=root)


def own_jobs(**changes: str) -> list[Job]:
    return calibration.jobs("smoke", datasets=["own"], seeds=[0], overrides=SETTINGS | changes, init="tiny")


def own_job(init: str = SCRATCH, method: str = "standard", **changes: str) -> Job:
    [job] = [job for job in own_jobs(**changes) if (job.init, job.method) == (init, method)]
    return job


# ---------------------------------------------------------------------------------------- jobs


def test_what_a_profile_plans_and_what_is_a_trial() -> None:
    def one(section: str, method: str, **selection: Any) -> Job:
        jobs = registry.section(section).jobs("cpu", datasets=["cifar10"], methods=[method], seeds=[0], **selection)
        return jobs[-1]

    other = "wrn-16-1_imagenet32-no-cifar10_144900x249_e10_s1_0e7f85"
    planned = (
        one("calibration", "standard"),
        one("label_noise", "none"),
        one("label_noise", "none-excluded", init=other),
    )
    assert all(registry.is_planned(job) for job in planned)
    trials = (
        one("calibration", "standard", init=other),
        one("calibration", "standard", overrides={"epochs": "3"}),
        one("calibration", "standard", overrides={"pretraining.epochs": "3"}),
        one("label_noise", "none", chosen_levels=[0.35]),
        one("label_noise", "none-excluded", init=other, overrides={"epochs": "7"}),
    )
    assert not any(registry.is_planned(job) for job in trials)
    changes = {"draw_images": "1000", "ood_sets": "gaussian:textures"}
    jobs = registry.section("ood").jobs("paper", datasets=["cifar10"], seeds=[0], init=other, overrides=changes)
    assert {job.init for job in jobs} == {SCRATCH, other}
    for job in jobs:
        assert registry.changed_settings(job) == {"draw_images": 1000, "ood_sets": "gaussian:textures"}
    assert [registry.changed_settings(job) for job in planned] == [{}, {}, {}]
    assert registry.changed_settings(one("calibration", "standard", init=other)) == {}


@pytest.mark.parametrize("section", registry.SECTIONS)
def test_every_published_section_can_be_shown(section: str) -> None:
    made = records.load_published(section, Path(__file__).parents[1] / "book/results")
    shown = comparison.summary([], made)
    assert set(shown["method"]) == {one.job.method for one in made}


def test_changed_images_are_refused(context: Context, root: Path) -> None:
    context.images("own", "train")
    dataclasses.replace(context, _images={}).images("own", "train")
    path = root / "own" / "train.npz"
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez(path, **arrays | {"images": 255 - arrays["images"]})
    later = dataclasses.replace(context, _images={})
    for _ in range(2):  # every job of a sweep is refused, not the first alone
        with pytest.raises(UserError, match=r"own/train have the checksum .* another folder to --store"):
            later.images("own", "train")
    toys.context(context.store.with_name("others"), data=root).images("own", "train")


def test_a_tenth_of_too_few_images_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match=r"9 training images are too few .* set train_images to 10"):
        held_out_split(toys.images(9, 3))


# ---------------------------------------------------------------------------------------- measuring


def test_sweep_measures_all_documented_metrics(context: Context, root: Path) -> None:
    jobs = own_jobs()
    outcome = sweep(jobs, calibration.run, context)
    assert outcome.recorded == jobs
    assert len(jobs) == 4
    store = Store(context.store)
    for job in jobs:
        record = store.get(job)
        assert record is not None
        tempered = {f"{name}_tempered" for name in PLAIN_METRICS} | {"temperature"}
        expected = PLAIN_METRICS | CURVES | (tempered if job.method == "temperature" else set())
        assert set(record.metrics) == expected
        numbers = {name: float(str(record.metrics[name])) for name in expected - CURVES}
        for name, value in numbers.items():
            assert 0 <= value <= {"temperature": 5, "brier_score": 2, "brier_score_tempered": 2}.get(name, 20)
        assert numbers["mad_calibration_error"] <= numbers["rms_calibration_error"] <= 1
        assert record.metrics["history_epoch"] == [1, 2]
        assert len(record.metrics["history_error"]) == 2
        assert record.metrics["history_error"][-1] == pytest.approx(numbers["error"], abs=1e-4)
        last = record.metrics["history_rms_calibration_error"][-1]
        assert last == pytest.approx(numbers["rms_calibration_error"], abs=1e-4)
        assert len(record.metrics["reliability_confidence"]) == len(record.metrics["reliability_accuracy"]) == 3
        assert record.provenance["data"] == {
            f"own/{split}": load("own", split, root).checksum for split in ("test", "train")
        }
        assert record.provenance["precision"] == "float32"


def test_metrics_can_be_computed_again_from_the_kept_outputs(context: Context) -> None:
    job = own_job("tiny", "temperature")
    found = calibration.run(job, context)
    with np.load(context.store / "outputs" / "calibration" / f"{job.key}.npz") as file:
        kept = dict(file)
    assert {name: array.shape for name, array in kept.items()} == {
        "logits": (60, 4),
        "labels": (60,),
        "tuning_logits": (4, 4),
        "tuning_labels": (4,),
    }
    again = metrics.evaluate(kept["logits"], kept["labels"], 20)
    assert {name: found[name] for name in again} == again
    temperature = metrics.tune_temperature(kept["tuning_logits"], kept["tuning_labels"])
    assert found["temperature"] == temperature
    tempered = metrics.evaluate(kept["logits"] / temperature, kept["labels"], 20)
    assert {name: found[f"{name}_tempered"] for name in tempered} == tempered
    assert found["error_tempered"] == found["error"]


def test_the_same_job_gives_the_same_numbers(context: Context, root: Path, tmp_path: Path) -> None:
    job = own_job()
    other = toys.context(tmp_path / "other", data=root)
    assert calibration.run(job, context) == calibration.run(job, other)
    assert calibration.run(job, context) != calibration.run(dataclasses.replace(job, seed=1), context)


# ---------------------------------------------------------------------------------------- the held-out tenth


def test_temperature_holds_out_a_tenth(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    train = model_cache.train

    def watch(network: object, data: object, *arguments: object, **options: object) -> History:
        counts.append(len(data))
        return train(network, data, *arguments, **options)

    monkeypatch.setattr(model_cache, "train", watch)
    for method in ("standard", "temperature"):
        calibration.run(own_job(method=method), context)
    assert counts == [40, 36]


@pytest.mark.parametrize(
    "labels",
    [
        [2] * 40 + [0] * 40 + [1] * 40,
        [2, 0] * 40 + [1] * 10,
        ([0] * 50 + [1] * 50 + [2] * 50) * 2,
    ],
)
def test_a_tenth_of_grouped_labels_has_every_class(labels: list[int]) -> None:
    data = ImageDataset(
        "some", torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), torch.tensor(labels), ("a", "b", "c")
    )
    kept, held = held_out_split(data)
    assert len(held) == len(labels) // 10
    assert set(held.labels.tolist()) == set(kept.labels.tolist()) == set(labels)


def test_held_out_are_the_last_in_file_order() -> None:
    data = toys.images(50, 4)
    kept, held = held_out_split(data)
    assert torch.equal(kept.images, data.images[:45])
    assert torch.equal(held.images, data.images[45:])
    assert torch.equal(held.labels, data.labels[45:])


def test_a_set_sorted_by_class_is_shuffled_first_as_the_authors_do() -> None:
    data = toys.images(40, 4)
    data = data.subset(torch.argsort(data.labels, stable=True))
    kept, held = held_out_split(data)
    order = np.random.RandomState(0).permutation(40)
    assert torch.equal(kept.images, data.images[torch.from_numpy(order[:36])])
    assert torch.equal(held.images, data.images[torch.from_numpy(order[36:])])
    assert len(held.labels.unique()) > 1


# ---------------------------------------------------------------------------------------- networks made once


def training_of(job: Job, **changes: object) -> Training:
    recipe = CalibrationConfig(**job.recipe)
    fields = {"dataset": job.dataset, "init": job.init, "seed": job.seed, "recipe": recipe} | changes
    return Training(**fields)


def test_network_is_trained_once_for_all_jobs_that_need_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    job, finer = own_job(), own_job(bin_size="10")
    assert job.key != finer.key
    first = calibration.run(job, context)
    before = toys.checksum(trained(training_of(job), context).network)

    def forbid(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(model_cache, "train", forbid)
    second = calibration.run(finer, context)
    assert second["error"] == first["error"]
    assert second["reliability_confidence"] != first["reliability_confidence"]
    assert calibration.run(job, context) == first
    assert toys.checksum(trained(training_of(finer), context).network) == before
    assert len(list((context.store / "networks").glob("*"))) == 1


def test_a_record_says_where_its_network_was_trained_if_elsewhere(context: Context) -> None:
    first = perform(calibration.run, own_job(), context)
    assert "trained_on" not in first.provenance
    other = dataclasses.replace(context, runtime=dataclasses.replace(context.runtime, precision="bfloat16"))
    second = perform(calibration.run, own_job(bin_size="10"), other)
    assert second.provenance["precision"] == "bfloat16"
    assert second.provenance["trained_on"] == [f"{first.provenance['device']}, float32"]
    assert "trained_on" not in perform(calibration.run, own_job(bin_size="11"), context).provenance


def test_trained_network_is_that_of_its_logits(context: Context, root: Path) -> None:
    job = own_job()
    calibration.run(job, context)
    result = trained(training_of(job), context)
    logits = predict(result.network, load("own", "test", root), "half", context.runtime).numpy()
    with np.load(context.store / "outputs" / "calibration" / f"{job.key}.npz") as file:
        assert np.array_equal(file["logits"], logits)
    assert result.epochs.tolist() == [1, 2]
    confidence, correct = metrics.confidence_and_correctness(logits, load("own", "test", root).labels)
    np.testing.assert_allclose(result.confidence[-1], confidence, atol=1e-6)
    assert np.array_equal(result.correct[-1], correct)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"init": "tiny"}, {"dataset": "other"}, {"held_out": True}, {"variant": "noise"}],
    ids=lambda change: "-".join(change),
)
def test_key_of_a_training_changes_with_all_that_determines_it(change: dict[str, object]) -> None:
    job = own_job()
    assert training_of(job, **change).key != training_of(job).key
    assert training_of(own_job(bin_size="7")).key == training_of(job).key
    assert training_of(own_job(weight_decay="0")).key != training_of(job).key


def test_damaged_network_is_named(context: Context) -> None:
    job = own_job()
    calibration.run(job, context)
    [path] = (context.store / "networks").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="delete it") as caught:
        calibration.run(job, context)
    assert str(path) in str(caught.value)


def test_subset_is_balanced_in_file_order_and_follows_the_seed(context: Context, root: Path) -> None:
    job = own_job()
    data = load("own", "train", root)
    found = target_images(training_of(job), context)
    assert torch.equal(found.images, data.images[class_balanced_subset(data.labels, 40, 0)])
    assert found.labels.bincount().tolist() == [10] * 4
    assert not torch.equal(found.images, target_images(training_of(job, seed=1), context).images)
    whole = training_of(own_job(train_images="0"))
    assert len(target_images(whole, context)) == 60


def test_more_images_than_there_are_is_one_sentence(context: Context) -> None:
    with pytest.raises(UserError, match="train_images is 61 but own has 60 training images"):
        calibration.run(own_job(train_images="61"), context)


# ---------------------------------------------------------------------------------------- choice of recipes


def test_recipes_are_judged_on_images_that_are_neither_trained_on_nor_tested(
    context: Context, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperparameter_search, "HELD_OUT_IMAGES", 20)
    data = load("own", "train", root)
    recipe = TrainingConfig(architecture="wrn-10-1", train_images=40, epochs=1, batch_size=20)
    judged = hyperparameter_search.left_over(data, class_balanced_subset(data.labels, 40, 0), 0)
    used = target_images(Training(dataset="own", init=SCRATCH, seed=0, recipe=recipe), context)
    rows = [
        {image.numpy().tobytes() for image in part.images} for part in (judged, used, data, load("own", "test", root))
    ]
    assert len(rows[0]) == 20
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[3]
    assert rows[0] | rows[1] == rows[2]
    job = toys.toy_job(0, dataset="own", recipe=recipe.as_dict())
    assert set(hyperparameter_search.run(job, context)) == PLAIN_METRICS
    for images in (41, 0):
        with pytest.raises(UserError, match="smaller train_images"):
            hyperparameter_search.run(dataclasses.replace(job, recipe=job.recipe | {"train_images": images}), context)


def test_a_notebooks_parameters_select_what_is_measured(root: Path, tmp_path: Path) -> None:
    quick = ", ".join(f"{name}={value}" for name, value in SETTINGS.items() if name != "observations")
    asked = {
        "profile": "smoke",
        "dataset": "own",
        "method": "standard",
        "seeds": "3",
        "overrides": f"{quick}, observations=1 pretraining.train_images=80",
        "data_root": str(root),
        "store": str(tmp_path / "runs"),
        "results": "another parameter of the notebook",
    }
    jobs, live = registry.measure_as_asked("calibration", asked)
    assert {(job.dataset, job.method, job.seed, job.recipe["epochs"]) for job in jobs} == {("own", "standard", 3, 2)}
    assert sorted(live["arm"]) == ["pre-trained", "scratch"]
    with pytest.raises(UserError, match="seeds"):
        registry.measure_as_asked("calibration", asked | {"seeds": "3-1"})
    with pytest.raises(UserError, match="no levels"):
        registry.measure_as_asked("calibration", asked | {"levels": "0.5"})
