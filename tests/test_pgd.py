"""The attack against cases that can be worked out, against the released code's bug, and inside recorded steps."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import test_train_step
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from toys import PLAIN, RECIPE, checksum, images, run_training

from robustness_lib.errors import UserError
from robustness_lib.methods.interfaces import Forward
from robustness_lib.methods.pgd import EPSILON, Threat, pgd, random_targets
from robustness_lib.models.architectures import build
from robustness_lib.training import train_step
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import train

SEEDS = st.integers(0, 2**31)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int, classes: int = 2, size: int = 2) -> tuple[Forward, Tensor]:
    weight = torch.randn(classes, 3 * size * size, generator=stream(seed))
    return (lambda inputs: inputs.flatten(1) @ weight.t()), weight


def curved(seed: int, classes: int = 4, size: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 16), nn.Tanh(), nn.Linear(16, classes))


def batch(seed: int, count: int = 5, classes: int = 4, size: int = 2) -> tuple[Tensor, Tensor]:
    pixels = torch.rand(count, 3, size, size, generator=stream(seed))
    pixels[0, 0] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[:size, :size] if size == 2 else pixels[0, 0]
    return pixels, torch.randint(classes, (count,), generator=stream(seed + 1))


# ---------------------------------------------------------------------------------------- what it finds


def test_on_a_linear_network_it_ends_in_the_corner_that_is_known() -> None:
    """There the gradient's sign is the same everywhere, and ten steps cross the ball from wherever they start."""
    network, weight = linear(0)
    pixels, labels = batch(1, 6, 2)
    uphill = (weight[1 - labels] - weight[labels]).sign().view_as(pixels)
    found = pgd(network, pixels, labels)
    torch.testing.assert_close(found, (pixels + EPSILON * uphill).clamp(0, 1))
    assert not found.requires_grad
    towards = pgd(network, pixels, labels, targets=labels)
    torch.testing.assert_close(towards, (pixels - EPSILON * uphill).clamp(0, 1))


@given(
    seed=SEEDS,
    epsilon=st.floats(0, 1),
    step_size=st.floats(0, 0.5),
    steps=st.integers(1, 4),
    targeted=st.booleans(),
    anchor=st.sampled_from(["clean", "noised"]),
)
@settings(max_examples=60)
def test_it_stays_in_the_ball_and_in_the_image_and_is_deterministic(
    seed: int, epsilon: float, step_size: float, steps: int, targeted: bool, anchor: str
) -> None:
    network, (pixels, labels) = curved(seed), batch(seed)
    kept = pixels.clone()
    threat = Threat(epsilon=epsilon, step_size=step_size, steps=steps, anchor=anchor)
    targets = random_targets(labels, 4, stream(seed)) if targeted else None
    found, again = (pgd(network, pixels, labels, threat, targets=targets, generator=stream(seed)) for _ in range(2))
    radius = epsilon if anchor == "clean" else 2 * epsilon
    assert (found - pixels).abs().max() <= radius + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    assert found.dtype == pixels.dtype
    assert torch.equal(found, again)
    assert torch.equal(pixels, kept)


def textbook(
    network: Forward, pixels: Tensor, labels: Tensor, epsilon: float, step: float, steps: int, draws: torch.Generator
) -> Tensor:
    """PGD as P1 §3.1 describes it, an image at a time."""
    start = torch.empty_like(pixels).uniform_(-epsilon, epsilon, generator=draws)
    results = []
    for one, noise, label in zip(pixels, start, labels, strict=True):
        now = torch.clip(one + noise, 0, 1)
        for _ in range(steps):
            now = now.detach().requires_grad_()
            F.cross_entropy(network(now[None]), label[None]).backward()
            now = now + step * torch.sign(now.grad)
            change = torch.clip(now - one, -epsilon, epsilon)
            now = torch.clip(one + change, 0, 1)
        results.append(now.detach())
    return torch.stack(results)


def test_it_equals_an_independent_attack() -> None:
    network, (pixels, labels) = curved(3), batch(3, 8)
    found = pgd(network, pixels, labels, Threat(epsilon=0.1, step_size=0.03, steps=7), generator=stream(5))
    torch.testing.assert_close(found, textbook(network, pixels, labels, 0.1, 0.03, 7, stream(5)), atol=1e-6, rtol=0)


def released(network: Forward, pixels: Tensor, labels: Tensor, seed: int) -> Tensor:
    """What P1's released code computes: its start is a view of the images, and the noise is added in place."""
    clean = pixels.clone()
    now = clean.view_as(clean)
    now += torch.empty_like(now).uniform_(-EPSILON, EPSILON, generator=stream(seed))
    for _ in range(10):
        now = now.detach().requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(network(now), labels), now)[0]
        now = now.detach() + 2 / 255 * gradient.sign()
        now = torch.minimum(torch.maximum(now, clean - EPSILON), clean + EPSILON).clamp(0, 1)
    return now


def test_the_noised_anchor_is_the_released_code_with_up_to_twice_the_radius() -> None:
    network, _ = linear(0, size=32)
    pixels, labels = batch(1, 6, 2, 32)
    found = pgd(network, pixels, labels, Threat(anchor="noised"), generator=stream(2))
    torch.testing.assert_close(found, released(network, pixels, labels, 2), atol=1e-6, rtol=0)
    change = (found - pixels).abs()
    assert change.max() > 1.9 * EPSILON
    assert (change > EPSILON).double().mean() == pytest.approx(0.488, abs=0.01)  # PROTOCOL §3.3
    assert 255 * change.mean() == pytest.approx(7.9, abs=0.15)


def test_targets_are_wrong_classes_and_all_equally_likely() -> None:
    labels = torch.arange(4, dtype=torch.uint8).repeat(3000)
    counts = torch.bincount(labels.long() * 4 + random_targets(labels, 4, stream(0)), minlength=16).view(4, 4)
    assert counts.diagonal().sum() == 0
    assert counts[~torch.eye(4, dtype=torch.bool)].float().std() < 60
    for wrong, classes in ((labels, 1), (labels.float(), 4)):
        with pytest.raises(UserError, match="a targeted attack needs whole numbers and a wrong class"):
            random_targets(wrong, classes)


def test_parameters_keep_their_gradients_and_the_network_its_mode() -> None:
    network = build("wrn-10-1", 10, seed=0)
    pixels, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():  # callers need not care
        pgd(network, pixels, labels, Threat(steps=3))
    assert network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not pgd(network, pixels.requires_grad_(), labels).requires_grad


# ---------------------------------------------------------------------------------------- in training


ATTACKS = {
    "untargeted": {"adversary": "untargeted"},
    "targeted": {"adversary": "targeted"},
    "noised": {"adversary": "untargeted", "anchor": "noised"},
    "eval": {"adversary": "untargeted", "attack_mode": "eval"},
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_recorded_step_with_its_attack_needs_nothing_from_the_host(
    attack: str, trainable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_step, "record", test_train_step.imitated)
    recipe = dataclasses.replace(RECIPE, trainable=trainable, attack_steps=2, **ATTACKS[attack])
    assert test_train_step.run(1, test_train_step.RECORDED, recipe) == test_train_step.run(1, recipe=recipe)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 4),  # P1's code: the attack's three forward passes, and the update's
        ({"attack_mode": "eval"}, 1),
        ({"trainable": "head"}, 0),  # a frozen trunk keeps the statistics of pre-training
    ],
)
def test_batch_normalisation_counts_the_passes_of_the_attack(changes: dict[str, str], passes: int) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1, adversary="untargeted", attack_steps=3, **changes)
    network, _ = run_training(recipe)
    counted = {int(value) for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counted == {3 * passes}  # 40 images are three batches


def test_every_batch_of_a_training_is_attacked_and_the_network_trained_on_the_result() -> None:
    seen: list[tuple[bool, Tensor]] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3 * 16 * 16, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((self.fc.weight.requires_grad, (inputs.detach() + 1) / 2))
            return self.fc(inputs.flatten(1))  # type: ignore[no-any-return]

    recipe = TrainingConfig(
        **{**RECIPE.as_dict(), "epochs": 1, "crop_padding": 0, "flip": False}, adversary="untargeted", attack_steps=5
    )
    data, network = images(16), Watching()
    train(network, data, recipe, seed=0, runtime=PLAIN)
    assert [trained for trained, _ in seen] == [False] * 5 + [True]
    final = seen[-1][1]
    clean = data.images.float() / 255
    distances = (final[:, None] - clean[None]).abs().amax((2, 3, 4))
    assert (distances.min(1).values <= recipe.epsilon + 1e-5).all()
    assert (distances.min(1).values >= 0.9 * recipe.epsilon).all()


def test_a_training_against_an_adversary_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3, observations=3, adversary="targeted", attack_steps=2)
    looks = 0

    def stop(network: nn.Module) -> dict[str, Tensor]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt
        return {}

    options: dict[str, Any] = {"checkpoint": tmp_path / "unfinished.safetensors", "checkpoint_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        run_training(recipe, observe=stop, **options)
    resumed = run_training(recipe, observe=stop, **options)
    assert looks == 4  # the second epoch again, and the third
    assert checksum(resumed[0]) == checksum(run_training(recipe)[0])


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1 but must lie in [0, 1]"),
        ({"epsilon": 8.0}, "epsilon is 8.0 but must lie in [0, 1], in units of the image"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"step_size": -1.0}, "step_size is -1.0 but must be a finite number, at least 0"),
        ({"steps": 0}, "steps is 0 but must be at least 1"),
        ({"anchor": "dirty"}, "'dirty'"),
    ],
)
def test_a_threat_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Threat(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": torch.zeros(2, 3, 2, 2, dtype=torch.uint8)}, "the images are torch.uint8 from 0 to 0"),
        ({"images": torch.full((2, 3, 2, 2), -0.5)}, "from -0.5 to -0.5 but must be float32 or float64 in [0, 1]"),
        ({"images": torch.full((2, 3, 2, 2), torch.nan)}, "from nan to nan"),
        ({"images": torch.zeros(2, 3, 2, 2, dtype=torch.bfloat16)}, "the images are torch.bfloat16"),
        ({"labels": torch.tensor([0, 4])}, "labels must be whole numbers from 0 to 3"),
        ({"labels": torch.tensor([-1, 2])}, "labels must be whole numbers from 0 to 3"),
        ({"targets": torch.tensor([9, 2])}, "targets must be whole numbers from 0 to 3"),
        ({"labels": torch.tensor([0])}, "the shape of labels is [1]; give [2]"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be whole numbers from 0 to 3"),
    ],
)
def test_bad_input_gets_one_clear_sentence(options: dict[str, Any], message: str) -> None:
    arguments = {"images": torch.full((2, 3, 2, 2), 0.5), "labels": torch.tensor([0, 1])} | options
    with pytest.raises(UserError, match=re.escape(message)):
        pgd(curved(0), **arguments)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (torch.detach, None, "the loss has no gradient at any pixel"),
        (torch.rand_like, None, "the loss has no gradient at any pixel"),
        (lambda pixels: (pixels * 255).round() / 255, None, "the loss has no gradient at any pixel"),
        (None, lambda logits: logits * torch.nan, r"answers to \d of 5 images are not finite numbers"),
        (None, lambda logits: logits.where(logits < 0, torch.inf), r"answers to \d of 5 images are not finite numbers"),
    ],
)
def test_networks_that_cannot_be_attacked(before: Any, after: Any, message: str) -> None:
    network, same = curved(0), lambda values: values
    with pytest.raises(UserError, match=message):
        pgd(lambda pixels: (after or same)(network((before or same)(pixels))), *batch(0))
