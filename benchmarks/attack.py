"""Projected gradient descent, the attack of adversarial training (P1 §3.1), for both loops alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.steps import Forward

EPSILON = 8 / 255
STEP = 2 / 255
STEPS = 10


def pgd(network: Forward, images: Tensor, labels: Tensor) -> Tensor:
    """The images within the L∞ ball of radius 8/255 after 10 steps of 2/255 up the loss, from a random start.

    The network stays in the mode it is in (training mode, in adversarial training). The host never waits for the
    device.

    Args:
        network: Takes images in [0, 1].
        images: Float [B, C, H, W] in [0, 1].
        labels: int64 [B].

    Returns:
        Images in [0, 1], the same shape. The start is drawn from the device's default generator.
    """
    lowest, highest = (images - EPSILON).clamp(min=0), (images + EPSILON).clamp(max=1)
    adversarial = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(STEPS):
        adversarial.requires_grad_(True)
        loss = F.cross_entropy(network(adversarial).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        step = adversarial.detach() + STEP * gradient.sign()
        adversarial = torch.minimum(torch.maximum(step, lowest), highest)
    return adversarial
