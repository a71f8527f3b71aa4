"""How a training calls what a method changes in it: the network, its loss, its perturbation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor


class Forward(Protocol):
    """A network as losses and attacks see it: images in the unit range to logits."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Float images [B, C, H, W] in [0, 1] to logits [B, K]."""


Loss = Callable[[Forward, Tensor, Tensor, Tensor], Tensor]
"""``loss(network, images, labels, indices)``: a scalar from images in [0, 1] (float [B, C, H, W]), their labels
(int64 [B]) and their positions in the training set (int64 [B]); it calls the network itself. One that splits its
batch into parts of varying size has an attribute ``static_shapes = False``: it cannot be recorded."""

Perturb = Callable[[Forward, Tensor, Tensor], Tensor]
"""``perturb(network, images, labels)``: the images to train on instead, same shape and range. Random numbers come from
PyTorch's default generator of the device, which has a stream of its own for every training and epoch. One with an
attribute ``evaluation_mode = True`` sees the network in evaluation mode."""

Sampler = Callable[[int, Generator], Tensor]
"""``sampler(epoch, generator)``: the positions (int64 [M]) of the images of one epoch, in order; M is the same in
every epoch."""


class CopiesByDevice:
    """A tensor that is copied to a device once: a copy at every step would halt the host."""

    def __init__(self, tensor: Tensor) -> None:
        self.copies = {tensor.device: tensor}

    def __call__(self, device: torch.device) -> Tensor:
        """The tensor on that device."""
        if device not in self.copies:
            self.copies[device] = next(iter(self.copies.values())).to(device)
        return self.copies[device]
