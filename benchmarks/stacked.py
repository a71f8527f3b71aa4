"""Several networks as one: parameters stacked, convolutions grouped (``torch.func``).

A candidate for training several networks at once, measured here so that it can be compared with the library's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from robustness_lib.batches import DeviceImages, normalise, to_unit_range
from robustness_lib.data import ImageSet
from robustness_lib.randomness import generator
from robustness_lib.recipes import Recipe, learning_rate_at
from robustness_lib.runtime import Runtime
from robustness_lib.steps import WARM_UPS, aside, record

State = dict[str, Tensor]


def train(
    networks: Sequence[nn.Module],
    data: ImageSet,
    recipe: Recipe,
    runtime: Runtime,
    *,
    after_epoch: Callable[[], object] = lambda: None,
) -> dict[str, Tensor]:
    """Train networks of one architecture at the same time, number k with seed k, each to what it would be alone.

    Args:
        networks: Only read.
        data: The training images of all of them.
        recipe: How to train; its last partial batch is left out.
        runtime: Where and in which way.
        after_epoch: Called at the end of every epoch.

    Returns:
        The networks' parameters and buffers, by name, stacked.
    """
    device, size, many = runtime.device, recipe.batch_size, range(len(networks))
    copies = [deepcopy(network).to(device).train() for network in networks]
    parameters, buffers = stack_module_state(copies)
    rate = torch.zeros((), dtype=torch.float64 if device == "cpu" else torch.float32, device=device)
    optimiser = torch.optim.SGD(
        parameters.values(),
        lr=rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    pixels, labels = DeviceImages(data.images, recipe.crop_padding, device), data.labels.to(device)
    chosen = torch.zeros(3, len(networks), size, dtype=torch.int64, device=device)  # of each image: which, top, left
    mirrored = torch.zeros(len(networks), size, dtype=torch.bool, device=device)

    def loss_of_one(parameters: State, buffers: State, images: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(copies[0], (parameters, buffers), (images,))
        return F.cross_entropy(logits.float(), labels)

    losses = vmap(loss_of_one, randomness="different")
    if runtime.compile:
        losses = torch.compile(losses, dynamic=False)

    def step() -> None:
        which, top, left = chosen.flatten(1)
        images = normalise(to_unit_range(pixels.crop(which, top, left, mirrored.flatten())), recipe.normalisation)
        with runtime.autocast():
            total = losses(
                parameters, buffers, images.view(len(networks), size, *images.shape[1:]), labels[chosen[0]]
            ).sum()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        optimiser.step()

    steps = len(data) // size
    run = _recorded(step, [*parameters.values(), *buffers.values()], optimiser, device) if runtime.graphs else step
    for epoch in range(1, recipe.epochs + 1):
        drawn = [_draw(len(data), recipe, seed, epoch) for seed in many]
        order, crops, flips = (torch.stack(part).to(device) for part in zip(*drawn, strict=True))
        for number in range(steps):
            part = slice(number * size, (number + 1) * size)
            chosen[0], chosen[1:] = order[:, part], crops[:, :, part].transpose(0, 1)
            mirrored.copy_(flips[:, part])
            rate.fill_(learning_rate_at((epoch - 1) * steps + number + 1, recipe.epochs * steps, recipe))
            run()
        after_epoch()
    return {name: value.detach() for name, value in {**parameters, **buffers}.items()}


def _draw(count: int, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """The library's order, crops and flips of one network's epoch."""
    order = torch.randperm(count, generator=generator(seed, "order", epoch))
    stream = generator(seed, "augmentation", epoch)
    crops = torch.randint(0, 2 * recipe.crop_padding + 1, (2, count), generator=stream)
    return order, crops, torch.rand(count, generator=stream) < 0.5


def _recorded(
    step: Callable[[], None], state: Sequence[Tensor], optimiser: torch.optim.Optimizer, device: str
) -> Callable[[], None]:
    """The step as a CUDA graph; everything that it changes is as before afterwards."""
    kept = [value.detach().clone() for value in state]
    with aside(torch.device(device)):
        for _ in range(WARM_UPS):
            step()
    replay = record([step], [])
    with torch.no_grad():
        for here, value in zip(state, kept, strict=True):
            here.copy_(value)
        for buffers in optimiser.state.values():
            buffers["momentum_buffer"].zero_()
    return replay
