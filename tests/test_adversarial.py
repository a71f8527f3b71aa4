"""The adversarial section: its jobs, what it measures, its tables and figures, and attacks of others' making."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch import nn

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.experiments import adversarial, hyperparameter_search, pretraining, registry
from robustness_lib.experiments.adversarial import METHODS, AdversarialConfig
from robustness_lib.experiments.presets import profile
from robustness_lib.methods.pgd import Threat
from robustness_lib.metrics.robust_accuracy import attack, correct_on, fixed_subset, worst_case, zero_gradient_share
from robustness_lib.models.architectures import build
from robustness_lib.runner.model_cache import Context, Trained, find_checkpoint, read_trained
from robustness_lib.runner.records import SCRATCH, Job, checkpoint_id
from robustness_lib.training.data_loader import to_unit_range

THREAT = Threat(epsilon=8 / 255, step_size=2 / 255, steps=4)
SETTING = ("half", toys.PLAIN)


def test_a_checkpoint_of_ones_own_counts_where_it_fits() -> None:
    own = "wrn-16-1_corpus_9x9_untargeted_e1_s1_000000"
    jobs = adversarial.jobs("cpu", datasets=["cifar10"], init=own, seeds=[0])
    assert {job.init for job in jobs if job.method in ("adversarial", "last-layer", "checks")} == {SCRATCH, own}
    assert own not in {job.init for job in jobs if job.method in ("normal", "clean-pretraining")}
    without = "wrn-40-2_imagenet32-no-cifar10_9x9_untargeted_e1_s1_000000"
    with pytest.raises(UserError, match="give it to the method excluded"):
        adversarial.jobs("paper", datasets=["cifar10"], methods=["full"], init=without)


def test_the_paper_profile_has_the_papers_settings() -> None:
    jobs = adversarial.jobs("paper", datasets=["cifar10"], methods=["adversarial"], seeds=[0])
    scratch, tuned = (AdversarialConfig.of(job.recipe) for job in jobs)
    assert (scratch.epochs, scratch.learning_rate, scratch.dropout) == (100, 0.1, 0.0)
    assert (tuned.epochs, tuned.learning_rate, tuned.dropout) == (5, 0.001, 0.0)
    for recipe in (scratch, tuned):
        assert (recipe.adversary, recipe.anchor, recipe.attack_mode) == ("untargeted", "clean", "train")
        assert (recipe.epsilon, recipe.step_size, recipe.attack_steps) == (8 / 255, 2 / 255, 10)
        assert (recipe.test_epsilon, recipe.test_step_size, recipe.test_steps) == (8 / 255, 2 / 255, 20)
        assert (recipe.long_steps, recipe.test_images, recipe.batch_size) == (100, 0, 128)
    checks = next(j for j in adversarial.jobs("paper", datasets=["cifar10"], methods=["checks"]) if j.init == SCRATCH)
    assert (checks.recipe["restarts"], checks.recipe["test_images"]) == (1000, 1000)
    assert (checks.recipe["restart_steps"], checks.recipe["test_steps"]) == (100, 20)
    target = profile("paper").targets["cifar10"]
    pretrain = pretraining.job(profile("paper"), target, overrides={"adversary": "untargeted"})
    assert (pretrain.recipe["epochs"], pretrain.recipe["batch_size"]) == (100, 256)
    assert checkpoint_id(pretrain) == jobs[1].init


@pytest.fixture(scope="module")
def robust() -> tuple[nn.Module, ImageDataset]:
    data = toys.images(60, size=16)
    recipe = dataclasses.replace(toys.RECIPE, epochs=6, adversary="untargeted", attack_steps=2, epsilon=4 / 255)
    return toys.trained(recipe, data=data), data


Robust = tuple[nn.Module, ImageDataset]


def test_the_accuracy_is_that_of_the_attack_whose_beginning_is_a_shorter_one(robust: Robust) -> None:
    network, data = robust
    found = attack(network, data, *SETTING, THREAT)
    assert found.correct.shape == (5, 60)
    assert (found.images - to_unit_range(data.images)).abs().max() <= THREAT.epsilon + 1e-6
    np.testing.assert_array_equal(found.correct[-1], correct_on(network, found.images, data, *SETTING))
    assert not network.training
    short = attack(network, data, *SETTING, dataclasses.replace(THREAT, steps=2))
    np.testing.assert_array_equal(short.correct, found.correct[:3])
    assert short.accuracy() == found.accuracy(2)


def test_starts_differ_by_number_and_agree_between_networks(robust: Robust) -> None:
    network, data = robust
    still = dataclasses.replace(THREAT, step_size=0.0, steps=1)
    first, again, second = (attack(network, data, *SETTING, still, start=start).images for start in (0, 0, 1))
    other = attack(build("wrn-10-1", 4, seed=5), data, *SETTING, still).images
    assert torch.equal(first, again)
    assert torch.equal(first, other)
    assert not torch.equal(first, second)


def test_the_worst_case_counts_an_image_only_where_every_start_fails(robust: Robust) -> None:
    network, data = robust
    weak = dataclasses.replace(THREAT, epsilon=16 / 255, step_size=1 / 255, steps=1)
    single = attack(network, data, *SETTING, weak)
    worst = worst_case(network, data, *SETTING, weak, restarts=6)
    assert worst.sum() <= single.correct[-1].sum()
    assert not (worst & ~single.correct[-1]).any()
    np.testing.assert_array_equal(worst_case(network, data, *SETTING, weak, restarts=1), single.correct[-1])


def test_a_network_whose_gradient_is_masked_is_seen() -> None:
    data = toys.images(12, size=16)

    class Saturated(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            bright = (inputs.mean((1, 2, 3)) > 0).float() + 0 * inputs.sum((1, 2, 3))
            return torch.stack([bright, 1 - bright, bright, bright], 1)

    assert zero_gradient_share(Saturated(), data, *SETTING) == 1.0
    assert zero_gradient_share(build("wrn-10-1", 4, seed=0), data, *SETTING) == 0.0


def test_the_attacked_part_of_a_set_is_balanced_and_fixed() -> None:
    data = toys.images(80)
    few = fixed_subset(data, 20)
    assert torch.bincount(few.labels).tolist() == [5] * 4
    assert torch.equal(few.images, fixed_subset(data, 20).images)
    assert fixed_subset(data, 0) is data
    with pytest.raises(UserError, match="81 images of toys are to be attacked, but it has 80"):
        fixed_subset(data, 81)


@pytest.mark.filterwarnings("ignore")
def test_others_attacks(robust: Robust, tmp_path: Path) -> None:
    """torchattacks agrees within half a point, and APGD, which is stronger, leaves no more than PGD."""
    for name in ("pyautoattack", "torchattacks"):
        pytest.importorskip(name)
    network, _ = robust
    data = toys.images(100, size=16, seed=3)
    [job, _] = adversarial.jobs("smoke", methods=["independent"], overrides={"test_epsilon": "16/255"})
    before = torch.get_rng_state()
    found = adversarial.attack_independently(job, network, data, toys.context(tmp_path))
    assert torch.equal(before, torch.get_rng_state())
    ours = found["adversarial_accuracy"]
    assert 0.05 < ours < 0.95
    assert found["adversarial_accuracy_torchattacks"] == pytest.approx(ours, abs=0.005)
    assert found["adversarial_accuracy_apgd"] <= found["adversarial_accuracy_apgd_ce"] <= ours + 0.01
    assert found["attacked_images"] == 100


Live = tuple[dict[tuple[str, str], Job], pd.DataFrame, Context]


@pytest.fixture(scope="module")
def live(few_test_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The whole section, shortened, on one thread; jobs by method and arm."""
    context = toys.context(tmp_path_factory.mktemp("runs"))
    short = {"epochs": "1", "train_images": "40", "observations": "1", "test_images": "20", "test_steps": "2"}
    short |= {"pretraining.epochs": "1", "pretraining.train_images": "80"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"EPSILONS": (0, 8), "EVALUATED_IMAGES": 10, "EVALUATION_STEPS": 1}.items():
            patch.setattr(adversarial, name, value)
        jobs, outcome = registry.measure_section("adversarial", "smoke", context, overrides=short, workers=1)
        outcome.check()
        by_name = {(job.method, "scratch" if job.init == SCRATCH else "tuned"): job for job in jobs}
        yield by_name, toys.frame(map(registry.Store(context.store).get, jobs)), context


def test_every_method_is_measured(live: Live) -> None:
    jobs, found, _ = live
    assert set(found["method"]) == {name for name, method in METHODS.items() if method.profiles}
    assert len(found) == len(jobs) == 7
    accuracies = found[[name for name in found if "accuracy" in name and not name.endswith(("steps", "by_epsilon"))]]
    numbers = accuracies.map(lambda value: value if isinstance(value, float) else 0.5).fillna(0.5)
    assert ((numbers >= 0) & (numbers <= 1)).all(axis=None)
    main = found[found["method"] == "adversarial"]
    assert {len(curve) for curve in main["adversarial_accuracy_by_steps"]} == {7}
    last = [curve[-1] for curve in main["adversarial_accuracy_by_steps"]]
    assert last == pytest.approx(main["adversarial_accuracy_20_steps"].tolist(), abs=1e-5)
    assert main["adversarial_train_accuracy"].notna().all()
    trainings = found[found["method"] != "checks"]
    assert trainings["clean_accuracy"].tolist() == pytest.approx((1 - trainings["error"]).tolist())
    assert {len(history) for history in trainings["history_train_loss"]} == {1}


def test_networks_are_what_the_methods_say(live: Live) -> None:
    """Only the head changes in last-layer tuning; checks attack the networks of the main arms."""
    jobs, _, context = live
    last = jobs["last-layer", "tuned"]
    path = find_checkpoint(last.init, context.store)
    assert path is not None
    before, tuned = read_trained(path)[0], adversarial.fit(last, context).network.state_dict()
    assert all(name.startswith("fc.") or torch.equal(value, before[name]) for name, value in tuned.items())
    for arm in ("scratch", "tuned"):
        networks = [adversarial.fit(jobs[method, arm], context).network for method in ("adversarial", "checks")]
        assert toys.checksum(networks[0]) == toys.checksum(networks[1])


def test_restarts_may_take_more_steps_than_the_rest(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, _, context = live
    asked: list[tuple[int, int]] = []

    def record(*arguments: Any, restarts: int) -> np.ndarray:
        asked.append((arguments[-1].steps, restarts))
        return np.ones(3, dtype=bool)

    monkeypatch.setattr(adversarial, "worst_case", record)
    monkeypatch.setattr(adversarial, "EPSILONS", (0,))
    job = jobs["checks", "scratch"]
    network, few = adversarial.fit(job, context).network, toys.images(3, 3, size=32)
    assert "restart_steps" not in job.recipe  # so that records from before it are of the same job
    for longer, steps in ({}, 2), ({"restart_steps": 7}, 7):
        found = adversarial.check(dataclasses.replace(job, recipe={**job.recipe, **longer}), network, few, context)
        assert asked.pop() == (steps, 2)
        assert ("adversarial_accuracy_7_steps" in found) == bool(longer)


def test_examples_are_images_that_the_network_knows(live: Live) -> None:
    jobs, _, context = live
    job = jobs["clean-pretraining", "tuned"]
    clean, attacked, classes, after = adversarial.examples(job, context, count=3)
    assert len(clean) == len(attacked) == len(classes) == len(after) <= 3
    assert (attacked - clean).abs().max() <= float(job.recipe["test_epsilon"]) + 1e-6


def test_a_history_has_the_losses_of_its_epochs() -> None:
    right = np.array([[1, 0], [1, 1], [1, 0], [1, 1]], dtype=bool)
    found = Trained(nn.Identity(), np.array([0.25, 0.5, 1, 2]), right, right, losses=[0.7, 0.4])
    history = adversarial._history(found)
    assert history["history_epoch"] == [1.0, 2.0]
    assert history["history_train_loss"] == [0.7, 0.4]
    assert history["history_error"] == [0.5, 0.0]


def test_candidates_are_trained_against_the_adversary_and_judged_on_other_training_images() -> None:
    jobs = hyperparameter_search.jobs("cpu", methods=["adversarial"])
    assert {job.recipe["adversary"] for job in jobs} == {"untargeted"}
    assert {job.dataset for job in jobs} == {"cifar10"}
    assert all(job.method == "held-out" for job in hyperparameter_search.jobs("cpu"))
    tried = {(job.init == SCRATCH, job.recipe["epochs"], job.recipe["learning_rate"]) for job in jobs}
    for job in adversarial.jobs("cpu", datasets=["cifar10"], methods=["adversarial"], seeds=[0]):
        assert (job.init == SCRATCH, job.recipe["epochs"], job.recipe["learning_rate"]) in tried
