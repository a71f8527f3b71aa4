"""The loops that the library is compared with, as a textbook of the papers' years writes them.

PIL images one by one through torchvision's transformations and a ``DataLoader``, float32, a scheduler step and a look
at the loss after every update.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from robustness_lib.data import ImageDataset
from robustness_lib.methods.interfaces import Perturb
from robustness_lib.training.config import NORMALISATIONS, TrainingConfig

Loader = DataLoader[tuple[Tensor, int]]


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's own classes serve them: one PIL image at a time, then the transformation."""

    def __init__(self, images: ImageDataset, transform: Callable[[Image.Image], Tensor]) -> None:
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = images.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def loader(
    images: ImageDataset,
    recipe: TrainingConfig,
    device: str,
    workers: int,
    *,
    augmented: bool = True,
    normalised: bool = True,
) -> Loader:
    """Batches from worker processes that are already running.

    Starting them is left out of every measurement (a real training is longer than ours, and hides it).

    Args:
        images: The images.
        recipe: Batch size, crop and normalisation.
        device: Where the batches will go.
        workers: Worker processes; 0 to work in this one.
        augmented: Whether images are shuffled, cropped and flipped, as for training.
        normalised: Whether they are normalised; adversarial training needs them in [0, 1].
    """
    steps: list[Callable[..., object]] = []
    if augmented:
        size = images.images.shape[-1]
        steps = [transforms.RandomCrop(size, padding=recipe.crop_padding), transforms.RandomHorizontalFlip()]
    steps.append(transforms.ToTensor())
    if normalised:
        steps.append(transforms.Normalize(*NORMALISATIONS[recipe.normalisation]))
    batches = DataLoader(
        PILImages(images, transforms.Compose(steps)),
        batch_size=recipe.batch_size,
        shuffle=augmented,
        num_workers=workers,
        pin_memory=device != "cpu",
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # as in the main process
    )
    if workers:
        for _ in batches:
            pass
    return batches


def train(
    network: nn.Module,
    batches: Loader,
    recipe: TrainingConfig,
    device: str,
    *,
    perturb: Perturb | None = None,
    after_epoch: Callable[[], object] = lambda: None,
) -> float:
    """Train for the recipe's epochs.

    Args:
        network: Trained in place.
        batches: Normalised; with ``perturb`` in [0, 1].
        recipe: Learning rates, momentum and weight decay.
        device: Where to train.
        perturb: The attack of adversarial training, on images in [0, 1]; the network then sees 2x − 1 (P1 §3.1).
        after_epoch: Called at the end of every epoch.

    Returns:
        The moving average of the loss.
    """
    network.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    total = recipe.epochs * len(batches)
    last = recipe.final_learning_rate / recipe.learning_rate
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (done + 1) / total))
    )

    def of_unit_range(images: Tensor, /) -> Tensor:
        logits: Tensor = network(2 * images - 1)
        return logits

    average = 0.0
    for _ in range(recipe.epochs):
        network.train()
        for images, labels in batches:
            inputs, targets = images.to(device), labels.to(device)
            logits = network(inputs) if perturb is None else of_unit_range(perturb(of_unit_range, inputs, targets))
            loss = F.cross_entropy(logits, targets)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            scheduler.step()
            average = 0.8 * average + 0.2 * loss.item()
        after_epoch()
    return average


@torch.no_grad()
def evaluate(network: nn.Module, batches: Loader, device: str) -> float:
    """The share of images that the network classifies rightly, in evaluation mode."""
    network.to(device).eval()
    right = 0
    for images, labels in batches:
        right += int((network(images.to(device)).argmax(1) == labels.to(device)).sum().item())
    return right / len(batches.dataset)  # type: ignore[arg-type]


@contextlib.contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Let cuDNN pick the fastest algorithms by trial, which the textbook switches on."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
