"""How a training calls what a method changes in it: the network, its loss, its perturbation."""

import functools
from collections.abc import Callable

import torch
from torch import Generator, Tensor

Forward = Callable[[Tensor], Tensor]
"""A network as losses and attacks see it, float images [B, C, H, W] in [0, 1] to logits [B, K]."""


Loss = Callable[[Forward, Tensor, Tensor, Tensor], Tensor]
"""``loss(network, images, labels, indices)`` gives a scalar from images, their labels (int64 [B]) and their places in
the training set (int64 [B]); it calls the network itself. One that splits its batch into parts of varying size has an
attribute ``static_shapes = False``: it cannot be recorded as a CUDA graph."""

Perturb = Callable[[Forward, Tensor, Tensor], Tensor]
"""``perturb(network, images, labels)`` gives the images to train on instead, in the same shape and range; PyTorch's
default generator draws. With an attribute ``evaluation_mode = True`` it sees the network in evaluation mode."""

Sampler = Callable[[int, Generator], Tensor]
"""``sampler(epoch, generator)`` gives places (int64 [M]) of the images of an epoch, in order; M is always the same."""


def copies_by_device(tensor: Tensor) -> Callable[[torch.device], Tensor]:
    """From a device to the tensor on it, copied there once: a copy at every step would halt the host."""
    return functools.cache(lambda device: tensor.to(device))
