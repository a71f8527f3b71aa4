"""From the classes of a pre-training corpus to those of the target (P2 §5.2, §5.5, C.7, C.12).

A pre-trained head that knows a "convertible" can answer for "automobile" without fine-tuning ("zero-shot"), or be
fine-tuned in place of a new one. A class map is bool [K, J]: which J classes of the corpus are which K of the target.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data.imagenet_downsampled import cinic10_classes, read_class_map
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.interfaces import Forward, Loss, copies_by_device
from robustness_lib.models.architectures import head, head_name, new_head

RULES = ("max", "mean", "sum")
"""How a target class is scored by the probabilities of its corpus classes (P2 C.7)."""


def class_map(dataset: str, target_classes: Sequence[str], corpus_classes: Sequence[str]) -> Tensor:
    """The class map by the names of classes: ImageNet's to CIFAR-10's as CINIC-10 has them, synthetic ones by shape.

    Names that ImageNet has twice ("crane") are left out.
    """
    if dataset == "cifar10":
        names = Counter(name for _, name in read_class_map())
        numbers = {name: cinic10_classes().get(wnid, -1) for wnid, name in read_class_map() if names[name] == 1}
        mapped = [numbers.get(name, -1) for name in corpus_classes]
    elif dataset == "synthetic":
        shapes = [name.split()[-1] for name in target_classes]
        mapped = [shapes.index(name.split()[-1]) for name in corpus_classes]
    else:
        raise UserError(f"there is no map from classes of a corpus to those of {dataset}; choose cifar10, or synthetic")
    return torch.tensor(mapped)[None, :] == torch.arange(len(target_classes))[:, None]


def mapped_scores(logits: Tensor, members: Tensor, rule: str = "max") -> Tensor:
    """Scores [N, K] of the target's classes from the logits [N, J] of another head, by a class map (:data:`RULES`).

    A class without members has minus infinity, and so is never predicted.
    """
    choose(rule, RULES, "rule")
    is_map = members.dtype == torch.bool and members.dim() == 2 and members.numel() > 0
    if not is_map or logits.shape[1:] != members.shape[1:]:
        shapes = f"{list(logits.shape)} and members {list(members.shape)}, {members.dtype}"
        raise UserError(f"logits have shape {shapes}; give [N, J] and bool [K, J]")
    probability = logits.double().softmax(1)[:, None, :] * members
    scores = probability.amax(2) if rule == "max" else probability.sum(2)
    if rule == "mean":
        scores = scores / members.sum(1).clamp(min=1)
    return scores.masked_fill(~members.any(1), -torch.inf)


def class_map_loss(members: Tensor, old_labels_from: int | None = None) -> Loss:
    """Cross-entropy over all classes of the old head, whose target is the likeliest class of the label's (P2 C.12).

    From the position ``old_labels_from`` in the training set on, if given, images are replayed ones with labels of the
    old head; their mean loss is added to that of the target's images.
    """
    members_on = copies_by_device(members)

    def loss(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        logits = network(images).float()
        allowed = members_on(logits.device)[labels.clamp(max=len(members) - 1)]
        if old_labels_from is not None:
            itself = torch.arange(logits.shape[1], device=labels.device) == labels[:, None]
            allowed = torch.where((indices >= old_labels_from)[:, None], itself, allowed)
        losses = logits.logsumexp(1) - logits.masked_fill(~allowed, -torch.inf).amax(1)
        return losses.mean() if old_labels_from is None else _both_means(losses, indices >= old_labels_from)

    return loss


def two_headed_loss(old_classes: int, old_labels_from: int) -> Loss:
    """Cross-entropy over the target's classes plus that over the old head's, each a mean over its images (P2 C.11).

    P2 does not say how the two are weighted. Both heads are one linear layer, the ``old_classes`` first; images are
    replayed ones as for :func:`class_map_loss`.
    """

    def loss(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        logits = network(images).float()
        old = indices >= old_labels_from
        before, after = logits[:, :old_classes], logits[:, old_classes:]
        replayed = F.cross_entropy(before, labels.clamp(max=old_classes - 1), reduction="none")
        target = F.cross_entropy(after, labels.clamp(max=after.shape[1] - 1), reduction="none")
        return _both_means(torch.where(old, replayed, target), old)

    return loss


def _both_means(losses: Tensor, old: Tensor) -> Tensor:
    """The mean loss of the images that are not old, and that of the old ones, added."""
    parts = (losses.where(part, 0.0).sum() / part.sum().clamp(min=1) for part in (~old, old))
    return sum(parts, torch.zeros((), device=losses.device))


def extend_head(network: nn.Module, further: int, seed: int) -> nn.Module:
    """Give the head ``further`` classes, in place, with the weights of a new head; returns the network."""
    if further:
        old = head(network)
        fresh = head(new_head(network, further, seed))
        both = nn.Linear(old.in_features, old.out_features + further)
        with torch.no_grad():
            both.weight.copy_(torch.cat([old.weight, fresh.weight]))
            both.bias.copy_(torch.cat([old.bias, fresh.bias]))
        network.set_submodule(head_name(network), both)
    return network


def completed(members: Tensor) -> Tensor:
    """A class map [K, J] with a further class for each of the M target classes without a member, [K, J + M]."""
    own_class = torch.eye(len(members), dtype=torch.bool)[:, ~members.any(1)]
    return torch.cat([members, own_class], 1)
