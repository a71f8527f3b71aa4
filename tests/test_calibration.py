"""The calibration section: its jobs, what it measures, and what it keeps."""

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
from robustness_lib.runner import model_cache
from robustness_lib.runner.model_cache import Context, Training, held_out_split, target_images, trained
from robustness_lib.runner.records import SCRATCH, Job, Record
from robustness_lib.runner.sweep import perform
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import History

PLAIN_METRICS = {
    *("error", "negative_log_likelihood", "brier_score", "expected_calibration_error"),
    *(f"{kind}_calibration_error{variant}" for kind in ("rms", "mad") for variant in ("", "_dropped_bin")),
}
CURVES = {
    *("reliability_confidence", "reliability_accuracy"),
    *("history_epoch", "history_error", "history_rms_calibration_error"),
}
SETTINGS = {"train_images": "40", "epochs": "2", "observations": "2", "batch_size": "20", "bin_size": "20"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toys.write_bundle(folder, "own", 60, 4, size=8)
    return folder


def make_context(root: Path, store: Path) -> Context:
    """A store with a checkpoint called ``tiny``, of another task."""
    toys.keep_checkpoint(store)
    return toys.context(store, data=root)


def own_jobs(**changes: str) -> list[Job]:
    return calibration.jobs("smoke", datasets=["own"], seeds=[0], overrides=SETTINGS | changes, init="tiny")


def own_job(init: str = SCRATCH, method: str = "standard", **changes: str) -> Job:
    [job] = [job for job in own_jobs(**changes) if (job.init, job.method) == (init, method)]
    return job


def test_what_a_profile_plans_and_what_is_a_trial() -> None:
    def one(section: str, method: str, **selection: Any) -> Job:
        selection = {"datasets": ["cifar10"], "methods": [method], "seeds": [0]} | selection
        return registry.section(section).jobs("cpu", **selection)[-1]

    other = "wrn-16-1_imagenet32-no-cifar10_144900x249_e10_s1_0e7f85"
    planned = [one("calibration", "standard"), one("label_noise", "none-excluded", init=other)]
    assert all(registry.is_planned(job) for job in planned)
    trials = [
        one("calibration", "standard", init=other),
        one("calibration", "standard", overrides={"pretraining.epochs": "3"}),
        one("label_noise", "none", chosen_levels=[0.35]),
        one("label_noise", "none-excluded", init=other, overrides={"epochs": "7"}),
    ]
    assert not any(registry.is_planned(job) for job in trials)
    changes = {"draws": "2", "ood_sets": "gaussian:textures"}
    changed = one("ood", "standard", init=other, overrides=changes)
    assert registry.changed_settings(changed) == {"draws": 2, "ood_sets": "gaussian:textures"}
    assert [registry.changed_settings(job) for job in [*planned, trials[0]]] == [{}, {}, {}]


def test_a_notebooks_parameters_select_what_is_measured(root: Path, tmp_path: Path) -> None:
    quick = ", ".join(f"{name}={value}" for name, value in SETTINGS.items() if name != "observations")
    asked = {
        "profile": "smoke",
        "dataset": "own",
        "method": "standard",
        "seeds": "3",
        "overrides": f"{quick}, observations=1 pretraining.train_images=80 pretraining.epochs=1",
        "data_root": str(root),
        "store": str(tmp_path / "runs"),
        "results": "another parameter of the notebook",
    }
    jobs, live = registry.measure_as_asked("calibration", asked)
    assert {(job.dataset, job.method, job.seed, job.recipe["epochs"]) for job in jobs} == {("own", "standard", 3, 2)}
    assert sorted(record.job.arm for record in live) == ["pre-trained", "scratch"]
    with pytest.raises(UserError, match="no levels"):
        registry.measure_as_asked("calibration", asked | {"levels": "0.5"})


@pytest.fixture(scope="module")
def measured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Record], Context, list[int]]:
    """Records of all jobs by key, and how many images each of their trainings had."""
    context, counts = make_context(root, tmp_path_factory.mktemp("runs")), []
    train = model_cache.train

    def watch(network: object, data: ImageDataset, *arguments: object, **options: object) -> History:
        counts.append(len(data))
        return train(network, data, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_cache, "train", watch)
        return {job.key: perform(calibration.run, job, context) for job in own_jobs()}, context, counts


@pytest.mark.parametrize("init", [SCRATCH, "tiny"])
@pytest.mark.parametrize("method", ["standard", "temperature"])
def test_metrics_are_those_documented_and_of_the_kept_outputs(
    init: str, method: str, measured: Any, root: Path
) -> None:
    records, context, counts = measured
    assert counts == [40, 40, 36, 36]  # a tenth is held out for the temperature
    job = own_job(init, method)
    record = records[job.key]
    found = record.metrics
    tempered = {f"{name}_tempered" for name in PLAIN_METRICS} | {"temperature"} if method == "temperature" else set()
    assert set(found) == PLAIN_METRICS | CURVES | tempered
    with np.load(context.store / "outputs" / "calibration" / f"{job.key}.npz") as file:
        kept = dict(file)
    assert np.array_equal(kept["labels"], load("own", "test", root).labels)
    again = metrics.evaluate(kept["logits"], kept["labels"], 20)
    assert {name: found[name] for name in again} == again
    assert found["history_epoch"] == [1, 2]
    for name in ("error", "rms_calibration_error"):
        assert found[f"history_{name}"][-1] == pytest.approx(found[name], abs=1e-4)
    assert len(found["reliability_confidence"]) == len(found["reliability_accuracy"]) == 3
    assert record.provenance["data"] == {
        f"own/{split}": load("own", split, root).checksum for split in ("test", "train")
    }
    if method == "temperature":
        assert kept["tuning_logits"].shape == (4, 4)
        temperature = metrics.tune_temperature(kept["tuning_logits"], kept["tuning_labels"])
        again = metrics.evaluate(kept["logits"] / temperature, kept["labels"], 20)
        assert {"temperature": temperature} | {f"{name}_tempered": value for name, value in again.items()} == {
            name: found[name] for name in tempered
        }


def test_the_same_job_gives_the_same_numbers(measured: Any, root: Path, tmp_path: Path) -> None:
    job = own_job()
    other = toys.context(tmp_path / "other", data=root)
    assert calibration.run(job, other) == measured[0][job.key].metrics
    assert calibration.run(dataclasses.replace(job, seed=1), other) != measured[0][job.key].metrics


@pytest.mark.parametrize("labels", [[2] * 40 + [0] * 40 + [1] * 40, [2, 0] * 40 + [1] * 10, [0, 1, 2] * 50])
def test_a_tenth_of_grouped_labels_has_every_class(labels: list[int]) -> None:
    pixels = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    kept, held = held_out_split(ImageDataset("some", pixels, torch.tensor(labels), ("a", "b", "c")))
    assert len(held) == len(labels) // 10
    assert set(held.labels.tolist()) == set(kept.labels.tolist()) == set(labels)


def test_held_out_are_the_last_in_file_order_and_a_sorted_set_is_shuffled_first_as_the_authors_do() -> None:
    data = toys.images(40, 4)
    in_order = data.subset(torch.argsort(data.labels, stable=True))
    for some, order in ((data, np.arange(40)), (in_order, np.random.RandomState(0).permutation(40))):
        kept, held = held_out_split(some)
        assert torch.equal(kept.images, some.images[torch.from_numpy(order[:36])])
        assert torch.equal(held.images, some.images[torch.from_numpy(order[36:])])
    with pytest.raises(UserError, match=r"9 training images are too few .* set train_images to 10"):
        held_out_split(toys.images(9, 3))


def training_of(job: Job, **changes: Any) -> Training:
    config = CalibrationConfig(**job.recipe)
    return Training(**{"dataset": job.dataset, "init": job.init, "seed": job.seed, "recipe": config} | changes)


def test_network_is_trained_once_for_all_jobs_that_need_it(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    records, context, _ = measured
    job, finer = own_job(), own_job(bin_size="10")
    assert job.key != finer.key
    monkeypatch.setattr(model_cache, "train", None)
    found = perform(calibration.run, finer, context)
    assert found.metrics["error"] == records[job.key].metrics["error"]
    assert found.metrics["reliability_confidence"] != records[job.key].metrics["reliability_confidence"]
    assert "trained_on" not in found.provenance
    runtime = dataclasses.replace(context.runtime, precision="bfloat16")
    elsewhere = perform(calibration.run, own_job(bin_size="11"), dataclasses.replace(context, runtime=runtime))
    assert elsewhere.provenance["precision"] == "bfloat16"
    assert elsewhere.provenance["trained_on"] == [f"{found.provenance['device']}, float32"]
    result = trained(training_of(job), context)
    with np.load(context.store / "outputs" / "calibration" / f"{job.key}.npz") as kept:
        confidence, correct = metrics.confidence_and_correctness(kept["logits"], kept["labels"])
    np.testing.assert_allclose(result.confidence[-1], confidence, atol=1e-6)
    assert np.array_equal(result.correct[-1], correct)
    assert result.epochs.tolist() == [1, 2]


def test_key_of_a_training_changes_with_all_that_determines_it() -> None:
    job = own_job()
    changes = [{"seed": 1}, {"init": "tiny"}, {"dataset": "other"}, {"held_out": True}, {"variant": "noise"}, {}]
    keys = {training_of(job, **change).key for change in changes} | {training_of(own_job(weight_decay="0")).key}
    assert len(keys) == 7
    assert training_of(own_job(bin_size="7")).key == training_of(job).key


def test_damaged_network_and_changed_images_are_refused(root: Path, tmp_path: Path) -> None:
    toys.write_bundle(tmp_path, "own", 60, 4, size=8)
    context, job = make_context(tmp_path, tmp_path / "runs"), own_job(train_images="12", epochs="1")
    calibration.run(job, context)
    [path] = (context.store / "networks").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{path}.*delete it"):
        calibration.run(job, context)
    with np.load(tmp_path / "own" / "train.npz") as kept:
        arrays = dict(kept)
    np.savez(tmp_path / "own" / "train.npz", **arrays | {"images": 255 - arrays["images"]})
    later = toys.context(context.store, data=tmp_path)
    for _ in range(2):  # every job of a sweep is refused, not the first alone
        with pytest.raises(UserError, match=r"own/train have the checksum .* another folder to --store"):
            later.images("own", "train")
    toys.context(tmp_path / "others", data=tmp_path).images("own", "train")


def test_subset_is_balanced_in_file_order_and_follows_the_seed(root: Path, tmp_path: Path) -> None:
    context, job, data = toys.context(tmp_path, data=root), own_job(), load("own", "train", root)
    found = target_images(training_of(job), context)
    assert torch.equal(found.images, data.images[class_balanced_subset(data.labels, 40, 0)])
    assert found.labels.bincount().tolist() == [10] * 4
    assert not torch.equal(found.images, target_images(training_of(job, seed=1), context).images)
    assert len(target_images(training_of(own_job(train_images="0")), context)) == 60
    with pytest.raises(UserError, match="train_images is 61 but own has 60 training images"):
        calibration.run(own_job(train_images="61"), context)


def test_recipes_are_judged_on_images_that_are_neither_trained_on_nor_tested(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperparameter_search, "HELD_OUT_IMAGES", 20)
    context, data = toys.context(tmp_path, data=root), load("own", "train", root)
    recipe = TrainingConfig(architecture="wrn-10-1", train_images=40, epochs=1, batch_size=20)
    judged = hyperparameter_search.left_over(data, class_balanced_subset(data.labels, 40, 0), 0)
    used = target_images(Training(dataset="own", init=SCRATCH, seed=0, recipe=recipe), context)
    images = [{image.numpy().tobytes() for image in part.images} for part in (judged, used, data)]
    assert len(images[0]) == 20
    assert images[0] == images[2] - images[1]
    job = toys.toy_job(0, dataset="own", recipe=recipe.as_dict())
    assert set(hyperparameter_search.run(job, context)) == PLAIN_METRICS
    with pytest.raises(UserError, match="smaller train_images"):
        hyperparameter_search.run(dataclasses.replace(job, recipe=job.recipe | {"train_images": 0}), context)
