"""What P2's factors of fine-tuning need: enlarged images, public features, replay, and weights between networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.methods.interfaces import Sampler
from robustness_lib.models.architectures import features, head
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.data_loader import normalise, to_unit_range


class ImageSizeAdapter(nn.Module):
    """A network that sees its images enlarged, as P2's torchvision networks see CIFAR-10 at 224 pixels (P2 B.4).

    Images are enlarged bilinearly after the crop; P2 enlarges before it, from 32 to 224 pixels, and crops with a
    padding of 28, which is 4 of the 32: the same but for crops between two pixels of the original.

    Args:
        network: Any network.
        size: Pixels of a side.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def resized(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] at the network's size."""
        return F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, H, W]."""
        logits: Tensor = self.network(self.resized(x))
        return logits


def at_size(network: nn.Module, size: int) -> nn.Module:
    """The network as it is for size 0, else one that sees its images enlarged (:class:`ImageSizeAdapter`)."""
    return ImageSizeAdapter(network, size) if size else network


class Features(nn.Module):
    """A network without its head: normalised images [N, 3, H, W] to what the head sees, [N, d]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised images."""
        if isinstance(self.network, ImageSizeAdapter):
            return features(self.network.network, self.network.resized(x))
        return features(self.network, x)


def public_features(name: str, size: int) -> nn.Module:
    """The features of a network that timm publishes, such as Big Transfer (P2 B.2: BiT's last layer alone is tuned).

    Args:
        size: Pixels that images are enlarged to; 0 for none.

    Returns:
        Normalised images to features [N, d].
    """
    try:
        import timm
    except ImportError:
        raise UserError(
            f"timm/{name} is a network of timm, which is not installed; pip install robustness-lib[models]"
        ) from None
    try:
        network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # no such name, no connection, no disk: all of timm's and its hub's errors
        raise UserError(
            f"timm cannot provide {name} ({str(error).splitlines()[0]}); check its name, or the connection"
        ) from error
    return at_size(network, size)


def with_replay(
    target: ImageDataset, replayed: ImageDataset, recipe: TrainingConfig, ratio: int
) -> tuple[ImageDataset, TrainingConfig, Sampler]:
    """The target's images with images of pre-training that come again, ``ratio`` of them an image (P2 C.11).

    Returns:
        All images, the target's first; the recipe, whose batches are larger by the replayed images; and the order, in
        which every batch has the target's and the replayed images in this ratio.
    """
    (height, width), (rows, columns) = target.images.shape[2:], replayed.images.shape[2:]
    if (height, width) != (rows, columns):
        raise UserError(
            f"{replayed.name} has images of {rows}x{columns} pixels but {target.name} of {height}x{width}, so they "
            "cannot be trained on together; choose another checkpoint"
        )
    names = max(target.class_names, replayed.class_names, key=len)
    both = ImageDataset(
        f"{target.name}, with {replayed.name}",
        torch.cat([target.images, replayed.images]),
        torch.cat([target.labels, replayed.labels]),
        names,
    )

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        own = torch.randperm(len(target), generator=stream)
        count = ratio * len(target)
        rounds = -(-count // len(replayed))
        again = torch.cat([torch.randperm(len(replayed), generator=stream) for _ in range(rounds)])[:count]
        parts = zip(torch.split(own, recipe.batch_size), torch.split(again, recipe.batch_size * ratio), strict=True)
        return torch.cat([torch.cat([mine, old + len(target)]) for mine, old in parts])

    return both, replace(recipe, batch_size=recipe.batch_size * (1 + ratio)), sampler


def interpolated(before: nn.Module, after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line between two networks of one architecture (Wortsman et al. 2022, WiSE-FT).

    Args:
        before: The network at share 0.
        after: The state at share 1.

    Returns:
        The state there; counts, which are no real numbers, are those of ``after``.
    """
    mixed = {}
    for name, value in before.state_dict().items():
        end = after[name].to(value.device)
        mixed[name] = value + share * (end - value) if value.is_floating_point() else end
    return mixed


def renew_statistics(network: nn.Module, data: ImageDataset, recipe: TrainingConfig, device: str) -> None:
    """Measure the batch statistics of a network anew, in place: those between two networks belong to neither."""
    network.to(device)
    batches = [
        normalise(to_unit_range(part.to(device)), recipe.normalisation)
        for part in torch.split(data.images, recipe.batch_size)
    ]
    torch.optim.swa_utils.update_bn(batches, network)
    network.eval()


def head_penalty_loss(network: nn.Module, loss: Any, strength: float) -> Any:
    """A loss and ``strength`` times the squared distance of the head, its bias included, from where it is (P2 C.12)."""
    layer = head(network)
    first = [value.detach().clone() for value in layer.parameters()]
    kept = {first[0].device: first}

    def penalised(forward: Any, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        if labels.device not in kept:
            kept[labels.device] = [value.to(labels.device) for value in first]
        away = sum(((now - then) ** 2).sum() for now, then in zip(layer.parameters(), kept[labels.device], strict=True))
        total: Tensor = loss(forward, images, labels, indices) + strength * away
        return total

    return penalised
