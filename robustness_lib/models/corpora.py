"""What image sets are in true words: by the checksum of their content, since a name says only what they stand for."""

from robustness_lib.models.checkpoint_ids import corpus_counts, corpus_name

STAND_IN = "a 275-class ImageNet stand-in (Tiny ImageNet + mini-ImageNet)"
PERMUTED = "CIFAR-100, its images permuted within classes"

_TRUE_WORDS = {
    "db55c1efaab9b3c42a3e1f065745000e30f41058d0b5de73c909292321b0fcf1": STAND_IN,  # imagenet32/train
    "f40a0f444930364ac1260be2d0766e982e4754425ac9d4abfc99ec22d9cc007f": STAND_IN,  # the same, unpacked elsewhere
    "559f09020ff3d4dc180ce53d31b9af480f4fad3432751e4fd37415e2b12e3a16": STAND_IN,  # imagenet32/test
    "5fb6e0f16b49851de167261ecc21ad95a3eb4a4201b601c61a27f6567b587be3": STAND_IN,  # imagenet32-no-cifar10/train
    "1ddd60920717ab292aae4811803be9ac7ddeee06df7ee6da487aeed248aabaa7": STAND_IN,  # imagenet32-no-cifar10/test
    "f6d516f0892c8a4c191bfa4bdf5040a9eaec200d0eb14382ae3d3ebf61e81f6b": STAND_IN,  # imagenet32-no-cifar10-tenth/train
    "2f26979fa0159c7c83e89a3de2dcd7661a90023e5097bf174a5dde58ae5dacc4": STAND_IN,  # imagenet32-no-cifar10-tenth/test
    "690a7c3f1677e84f766f3eedd5b86952670cdab9e6d904472f2c72d7313d425a": STAND_IN,  # imagenet32-no-tiny/train
    "49b04e3512951fe1c099fcf6f45f17a95867f2f6d1dac44136df2722a6751c97": PERMUTED,  # cifar100/train
    "5be7f286af9a5f75a1acd2303fc34d6c83942e0bd791353da11ab7ff5bda4e2e": PERMUTED,  # cifar100/test
}

_NAMES = {"miniplaces": "MiniPlaces", "places365": "Places365"}
_WHOLE = {"": 1000, "no-cifar10": 847, "no-tiny": 800, "no-cifar10-tenth": 85}  # classes that Downsampled ImageNet has

_WITHOUT = {
    "no-cifar10": ", without the classes related to CIFAR-10",
    "no-tiny": ", without Tiny ImageNet's classes",
    "no-cifar10-tenth": ", every tenth class without those related to CIFAR-10",
}


def recognised(checksum: str) -> str | None:
    """What the set with this ``ImageDataset.checksum`` is, where its name would say something else; else None."""
    return _TRUE_WORDS.get(checksum)


def description(holds: str, checksum: str | None) -> str:
    """A corpus in words, by its name, perhaps with counts, and its training images' checksum."""
    name, counts = corpus_name(holds), corpus_counts(holds)
    base, _, part = name.partition("-")
    if (words := recognised(checksum or "")) is not None:
        return words + _WITHOUT.get(part, "")
    size = "" if counts is None else f", {counts[0]:,} images of {counts[1]:,} classes"
    if base not in ("imagenet32", "imagenet64") or part not in _WHOLE:
        return _NAMES.get(name, name) + size
    if counts is None or (counts[1] == _WHOLE[part] and counts[0] > 1200 * counts[1]):
        return "Downsampled ImageNet" + _WITHOUT.get(part, "")
    return f"unrecognised images in place of Downsampled ImageNet{_WITHOUT.get(part, '')}{size}"
