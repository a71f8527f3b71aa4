"""Images on the device as uint8: cropped, flipped and normalised there, so that no batch waits for the host."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from robustness_lib.training.config import NORMALISATIONS


class DeviceImages:
    """Images (uint8 [N, C, H, W]) on the device, from which augmented batches are cut.

    The ``padding`` pixels on each side are black before normalisation, as in the authors' code.
    """

    def __init__(self, images: Tensor, padding: int, device: str) -> None:
        count, channels, self.height, self.width = images.shape
        self.padded_height, self.padded_width = self.height + 2 * padding, self.width + 2 * padding
        padded = torch.zeros((count, self.padded_height, self.padded_width, channels), dtype=torch.uint8)
        inside = padded[:, padding : padding + self.height, padding : padding + self.width]
        inside.copy_(images.permute(0, 2, 3, 1))
        self.pixels = padded.view(-1, channels).to(device)
        self.rows = torch.arange(self.height, device=device)
        self.columns = torch.arange(self.width, device=device)

    def crop(self, indices: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Windows of the padded images, uint8 [B, C, H, W]; their first rows and columns are in [0, 2 padding]."""
        rows = indices[:, None] * self.padded_height + top[:, None] + self.rows
        columns = left[:, None] + torch.where(mirrored[:, None], self.columns.flip(0), self.columns)
        positions = rows[:, :, None] * self.padded_width + columns[:, None, :]
        crops = self.pixels.index_select(0, positions.view(-1))
        return crops.view(len(indices), self.height, self.width, -1).permute(0, 3, 1, 2)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def normalise(images: Tensor, normalisation: str) -> Tensor:
    """Images in [0, 1], float [B, 3, H, W], to the network's input (:data:`NORMALISATIONS`)."""
    mean, std = mean_and_std(normalisation, images.device, images.dtype)
    return (images - mean) / std


@cache
def mean_and_std(normalisation: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Kept on the device: copying them there anew would halt the host at every step."""
    mean, std = (torch.tensor(v, device=device, dtype=dtype).view(1, -1, 1, 1) for v in NORMALISATIONS[normalisation])
    return mean, std
