"""Common corruptions of images, made on the fly: noise, blur, contrast, pixelation and JPEG at five severities.

Five of CIFAR-10-C's fifteen, with its parameters (Hendrycks and Dietterich 2019, for 32-pixel images); the random draws
are ours, so images are not those of the published files.
"""

import io

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustness_lib.data.dataset import ImageDataset
from robustness_lib.errors import UserError, choose
from robustness_lib.randomness import stream_seed

SEVERITIES = (1, 2, 3, 4, 5)

PARAMETERS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
"""By corruption, its parameter at each severity; the noise's standard deviation as a part of the value range, the
blur's in pixels, the factor on the contrast, the factor on the side length, and the JPEG quality."""

CORRUPTIONS = tuple(PARAMETERS)


def _corrupt(
    image: npt.NDArray[np.uint8], corruption: str, parameter: float, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """One image [H, W, 3], values 0..1 and perhaps beyond."""
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    scaled = image / 255
    if corruption == "gaussian_noise":
        return scaled + random.normal(scale=parameter, size=image.shape)
    if corruption == "gaussian_blur":
        return np.asarray(gaussian_filter(scaled, (parameter, parameter, 0), mode="nearest"))
    if corruption == "contrast":
        mean = scaled.mean((0, 1))
        return np.asarray((scaled - mean) * parameter + mean)
    picture = Image.fromarray(image)
    if corruption == "pixelate":
        small = picture.resize((int(picture.width * parameter), int(picture.height * parameter)), Image.Resampling.BOX)
        return np.asarray(small.resize(picture.size, Image.Resampling.BOX)) / 255
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(parameter))
    with Image.open(file) as decoded:
        return np.asarray(decoded) / 255


def corrupt(images: Tensor, corruption: str, severity: int, seed: int = 0) -> Tensor:
    """Images (uint8 [N, 3, H, W]) under one of :data:`CORRUPTIONS` at a severity from 1 (weak) to 5."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3 or not images.numel():
        raise UserError(f"the images are {images.dtype} {list(images.shape)}; give uint8 [N, 3, H, W], N at least 1")
    choose(corruption, CORRUPTIONS, "corruption")
    if severity not in SEVERITIES:
        raise UserError(f"the severity is {severity} but must be a whole number from 1 to 5")
    parameter = PARAMETERS[corruption][severity - 1]
    random = np.random.default_rng(stream_seed(seed, "common corruption", corruption, severity))
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    changed = np.stack([_corrupt(image, corruption, parameter, random) for image in pixels])
    whole = np.clip(changed * 255, 0, 255).round().astype(np.uint8)
    return torch.from_numpy(whole).permute(0, 3, 1, 2).contiguous()


def corrupted(data: ImageDataset, seed: int = 0) -> ImageDataset:
    """A set whose images of each class are dealt in turn to the 25 ways (five corruptions, five severities)."""
    ways = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
    order = torch.argsort(data.labels, stable=True)
    way = torch.empty_like(order)
    way[order] = torch.arange(len(order)) % len(ways)
    images = data.images.clone()
    for number, (corruption, severity) in enumerate(ways):
        rows = way == number
        if rows.any():
            images[rows] = corrupt(images[rows], corruption, severity, seed)
    return ImageDataset(f"{data.name}, corrupted", images, data.labels, data.class_names)
