"""Projected gradient descent (PGD), the attack that networks are trained and tested with (P1 §3.1).

From a random start it goes up the loss by the sign of the gradient, a step at a time, and after each step back into the
L∞ ball of radius epsilon around the image and into [0, 1] (Madry et al. 2018). A targeted attack goes down the loss of
a wrong class instead. Images are in [0, 1] and normalised by the network, so epsilon is in units of the image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import check_labels, check_logits
from robustness_lib.methods.interfaces import Forward
from robustness_lib.training.config import ANCHORS, EPSILON, STEP_SIZE, STEPS


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What an attacker may do, and how hard it is tried."""

    epsilon: float = EPSILON
    step_size: float = STEP_SIZE
    steps: int = STEPS
    anchor: str = "clean"  # center of the ball; "noised" is the random start, as in P1's code: twice the radius
    targeted: bool = False  # at random wrong classes

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise UserError(f"epsilon is {self.epsilon} but must lie in [0, 1], in units of the image (P1: 8/255)")
        if not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise UserError(f"step_size is {self.step_size} but must be a finite number, at least 0 (P1: 2/255)")
        if self.steps < 1:
            raise UserError(f"steps is {self.steps} but must be at least 1 (P1: 10 in training, 20 in the test)")
        choose(self.anchor, ANCHORS, "anchor of an attack")


def pgd(
    network: Forward,
    images: Tensor,
    labels: Tensor,
    threat: Threat = Threat(),
    *,
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    logits_by_step: list[Tensor] | None = None,
    check: bool = True,
) -> Tensor:
    """The worst images, in [0, 1], that PGD finds from one random start.

    Args:
        network: Stays in training or evaluation mode, whichever it is in.
        images: float32 or float64 [B, C, H, W] in [0, 1]; of the true classes ``labels``, integers [B].
        targets: Integers [B], wrong classes to aim at; None to aim away from ``labels``.
        generator: What the start is drawn from; None for PyTorch's default one.
        logits_by_step: Gets the logits [B, K] of the images before each step.
        check: Whether to check the input and the first step, for which the host waits for the device.
    """
    images = images.detach()
    if check and (images.dtype not in (torch.float32, torch.float64) or not ((images >= 0) & (images <= 1)).all()):
        raise UserError(
            f"the images are {images.dtype} from {float(images.min()):.4g} to {float(images.max()):.4g} but must be "
            "float32 or float64 in [0, 1]; divide 8-bit ones by 255, and leave normalisation to the network"
        )
    device = images.device if generator is None else generator.device
    noise = torch.empty_like(images, device=device).uniform_(-threat.epsilon, threat.epsilon, generator=generator)
    center, adversarial = images, images + noise.to(images.device)
    if threat.anchor == "noised":
        center = adversarial
    else:
        adversarial = adversarial.clamp(0, 1)
    lowest, highest = (center - threat.epsilon).clamp(0, 1), (center + threat.epsilon).clamp(0, 1)
    classes, step_size = (labels, threat.step_size) if targets is None else (targets, -threat.step_size)
    for step in range(threat.steps):
        with torch.enable_grad():
            adversarial = adversarial.detach().requires_grad_()
            logits = network(adversarial).float()
            if logits_by_step is not None:
                logits_by_step.append(logits.detach())
            if check and step == 0:
                for name, values in (("labels", labels), ("targets", classes)):
                    check_labels(values, check_logits(logits).shape[1], name, len(images))
            loss = F.cross_entropy(logits, classes.long(), reduction="sum")
            gradient = torch.autograd.grad(loss, adversarial, allow_unused=True)[0] if loss.requires_grad else None
        if gradient is None or (check and step == 0 and not gradient.any()):
            raise UserError(
                "the loss has no gradient at any pixel of these images, so an attack cannot see where to go; give a "
                "network that is differentiable in its input and not saturated, or attack it by other means"
            )
        moved = adversarial.detach() + step_size * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, lowest), highest)
    if check and not adversarial.isfinite().all():  # as any gradient on the way that is not finite makes them
        raise UserError("the loss has a gradient that is not a finite number; the network diverged or is damaged")
    return adversarial


def random_targets(labels: Tensor, num_classes: int, generator: torch.Generator | None = None) -> Tensor:
    """A wrong class, int64, for each label [B], all equally likely, as in the targeted attack of P1's code."""
    if num_classes < 2 or labels.is_floating_point():
        raise UserError(
            f"there are {labels.dtype} labels of {num_classes} classes; a targeted attack needs whole numbers and a "
            "wrong class"
        )
    further = torch.randint(1, num_classes, labels.shape, device=labels.device, generator=generator)
    return (labels + further) % num_classes


@dataclass(frozen=True, kw_only=True)
class Adversary(Threat):
    """The attack of adversarial training (P1 §3.1), a :data:`robustness_lib.methods.interfaces.Perturb`.

    As in P1's code the network is in training mode meanwhile, so that the attack updates the running statistics of
    batch normalisation, unless ``evaluation_mode``. Targets are drawn of ``num_classes``.
    """

    num_classes: int = 0
    evaluation_mode: bool = False

    def __call__(self, network: Forward, images: Tensor, labels: Tensor) -> Tensor:
        """The images to train on."""
        targets = random_targets(labels, self.num_classes) if self.targeted else None
        return pgd(network, images, labels, self, targets=targets, check=False)
