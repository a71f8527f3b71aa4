"""The attack against cases that can be worked out, against the released code's bug, and inside recorded steps."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_step import RECORDED, imitated, run
from torch import Tensor, nn
from torch.nn import functional as F
from toys import PLAIN, RECIPE, images, run_training

from robustness_lib.errors import UserError
from robustness_lib.methods.interfaces import Forward
from robustness_lib.methods.pgd import EPSILON, Threat, pgd, random_targets
from robustness_lib.models.architectures import build
from robustness_lib.training import train_step
from robustness_lib.training.trainer import train


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(size: int = 2) -> tuple[Forward, Tensor]:
    weight = torch.randn(2, 3 * size * size, generator=stream(0))
    return (lambda inputs: inputs.flatten(1) @ weight.t()), weight


def curved(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, 16), nn.Tanh(), nn.Linear(16, 4))


def batch(seed: int, count: int = 5, classes: int = 4, size: int = 2) -> tuple[Tensor, Tensor]:
    pixels = torch.rand(count, 3, size, size, generator=stream(seed))
    pixels[0, 0, :2, :2] = torch.eye(2)  # where [0, 1] ends the ball
    return pixels, torch.randint(classes, (count,), generator=stream(seed + 1))


def test_on_a_linear_network_it_ends_in_the_corner_that_is_known() -> None:
    """There the gradient's sign is the same everywhere, and ten steps cross the ball from wherever they start."""
    network, weight = linear()
    pixels, labels = batch(1, 6, 2)
    uphill = (weight[1 - labels] - weight[labels]).sign().view_as(pixels)
    found = pgd(network, pixels, labels)
    torch.testing.assert_close(found, (pixels + EPSILON * uphill).clamp(0, 1))
    assert not found.requires_grad
    towards = pgd(network, pixels, labels, targets=labels)
    torch.testing.assert_close(towards, (pixels - EPSILON * uphill).clamp(0, 1))


@given(
    seed=st.integers(0, 2**31),
    epsilon=st.floats(0, 1),
    step_size=st.floats(0, 0.5),
    steps=st.integers(1, 4),
    targeted=st.booleans(),
    anchor=st.sampled_from(["clean", "noised"]),
)
@settings(max_examples=40)
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
    network, _ = linear(size=32)
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
        pgd(network, pixels, labels, Threat(steps=2))
    assert network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not pgd(network, pixels.requires_grad_(), labels, Threat(steps=1)).requires_grad


@pytest.mark.parametrize(
    "changes", [{}, {"adversary": "targeted"}, {"anchor": "noised"}, {"attack_mode": "eval"}, {"trainable": "head"}]
)
def test_a_recorded_step_with_its_attack_needs_nothing_from_the_host(
    changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_step, "record", imitated)
    recipe = dataclasses.replace(RECIPE, **{"adversary": "untargeted", "attack_steps": 2} | changes)
    data = images(20, size=8)
    assert run(1, RECORDED, recipe, data=data) == run(1, recipe=recipe, data=data)


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

    def watch(network: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append((network.fc.weight.requires_grad, (inputs[0].detach() + 1) / 2))

    recipe = dataclasses.replace(RECIPE, epochs=1, crop_padding=0, flip=False, adversary="untargeted", attack_steps=5)
    data, network = images(16), build("wrn-10-1", 4, seed=0)
    network.register_forward_pre_hook(watch)
    train(network, data, recipe, seed=0, runtime=PLAIN)
    assert [trained for trained, _ in seen] == [False] * 5 + [True]
    distances = (seen[-1][1][:, None] - data.images[None] / 255).abs().amax((2, 3, 4)).min(1).values
    assert ((distances >= 0.9 * recipe.epsilon) & (distances <= recipe.epsilon + 1e-5)).all()


GRAY, LABELS = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 8.0}, "epsilon is 8.0 but must lie in [0, 1], in units of the image"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"step_size": -1.0}, "step_size is -1.0 but must be a finite number, at least 0"),
        ({"steps": 0}, "steps is 0 but must be at least 1"),
        ({"anchor": "dirty"}, "'dirty'"),
        ({"images": GRAY.byte()}, "the images are torch.uint8 from 0 to 0"),
        ({"images": -GRAY}, "from -0.5 to -0.5 but must be float32 or float64 in [0, 1]"),
        ({"images": GRAY * math.nan}, "from nan to nan"),
        ({"labels": torch.tensor([0, 4])}, "labels must be whole numbers from 0 to 3"),
        ({"targets": torch.tensor([9, 2])}, "targets must be whole numbers from 0 to 3"),
        ({"labels": torch.tensor([0])}, "the shape of labels is [1]; give [2]"),
    ],
)
def test_bad_input_gets_one_clear_sentence(arguments: dict[str, Any], message: str) -> None:
    def attack(images: Tensor = GRAY, labels: Tensor = LABELS, targets: Tensor | None = None, **threat: Any) -> Tensor:
        return pgd(curved(0), images, labels, Threat(**threat), targets=targets)

    with pytest.raises(UserError, match=re.escape(message)):
        attack(**arguments)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda pixels: curved(0)(pixels.detach()), "the loss has no gradient at any pixel"),
        (lambda pixels: curved(0)((pixels * 255).round() / 255), "the loss has no gradient at any pixel"),
        (lambda pixels: curved(0)(pixels) * torch.nan, "answers to 5 of 5 images are not finite numbers"),
        (lambda pixels: 1 / (curved(0)(pixels) > 0), r"answers to \d of 5 images are not finite numbers"),
    ],
)
def test_networks_that_cannot_be_attacked(network: Forward, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pgd(network, *batch(0))
