"""Projected gradient descent (PGD), the attack that networks are trained and tested with (P1 §3.1).

An attacker may change every pixel of an image by at most epsilon. PGD looks for the worst such image: from a random
start it goes up the loss by the sign of the gradient, a step at a time, and after each step back into the L∞ ball of
radius epsilon around the image and into [0, 1] (Madry et al. 2018). A targeted attack goes down the loss of a wrong
class instead.

Images are in [0, 1]; normalisation is the network's own business, so epsilon is measured in units of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import check_logits, check_whole, label_tensor
from robustness_lib.methods.interfaces import Forward
from robustness_lib.training.config import ANCHORS, EPSILON, STEP_SIZE, STEPS

Watch = Callable[[int, Tensor], None]
"""``watch(step, logits)``: called before each step, from 0, with the logits [B, K] of the images so far."""


def pgd(
    network: Forward,
    images: Tensor,
    labels: Tensor,
    epsilon: float = EPSILON,
    step_size: float = STEP_SIZE,
    steps: int = STEPS,
    *,
    targets: Tensor | None = None,
    anchor: str = "clean",
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The worst images that PGD finds within the L∞ ball of radius ``epsilon``.

    The network stays in the mode it is in: call ``network.eval()`` first to attack what it predicts with.

    Args:
        network: Takes images in [0, 1] to logits [B, K], K at least 2.
        images: Float [B, C, H, W] in [0, 1].
        labels: int64 [B], the true classes, 0 ... K - 1.
        epsilon: Radius, in [0, 1] (P1: 8/255).
        step_size: Length of a step, at least 0 (P1's code: 2/255).
        steps: How many, at least 1 (P1: 10 in training, 20 in the test).
        targets: int64 [B], wrong classes that the attack aims at; None to aim away from ``labels``.
        anchor: ``"clean"`` for the ball around the images; ``"noised"`` for what P1's released code does, which
            overwrites the images with their random start: the ball is then around that, and the result can be
            2 ``epsilon`` away from the images.
        restarts: Random starts, at least 1; of each image the worst one is kept, by the margin between the logit
            aimed away from (or at) and the best other.
        generator: What starts are drawn from; None for PyTorch's default generator of the images' device.

    Returns:
        Images in [0, 1], the same shape and type; in half precision too they are within the ball.
    """
    check_settings(epsilon, step_size, steps, anchor)
    check_whole(restarts, "restarts", 1, "give 1 for a single random start")
    _check_images(images)
    _check_labels(images, labels)
    if targets is not None:
        _check_labels(images, targets)
    half = images.dtype in (torch.float16, torch.bfloat16)  # computed in float32, then rounded towards the images
    clean = images.float() if half else images
    worst, least = clean, torch.full((len(images),), math.inf, device=images.device)
    for _ in range(restarts):
        adversarial = ascend(
            (lambda inputs: network(inputs.to(images.dtype))) if half else network,
            clean,
            labels,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            targets=targets,
            anchor=anchor,
            generator=generator,
            check=True,
        )
        if not adversarial.isfinite().all():  # as any gradient on the way that is not finite makes them
            raise UserError("the loss has a gradient that is not a finite number; the network diverged or is damaged")
        if restarts == 1:
            worst = adversarial
            break
        with torch.no_grad():
            logits = check_logits(network(adversarial.to(images.dtype)).float())
        margins = margin(logits, labels) if targets is None else -margin(logits, targets)
        better = margins < least
        worst = torch.where(better.view(-1, *[1] * (images.dim() - 1)), adversarial, worst)
        least = torch.where(better, margins, least)
    if not half:
        return worst
    near = worst.to(images.dtype)
    return torch.where((near - worst) * (worst - clean) > 0, torch.nextafter(near, images), near)


def ascend(
    network: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    targets: Tensor | None = None,
    anchor: str = "clean",
    generator: torch.Generator | None = None,
    watch: Watch | None = None,
    check: bool = False,
) -> Tensor:
    """One random start and its steps, as :func:`pgd` describes them, with few checks.

    Unless ``check`` is set or ``watch`` does so, the host never waits for the device, so that a training step with
    its attack can be recorded (:mod:`robustness_lib.training.train_step`). ``watch`` sees the logits before each step;
    ``check`` checks labels and gradients in the first one.
    """
    images = images.detach()
    place = images.device if generator is None else generator.device
    noise = torch.empty_like(images, device=place).uniform_(-epsilon, epsilon, generator=generator).to(images.device)
    adversarial = images + noise
    center = images
    if anchor == "noised":
        center = adversarial
    else:
        adversarial = adversarial.clamp(0, 1)
    lowest, highest = (center - epsilon).clamp(0, 1), (center + epsilon).clamp(0, 1)
    aim, way = (labels, step_size) if targets is None else (targets, -step_size)
    for step in range(steps):
        with torch.enable_grad():
            adversarial = adversarial.detach().requires_grad_()
            logits = network(adversarial).float()
            if watch is not None:
                watch(step, logits.detach())
            if check and step == 0:
                _check_classes(logits, labels, aim)
            gradient = _gradient(F.cross_entropy(logits, aim, reduction="sum"), adversarial)
        if check and step == 0 and not gradient.any():
            raise UserError(
                "the loss has no gradient at any pixel of these images, so an attack cannot see where to go; give a "
                "network that is differentiable and not saturated, or attack it by other means"
            )
        moved = adversarial.detach() + way * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, lowest), highest)
    return adversarial


def _gradient(loss: Tensor, images: Tensor) -> Tensor:
    gradient = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise UserError(
            "no gradient flows from the loss to the images: the network detaches them, runs without gradients or does "
            "not use them; give a network that is differentiable in its input"
        )
    return gradient


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the logit [B] of ``labels`` exceeds the largest other one: negative where the prediction differs."""
    labels = label_tensor(labels, logits.shape[1], len(logits))
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return (own[:, 0] - others.max(1).values).detach()


def random_targets(labels: Tensor, num_classes: int, generator: torch.Generator | None = None) -> Tensor:
    """A wrong class for each label [B], all equally likely, as in the targeted attack of P1's code.

    The generator, if any, is on the labels' device.
    """
    check_whole(num_classes, "num_classes", 2, "a targeted attack needs a wrong class")
    return _other_classes(label_tensor(labels, num_classes, len(labels)), num_classes, generator)


def _other_classes(labels: Tensor, num_classes: int, generator: torch.Generator | None = None) -> Tensor:
    """:func:`random_targets` without its checks, for which the host would wait in a recorded step."""
    further = torch.randint(1, num_classes, labels.shape, device=labels.device, generator=generator)
    return (labels + further) % num_classes


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The attack of adversarial training: replaces each batch by its adversarial images (P1 §3.1).

    As in P1's code the network is in training mode meanwhile, so that every forward pass of the attack uses the
    batch's statistics and updates the running ones of batch normalisation, ``steps`` times before the update itself
    does so once more.

    Attributes:
        epsilon: As for :func:`pgd`, like ``step_size``, ``steps`` and ``anchor``.
        classes: Of a targeted attack, how many there are to draw the wrong ones from; 0 for an untargeted one.
        evaluation_mode: Whether the network is in evaluation mode during the attack instead.
    """

    epsilon: float = EPSILON
    step_size: float = STEP_SIZE
    steps: int = STEPS
    anchor: str = "clean"
    classes: int = 0
    evaluation_mode: bool = False

    def __call__(self, network: Forward, images: Tensor, labels: Tensor) -> Tensor:
        """The images to train on: a :data:`robustness_lib.methods.interfaces.Perturb`."""
        return ascend(
            network,
            images,
            labels,
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            targets=_other_classes(labels, self.classes) if self.classes else None,
            anchor=self.anchor,
        )


def check_settings(epsilon: float, step_size: float, steps: int, anchor: str) -> None:
    """Refuse a setting of an attack that is out of its range."""
    if not 0 <= epsilon <= 1:
        raise UserError(f"epsilon is {epsilon} but must lie in [0, 1], in units of the image; the paper's is 8/255")
    if not (math.isfinite(step_size) and step_size >= 0):
        raise UserError(f"step_size is {step_size} but must be a finite number, at least 0; the paper's code has 2/255")
    if steps < 1:
        raise UserError(f"steps is {steps} but must be at least 1; the paper trains with 10 and tests with 20")
    choose(anchor, ANCHORS, "anchor of an attack")


def _check_images(images: Tensor) -> None:
    if not images.is_floating_point() or not images.numel():
        raise UserError(
            f"the images are {images.dtype} but must be floating point in [0, 1], and at least one; "
            "divide 8-bit ones by 255"
        )
    if not ((images >= 0) & (images <= 1)).all():
        lowest, highest = float(images.min()), float(images.max())
        raise UserError(
            f"the images go from {lowest:.4g} to {highest:.4g} but must lie in [0, 1]; give them before normalisation, "
            "which is part of the network"
        )


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise UserError(
            f"labels and targets must be int64, one for each of the {len(images)} images, but are {labels.dtype} of "
            f"shape {tuple(labels.shape)}"
        )


def _check_classes(logits: Tensor, *labels: Tensor) -> None:
    check_logits(logits)
    for some in labels:
        lowest, highest = int(some.min()), int(some.max())
        if not 0 <= lowest <= highest < logits.shape[1]:
            raise UserError(
                f"labels and targets must lie in 0 ... {logits.shape[1] - 1}, the network's classes, but go from "
                f"{lowest} to {highest}; give labels of the classes that the network was trained on"
            )
