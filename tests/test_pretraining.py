"""Pre-training is a job whose checkpoint says what it saw, is made once and found again."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import toys

from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, pretraining, registry
from robustness_lib.experiments.presets import PROFILES, Profile, Target
from robustness_lib.experiments.pretraining import missing, overrides_for, unrecorded
from robustness_lib.models.checkpoints import load_weights, save_weights
from robustness_lib.runner import model_cache
from robustness_lib.runner.model_cache import Training, find_checkpoint, initialise, ship
from robustness_lib.runner.records import Job, Store, checkpoint_id
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.config import TrainingConfig

SHORT = TrainingConfig(architecture="wrn-10-1", epochs=1, batch_size=20)
TARGET = Target(
    corpus_holds="corpus_60x5",
    pretraining=SHORT,
    scratch=dataclasses.replace(SHORT, train_images=20),
    tuned=dataclasses.replace(SHORT, train_images=20, learning_rate=0.01),
)
SCALE = Profile(name="smoke", targets={"own": TARGET}, seeds=(0, 1))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    toys.write_bundle(tmp_path / "data", "corpus", 60, 5)
    toys.write_bundle(tmp_path / "data", "own", 40, 4)
    return tmp_path / "data"


def change(job: Job, **changes: object) -> Job:
    return dataclasses.replace(job, **changes)


def test_id_changes_with_all_that_determines_the_network_and_only_that() -> None:
    job = pretraining.job(SCALE, TARGET)
    ids = {
        checkpoint_id(other)
        for other in (
            job,
            change(job, seed=2),
            change(job, dataset="corpus_61x5"),
            pretraining.job(SCALE, TARGET, overrides={"weight_decay": "0"}),
            pretraining.job(SCALE, TARGET, overrides={"epochs": "2"}),
            pretraining.job(SCALE, TARGET, overrides={"architecture": "wrn-16-1"}),
        )
    }
    assert len(ids) == 6
    assert checkpoint_id(change(job, profile="cpu")) == checkpoint_id(job)


@pytest.mark.parametrize("validated", [True, False])
def test_trained_once_and_found_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validated: bool
) -> None:
    if not validated:
        (root / "corpus" / "test.npz").unlink()
    job, context = pretraining.job(SCALE, TARGET), toys.context(tmp_path / "runs", data=root)
    metrics = pretraining.run(job, context)
    assert set(metrics) - {"training_seconds"} == {"images", "classes", "losses"} | (
        {"error", "negative_log_likelihood"} if validated else set()
    )
    assert (metrics["images"], metrics["classes"], len(metrics["losses"])) == (60, 5, 1)
    path = find_checkpoint(checkpoint_id(job), context.store)
    assert path == context.store / "checkpoints" / f"{checkpoint_id(job)}.safetensors"
    assert list(path.parent.iterdir()) == [path]
    assert load_weights(path)[0]["fc.weight"].shape[0] == 5
    monkeypatch.setattr(pretraining, "train", toys.forbid)
    assert pretraining.run(job, toys.context(tmp_path / "runs", data=root)) == metrics


def test_what_resumes_a_training_stays_until_its_result_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "networks" / "one.safetensors"
    unfinished = path.with_suffix(".partial.safetensors")

    def make() -> Any:
        save_weights(unfinished, {"weight": torch.zeros(1)}, {})
        return toys.run_training(SHORT)

    def full(*arguments: object) -> None:
        raise UserError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(model_cache, "save_trained", full)
        with pytest.raises(UserError, match="no space"):
            toys.context(tmp_path).made_once(path, {}, make)
    assert unfinished.exists()
    toys.context(tmp_path).made_once(path, {}, make)
    assert [file.name for file in path.parent.iterdir()] == ["one.safetensors"]


def test_a_checkpoint_is_shipped_in_half_precision(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job, context = pretraining.job(SCALE, TARGET), toys.context(tmp_path / "runs", data=root)
    metrics, name = pretraining.run(job, context), checkpoint_id(job)
    whole, about = load_weights(tmp_path / "runs" / "checkpoints" / f"{name}.safetensors")
    path = ship(name, context.store)
    assert find_checkpoint(name, context.store) == path, "what comes with the repository counts"
    rounded, also = load_weights(path)
    assert also == {**about, "precision": "float16"}
    for key, value in rounded.items():
        assert value.dtype == (torch.float16 if whole[key].is_floating_point() else whole[key].dtype)
        torch.testing.assert_close(value, whole[key], rtol=1e-3, atol=1e-7, check_dtype=False)
    assert pretraining.run(job, context)["error"] == pytest.approx(metrics["error"], abs=0.11)  # an image or so of ten
    assert ship(name, tmp_path / "elsewhere") == path


def test_weights_beyond_half_precision_are_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_weights(Path("runs/checkpoints/large.safetensors"), {"weight": torch.tensor([1e6])}, {})
    with pytest.raises(UserError, match=r"half precision cannot hold \(weight\)"):
        ship("large", Path("runs"))
    with pytest.raises(UserError, match="there is no file"):
        ship("absent", Path("runs"))
    assert not Path("book").exists()


def test_a_part_of_the_corpus_is_a_pre_training_of_its_own(root: Path, tmp_path: Path) -> None:
    target = dataclasses.replace(TARGET, further={"part": ("corpus_60x5", 20), "same": ("corpus_60x5", 0)})
    _, part = pretraining.pretrainings(SCALE, target)
    assert re.fullmatch(r"wrn-10-1_corpus_60x5_n20_e1_s1_[0-9a-f]{6}", checkpoint_id(part))
    metrics = pretraining.run(part, toys.context(tmp_path / "runs", data=root))
    assert metrics["images"] == 20
    assert metrics["classes"] == 5
    scale = dataclasses.replace(SCALE, targets={"own": target})
    assert pretraining.job(scale, target, overrides={"train_images": "20"}) == part


def test_a_kill_between_checkpoint_and_record_loses_no_record(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, context = pretraining.job(SCALE, TARGET), toys.context(tmp_path / "runs", data=root)
    measured = pretraining.run(job, context)  # and no record of it
    tuning = change(job, init=checkpoint_id(job))
    assert unrecorded([tuning, tuning, change(job, init="scratch"), change(job, init="elsewhere")], context.store) == [
        job
    ]
    monkeypatch.setattr(pretraining, "train", toys.forbid)
    sweep(unrecorded([tuning], context.store), pretraining.run, context).check()
    [record] = Store(context.store).records("pretraining")
    assert (record.job, record.metrics) == (job, measured)
    assert unrecorded([tuning], context.store) == []


@pytest.mark.parametrize("classes", [5, 3])
def test_a_checkpoint_that_another_network_made_is_named(root: Path, tmp_path: Path, classes: int) -> None:
    job, context = pretraining.job(SCALE, TARGET), toys.context(tmp_path / "runs", data=root)
    path = context.store / "checkpoints" / f"{checkpoint_id(job)}.safetensors"
    save_weights(path, toys.build("wrn-10-1", classes).state_dict(), {})
    with pytest.raises(UserError, match=r"is not the checkpoint that its name says .*delete it, then"):
        pretraining.run(job, context)
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}.*SHA-256"):
        pretraining.run(job, context)


def test_corpus_that_is_not_what_the_profile_expects(root: Path, tmp_path: Path) -> None:
    other = pretraining.job(SCALE, dataclasses.replace(TARGET, corpus_holds="corpus_1000x5"))
    with pytest.raises(UserError, match=r"on corpus_1000x5 but .* holds corpus_60x5; .*--corpus corpus'"):
        pretraining.run(other, toys.context(tmp_path / "runs", data=root))
    assert not (tmp_path / "runs" / "checkpoints").exists()


def tuning_jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.setitem(PROFILES, "smoke", SCALE)
    return calibration.jobs("smoke", methods=["standard"], seeds=[0], overrides={"bin_size": "5"})


def test_missing_pretraining_is_planned_once_and_made_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs"
    [job] = missing(tuning_jobs(monkeypatch), None, store)
    assert job.dataset == "corpus_60x5"
    path = store / "checkpoints" / f"{checkpoint_id(job)}.safetensors"

    def measured() -> bytes:
        context = toys.context(store, data=root)
        filters: Any = {"methods": ["standard"], "seeds": [0], "overrides": {"bin_size": "5"}}
        _, outcome = registry.measure_section("calibration", "smoke", context, **filters)
        assert (outcome.failed, outcome.left) == ([], [])
        content = path.read_bytes()
        return content[8 + int.from_bytes(content[:8], "little") :]  # the weights; the header holds the speed

    made = measured()
    assert missing(tuning_jobs(monkeypatch), None, store) == []
    path.unlink()  # is made again, bit for bit, although its record is there, once something needs it
    assert Store(store).get(job) is not None
    for record in Store(store).records("calibration"):
        Store(store).path(record.job).unlink()
    assert measured() == made
    for record in Store(store).records():  # the checkpoint is enough where its record cannot be made again
        Store(store).path(record.job).unlink()
    shutil.rmtree(root / "corpus")
    assert measured() == made


def test_tuning_starts_from_the_trunk_under_a_new_head(root: Path, tmp_path: Path) -> None:
    job, context = pretraining.job(SCALE, TARGET), toys.context(tmp_path / "runs", data=root)
    pretraining.run(job, context)
    weights, _ = load_weights(context.store / "checkpoints" / f"{checkpoint_id(job)}.safetensors")
    recipe = TARGET.tuned
    network = initialise(Training(dataset="own", init=checkpoint_id(job), seed=3, recipe=recipe), 4, context)
    for name, value in network.state_dict().items():
        if name.startswith("fc."):
            assert value.shape[0] == 4
        else:
            assert torch.equal(value, weights[name]), name
    wrong = dataclasses.replace(recipe, architecture="wrn-16-1")
    with pytest.raises(UserError, match=r"wrn|layer|block"):
        initialise(Training(dataset="own", init=checkpoint_id(job), seed=3, recipe=wrong), 4, context)


def test_settings_hold_for_the_arms_they_name() -> None:
    settings = {"epochs": "7", "tuned.epochs": "3", "pretraining.epochs": "9"}
    settings |= {"architecture": "wrn-16-1", "scratch.flip": "0"}
    assert overrides_for("scratch", settings) == {"epochs": "7", "architecture": "wrn-16-1", "flip": "0"}
    assert overrides_for("tuned", settings) == {"epochs": "3", "architecture": "wrn-16-1"}
    assert overrides_for("pretraining", settings) == {"epochs": "9", "architecture": "wrn-16-1"}
    assert overrides_for("tuned", None) == {}
    assert overrides_for("tuned", dict(reversed(settings.items()))) == overrides_for("tuned", settings)
