"""What corpora are called: by the checksum of their content."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness_lib.models.corpora import STAND_IN, description, recognised
from robustness_lib.report.trainings import corpus_label
from robustness_lib.runner.records import SCRATCH, load_published

RESULTS = Path(__file__).parents[1] / "book/results"


def test_every_checkpoint_of_a_published_record_names_the_stand_in() -> None:
    made = load_published("pretraining", RESULTS)
    starts = {record.job.init for record in load_published(folder=RESULTS)} - {SCRATCH}
    assert len(starts) == 11
    for checkpoint in starts:
        assert corpus_label(made, checkpoint).startswith(STAND_IN), checkpoint
        assert "Downsampled" not in corpus_label(made, checkpoint)
    [excluded] = {start for start in starts if start.startswith("wrn-16-2_")}
    assert corpus_label(made, excluded) == f"{STAND_IN}, without the classes related to CIFAR-10"


def test_published_cifar100_is_recognised_as_permuted() -> None:
    [sums] = {
        (record.provenance["data"]["cifar100/train"], record.provenance["data"]["cifar100/test"])
        for record in load_published("calibration", RESULTS)
        if record.job.dataset == "cifar100"
    }
    assert {recognised(one) for one in sums} == {"CIFAR-100, its images permuted within classes"}


@pytest.mark.parametrize(
    ("holds", "checksum", "words"),
    [
        ("imagenet32_1281167x1000", "0" * 64, "Downsampled ImageNet"),
        ("imagenet64-no-tiny", None, "Downsampled ImageNet, without Tiny ImageNet's classes"),
        ("imagenet32-no-cifar10_1086000x847", None, "Downsampled ImageNet, without the classes related to CIFAR-10"),
        (
            "imagenet32_160000x275",
            "0" * 64,
            "unrecognised images in place of Downsampled ImageNet, 160,000 images of 275 classes",
        ),
        ("places365_1803460x365", None, "places365, 1,803,460 images of 365 classes"),
        ("mine", None, "mine"),
    ],
)
def test_other_content_is_not_called_the_stand_in(holds: str, checksum: str | None, words: str) -> None:
    assert description(holds, checksum) == words
