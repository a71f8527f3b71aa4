"""The images that shifted test sets are made of: common corruptions, and parts of ImageNet."""

import io
from pathlib import Path

import formats
import numpy as np
import pytest
import torch
from PIL import Image

from robustness_lib.data import ImageDataset, class_list, load
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.data.corruptions import CORRUPTIONS, PARAMETERS, SEVERITIES, corrupt, corrupted
from robustness_lib.data.imagenet_downsampled import cinic10_classes, read_class_map
from robustness_lib.errors import UserError

NUMBERS = {wnid: number for number, (wnid, _) in enumerate(read_class_map(), start=1)}


def smooth(count: int = 6, size: int = 32) -> torch.Tensor:
    """Images with gentle gradients, uint8 [N, 3, S, S]."""
    ramp = torch.linspace(30, 220, size)
    image = torch.stack([ramp.expand(size, size), ramp.expand(size, size).T, 128 + 0 * ramp.expand(size, size)])
    return torch.stack([image.roll(k, 2) for k in range(count)]).to(torch.uint8)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruptions_grow_with_severity_and_repeat(corruption: str) -> None:
    images = torch.from_numpy(formats.some_images(4)).permute(0, 3, 1, 2).contiguous()
    if corruption == "jpeg_compression":
        images = smooth(4)
    away = []
    for severity in SEVERITIES:
        found = corrupt(images, corruption, severity)
        assert found.dtype == torch.uint8
        assert found.shape == images.shape
        assert torch.equal(found, corrupt(images, corruption, severity))
        away.append(float((found.double() - images.double()).abs().mean()))
    assert away == sorted(away)
    assert away[0] < away[-1]


def test_noise_has_the_standard_deviation_of_its_severity_and_is_seeded() -> None:
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    for severity in SEVERITIES:
        found = corrupt(grey, "gaussian_noise", severity)
        assert float(found.double().std()) / 255 == pytest.approx(PARAMETERS["gaussian_noise"][severity - 1], rel=0.02)
    assert not torch.equal(corrupt(grey, "gaussian_noise", 1), corrupt(grey, "gaussian_noise", 1, seed=1))
    assert not torch.equal(found[0], found[1])


def test_contrast_blur_pixelate_and_jpeg_are_what_their_names_say() -> None:
    images = smooth()
    means = images.double().mean((2, 3), keepdim=True)
    weak = corrupt(images, "contrast", 5).double()
    assert torch.allclose(weak, means + 0.15 * (images.double() - means), atol=0.51)
    uniform = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    for corruption in ("gaussian_blur", "contrast", "pixelate"):
        assert torch.equal(corrupt(uniform, corruption, 5), uniform), corruption
    blurred = corrupt(images, "gaussian_blur", 5).double()
    assert float(blurred.diff(dim=3).abs().max()) < float(images.double().diff(dim=3).abs().max())
    file = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
    assert torch.equal(corrupt(images[:1], "jpeg_compression", 5)[0], expected)
    coarse = corrupt(torch.from_numpy(formats.some_images(1)).permute(0, 3, 1, 2).contiguous(), "pixelate", 5)
    assert len(torch.unique(coarse[0, 0], dim=0)) <= int(32 * 0.65)  # so many rows of blocks


def test_each_image_of_a_corrupted_set_is_corrupted_in_one_of_the_ways() -> None:
    data = ImageDataset("own", smooth(100), torch.arange(100) % 2, ("a", "b"))
    found = corrupted(data)
    assert torch.equal(found.labels, data.labels)
    ways = [corrupt(data.images, corruption, s) for corruption in ("contrast", "pixelate") for s in SEVERITIES]
    exact = torch.stack([(way == found.images).flatten(1).all(1) for way in ways]).sum(1)
    assert exact[3:5].tolist() == [4, 4]  # 100 images, 25 ways; weak ones may coincide with others
    assert torch.equal(corrupted(data).images, found.images)


def test_cinic10_s_classes_without_the_one_in_two_classes() -> None:
    found = cinic10_classes()
    assert len(found) == 141
    assert "n03770679" not in found
    counts = np.bincount(list(found.values()), minlength=10).tolist()
    assert counts == [1, 9, 59, 13, 1, 41, 3, 1, 6, 7]  # PROTOCOL: 10 automobiles and 8 trucks with the minivan


def test_imagenet_s_images_by_whether_pre_training_leaves_their_classes_out(tmp_path: Path) -> None:
    related = set(class_list("cifar10_related"))
    birds = [wnid for wnid, number in cinic10_classes().items() if number == 2]
    left, kept = ([w for w in birds if (w in related) == out][:2] for out in (True, False))
    dogs = [wnid for wnid, number in cinic10_classes().items() if number == 5 and wnid in related][:1]
    other = [wnid for wnid in NUMBERS if wnid not in cinic10_classes()][:1]
    wnids = [*left * 3, *dogs * 4, *kept * 5, *other * 9]
    formats.write_downsampled(tmp_path, [[NUMBERS[wnid] for wnid in wnids]], [1])
    excluded = load("cifar10-imagenet-excluded", "test", tmp_path)
    assert excluded.class_names == CIFAR10_CLASSES
    assert torch.bincount(excluded.labels, minlength=10).tolist() == [0, 0, 4, 0, 0, 4, 0, 0, 0, 0]
    numbers = (excluded.images[:, 0, 0, 0].int() * 256 + excluded.images[:, 0, 0, 1].int()).tolist()
    assert sorted(numbers) == sorted([NUMBERS[w] for w in [*left * 2, *dogs * 4]])  # both birds equally often
    included = load("cifar10-imagenet-included", "test", tmp_path)
    assert torch.bincount(included.labels, minlength=10).tolist() == [0, 0, 10, 0, 0, 0, 0, 0, 0, 0]
    assert torch.equal(load("cifar10-imagenet-included", "test", tmp_path).images, included.images)
    with pytest.raises(UserError, match="no train split"):
        load("cifar10-imagenet-included", "train", tmp_path)
