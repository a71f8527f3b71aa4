"""Accuracy under attack (P1 §3.1, appendix B).

Attacks see the network in evaluation mode and in float32, and have the same random starts for all networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.errors import UserError
from robustness_lib.methods.checks import Bools, check_logits
from robustness_lib.methods.pgd import Threat, pgd, random_targets
from robustness_lib.randomness import generator
from robustness_lib.training.data_loader import normalise, to_unit_range
from robustness_lib.training.device import Runtime, full_float32

BATCH = 250  # images attacked at a time


@dataclass(frozen=True)
class AttackResult:
    """The result of an attack from one random start."""

    correct: Bools  # [steps + 1, N], whether the prediction was right after 0 steps (the random start), 1 and so on
    images: Tensor  # float32 [N, C, H, W] in [0, 1], after the last step

    def accuracy(self, steps: int | None = None) -> float:
        """The share of images that are still predicted right after so many steps, or all."""
        return float(self.correct[-1 if steps is None else steps].mean())


def fixed_subset(data: ImageDataset, count: int) -> ImageDataset:
    """The images that all networks are attacked on: class-balanced, the same for all seeds; all of them for 0."""
    if count > len(data):
        raise UserError(f"{count} images of {data.name} are to be attacked, but it has {len(data)}; give fewer")
    return data.subset(class_balanced_subset(data.labels, count, 0)) if count else data


class WithNormalisation(nn.Module):
    """A network as attacks see it: it takes images in [0, 1], and normalises them itself."""

    def __init__(self, network: nn.Module, normalisation: str) -> None:
        super().__init__()
        self.network, self.normalisation = network, normalisation

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images in [0, 1]."""
        logits: Tensor = self.network(normalise(images, self.normalisation))
        return logits


@full_float32()
def attack(
    network: nn.Module,
    data: ImageDataset,
    normalisation: str,
    runtime: Runtime,
    threat: Threat,
    *,
    start: int = 0,
    as_trained: bool = False,
) -> AttackResult:
    """Attack every image from the random start number ``start``; the network is put into evaluation mode.

    With ``as_trained``, gradients are computed with the precision of trainings, bfloat16 where the processor has it
    (never TF32); the images after the last step are evaluated in float32 all the same.
    """
    correct, adversarial = [], []
    random, model = generator(0, "attack", start), WithNormalisation(network, normalisation)
    for images, labels in _batches(network, data, runtime):
        by_step: list[Tensor] = []
        targets = random_targets(labels.cpu(), data.num_classes, random).to(labels.device) if threat.targeted else None
        with runtime.autocast() if as_trained else contextlib.nullcontext():
            attacked = pgd(
                model, images, labels, threat, targets=targets, generator=random, logits_by_step=by_step, check=False
            )
        with torch.no_grad():
            by_step.append(model(attacked))
        logits = check_logits(torch.stack(by_step).transpose(0, 1))
        correct.append((labels == logits.argmax(2).T).cpu())
        adversarial.append(attacked.cpu())
    return AttackResult(torch.cat(correct, 1).numpy(), torch.cat(adversarial))


def worst_case(
    network: nn.Module, data: ImageDataset, normalisation: str, runtime: Runtime, threat: Threat, *, restarts: int
) -> Bools:
    """Which of the N images withstand :func:`attack` from every one of several random starts (P1 appendix B)."""
    robust = np.ones(len(data), dtype=bool)
    for start in range(restarts):
        unbroken = np.flatnonzero(robust)
        if len(unbroken):
            rest = data.subset(torch.from_numpy(unbroken))
            robust[unbroken] = attack(network, rest, normalisation, runtime, threat, start=start).correct[-1]
    return robust


@full_float32()
def correct_on(network: nn.Module, images: Tensor, data: ImageDataset, normalisation: str, runtime: Runtime) -> Bools:
    """Whether given images, float32 [N, C, H, W] in [0, 1], are predicted right: those of another network's attack."""
    network.to(runtime.device).eval()
    with torch.no_grad():
        parts = [
            check_logits(network(normalise(part.to(runtime.device), normalisation))).argmax(1).cpu()
            for part in torch.split(images, BATCH)
        ]
    correct: Bools = (torch.cat(parts) == data.labels).numpy()
    return correct


@full_float32()
def zero_gradient_share(network: nn.Module, data: ImageDataset, normalisation: str, runtime: Runtime) -> float:
    """The share of images at which the loss has no gradient at all, so that no gradient-based attack can move them."""
    blind = []
    for images, labels in _batches(network, data, runtime):
        with torch.enable_grad():
            images.requires_grad_()
            logits = check_logits(network(normalise(images, normalisation)))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            blind.append(~torch.autograd.grad(loss, images)[0].flatten(1).any(1).cpu())
    return float(torch.cat(blind).double().mean())


def _batches(network: nn.Module, data: ImageDataset, runtime: Runtime) -> Iterator[tuple[Tensor, Tensor]]:
    network.to(runtime.device).eval()
    for images, labels in zip(torch.split(data.images, BATCH), torch.split(data.labels, BATCH), strict=True):
        yield to_unit_range(images.to(runtime.device)), labels.to(runtime.device)
