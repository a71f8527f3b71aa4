"""Images made on the fly, for a first run without any download.

Every image shows a shape filled with a texture before a busy background, and a class is a pair of both: forty are the
pre-training domain, ``synthetic-source``, and ten more with every shape and texture the target, ``synthetic``.
``synthetic-shifted`` is the target fainter, in a coloured light, with more noise and busier backgrounds.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.data.dataset import ImageDataset
from robustness_lib.randomness import generator

SIZE = 16  # pixels along a side: a small network sees enough images in seconds to learn the visual parts

SHAPES = ("disc", "square", "triangle", "ring", "cross", "bar", "star", "crescent", "frame", "arrow")
TEXTURES = ("plain", "striped", "shaded", "checked", "dotted")
_TARGET = tuple((shape, (2 * shape + shape // 5) % 5) for shape in range(10))
_SOURCE = tuple((s, t) for s in range(10) for t in range(5) if (s, t) not in _TARGET)
COUNTS = {
    "synthetic-source": {"train": 4000, "test": 500},
    "synthetic": {"train": 600, "test": 1000},
    "synthetic-shifted": {"train": 600, "test": 1000},
}
"""Numbers of images."""


@dataclass(frozen=True)
class Conditions:
    """Under which conditions images are taken, in units of the value range [0, 1]."""

    contrast: float = 1.0  # factor on the deviation from mid-grey
    noise: float = 0.04  # standard deviation
    clutter: float = 0.3  # opacity of the stray strokes and of the background's pattern
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)  # added to red, green and blue


NORMAL = Conditions()
SHIFTED = Conditions(contrast=0.6, noise=0.08, clutter=0.7, tint=(0.08, 0.0, -0.08))


def _distance(shape: int, u: Tensor, v: Tensor) -> Tensor:
    """The size at which the outline of a shape goes through (u, v): inside where it is below 1."""
    r = torch.sqrt(u * u + v * v)
    square = torch.maximum(u.abs(), v.abs())
    if shape == 0:
        return r
    if shape == 1:
        return square * 1.15
    if shape == 2:
        return torch.maximum(v, 0.5 * (math.sqrt(3) * u.abs() - v)) * 1.75
    if shape == 3:
        return 1 + (r - 0.72).abs() - 0.28
    if shape == 4:
        return torch.minimum(torch.maximum(u.abs(), 3 * v.abs()), torch.maximum(3 * u.abs(), v.abs()))
    if shape == 5:
        return torch.maximum(u.abs(), 2.6 * v.abs())
    if shape == 6:
        return r / (0.72 + 0.3 * torch.cos(5 * torch.atan2(u, v)))
    if shape == 7:
        return torch.maximum(r, 1 + 0.85 - torch.sqrt((u - 0.55) ** 2 + v * v))
    if shape == 8:
        return 1 + (1.15 * square - 0.75).abs() - 0.25
    head = torch.maximum(torch.maximum(-u, u.abs() + v.abs()), torch.zeros_like(u)) * 1.05
    head = torch.where(u > 0, head, torch.full_like(u, 2.0))
    shaft = torch.maximum(3.4 * v.abs(), torch.where(u > 0.3, torch.full_like(u, 2.0), u.abs()))
    return torch.minimum(head, shaft)


def _pattern(texture: int, u: Tensor, v: Tensor) -> Tensor:
    """How much of the figure's second colour shows at (u, v), 0..1; (u, v) in pixels."""
    if texture == 0:
        return torch.zeros_like(u)
    if texture == 1:
        return (torch.sin(u * (2 * math.pi / 5)) * 3).clamp(-1, 1) * 0.5 + 0.5
    if texture == 2:
        return (u / 6 + 0.5).clamp(0, 1)
    if texture == 3:
        return (torch.sin(u * (2 * math.pi / 5.4)) * torch.sin(v * (2 * math.pi / 5.4)) * 6).clamp(-1, 1) * 0.5 + 0.5
    dots = torch.cos(u * (2 * math.pi / 3.85)) + torch.cos(v * (2 * math.pi / 3.85)) - 0.7
    return (dots * 2).clamp(0, 1)


def draw(shapes: Tensor, textures: Tensor, stream: torch.Generator, conditions: Conditions = NORMAL) -> Tensor:
    """Draw one image for each pair of shape and texture (int64 [N] each): uint8 [N, 3, 16, 16]."""
    count, size = len(shapes), SIZE

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(count, *shape, generator=stream) * (high - low) + low

    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centre_x, centre_y = (uniform(1, 1, low=-0.12, high=0.12) * size for _ in range(2))
    radius = uniform(1, 1, low=0.28, high=0.42) * size
    turn, texture_turn = uniform(1, 1, low=-0.6, high=0.6), uniform(1, 1, low=0, high=2 * math.pi)
    u, v = x - centre_x, y - centre_y
    a, b = (u * turn.cos() + v * turn.sin()) / radius, (v * turn.cos() - u * turn.sin()) / radius
    p, q = u * texture_turn.cos() + v * texture_turn.sin(), v * texture_turn.cos() - u * texture_turn.sin()

    figure, pattern = torch.empty_like(u), torch.empty_like(u)
    for shape in range(len(SHAPES)):
        rows = shapes == shape
        figure[rows] = _distance(shape, a[rows], b[rows])
    for texture in range(len(TEXTURES)):
        rows = textures == texture
        pattern[rows] = _pattern(texture, p[rows], q[rows])
    mask = ((1 - figure) * radius + 0.5).clamp(0, 1)[:, None]

    # Two colours for the figure and two for the background, each pair apart in brightness.
    colours = uniform(4, 3)
    base = uniform(1, 3)
    sign = torch.where(uniform(1, 1) < 0.5, -1.0, 1.0)
    lift = torch.tensor([0.28, -0.1, -0.22, -0.22])[None, :, None] * sign
    colours = (0.45 * colours + 0.2 * base + 0.18 + lift).clamp(0, 1)[:, :, :, None, None]
    ink = colours[:, 0] + (colours[:, 1] - colours[:, 0]) * pattern[:, None]

    wave_angle, wave_length = uniform(1, 1, high=math.pi), uniform(1, 1, low=3.0, high=10.0)
    wave = torch.sin((x * wave_angle.cos() + y * wave_angle.sin()) * (2 * math.pi / wave_length)) * 0.5 + 0.5
    ground = colours[:, 2] + (colours[:, 3] - colours[:, 2]) * wave[:, None]
    for _ in range(3):  # stray strokes behind and before the figure
        angle, offset = uniform(1, 1, high=math.pi), uniform(1, 1, low=-0.5, high=0.5) * size
        stroke = (1 - (x * angle.cos() + y * angle.sin() - offset).abs()).clamp(0, 1)[:, None]
        ground = ground + (uniform(3, 1, 1) - ground) * stroke * conditions.clutter
    images = ground + (ink - ground) * mask
    images = (images - 0.5) * conditions.contrast + 0.5 + torch.tensor(conditions.tint)[:, None, None]
    images += torch.randn(images.shape, generator=stream) * conditions.noise
    return images.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def load_synthetic(name: str, split: str, root: Path | None = None, seed: int = 0) -> ImageDataset:
    """Make a set of :data:`COUNTS`, of 16x16 pixels, in mixed order; a corpus's name ends with what it holds."""
    pairs = torch.tensor(_SOURCE if name == "synthetic-source" else _TARGET)
    stream = generator(seed, "synthetic", name, split)
    labels = torch.arange(COUNTS[name][split]) % len(pairs)
    labels = labels[torch.randperm(len(labels), generator=stream)]
    conditions = SHIFTED if name == "synthetic-shifted" else NORMAL
    parts = [draw(pairs[part, 0], pairs[part, 1], stream, conditions) for part in torch.split(labels, 500)]
    counts = f"_{len(labels)}x{len(pairs)}" if name == "synthetic-source" else ""
    names = tuple(f"{TEXTURES[texture]} {SHAPES[shape]}" for shape, texture in pairs.tolist())
    return ImageDataset(name + counts, torch.cat(parts), labels, names)
