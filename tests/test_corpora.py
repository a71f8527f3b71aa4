"""Names of corpora and ids of checkpoints: what is written is what is read, and corpora are called what they are."""

import pytest

from robustness_lib.experiments import pretraining
from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoint_ids import Origin, corpus_counts, corpus_name, origin, trained_on
from robustness_lib.models.corpora import STAND_IN, description, recognised
from robustness_lib.report.trainings import corpus_label
from robustness_lib.runner.records import checkpoint_id, load_published
from robustness_lib.training.config import TORCHVISION


@pytest.mark.parametrize("scale", PROFILES)
@pytest.mark.parametrize("adversary", ["none", "untargeted", "targeted"])
def test_what_is_written_is_read(scale: str, adversary: str) -> None:
    for target in PROFILES[scale].targets.values():
        for holds, images in ((target.corpus_holds, 0), ("my_own_set_700x12", 500)):
            changes = {"adversary": adversary, "train_images": str(images)}
            job = pretraining.job(PROFILES[scale], target, corpus_holds=holds, overrides=changes, seed=3)
            architecture, epochs = job.recipe["architecture"], job.recipe["epochs"]
            made = Origin(architecture, corpus_name(holds), holds, images, adversary, epochs, seed=3)
            assert origin(checkpoint_id(job)) == made


def test_published_weights_and_other_names() -> None:
    made = origin("wrn-40-2_imagenet32_untargeted_authors_0123ab")
    assert made == Origin("wrn-40-2", "imagenet32", "imagenet32", 0, "untargeted", None, None)
    for architecture in TORCHVISION:  # two of which have an underscore in their names
        made = origin(f"{architecture}_imagenet_1281167x1000_v1")
        assert made == Origin(architecture, "imagenet", "imagenet_1281167x1000", 0, "none", None, None)
        made = origin(f"{architecture}_imagenet32-no-cifar10_1086000x847_e100_s1_165ab6")
        assert made is not None
        assert (made.architecture, made.corpus, made.epochs) == (architecture, "imagenet32-no-cifar10", 100)
    for name in ("ck", "scratch", "timm/resnetv2_101x3_bit.goog_in21k", "wrn-16-1_imagenet32"):
        assert origin(name) is None
        assert not trained_on(name, "imagenet32")
    assert trained_on("wrn-16-1_miniplaces_45000x100_e10_s1_cb9952", "places365")
    assert not trained_on("wrn-16-1_places365_1803460x365_e10_s1_0123ab", "miniplaces")
    assert (corpus_name("cifar10.1-v4"), corpus_counts("cifar10.1-v4")) == ("cifar10.1-v4", None)


def test_every_checkpoint_of_a_published_record_names_the_stand_in() -> None:
    made = load_published("pretraining")
    starts = {record.job.init for record in load_published() if "_imagenet32" in record.job.init}
    assert len(starts) >= 11
    labels = {checkpoint: corpus_label(made, checkpoint) for checkpoint in starts}
    assert all(text.startswith(STAND_IN) and "Downsampled" not in text for text in labels.values())
    [excluded] = {start for start in starts if start.startswith("wrn-16-2_")}
    assert labels[excluded] == f"{STAND_IN}, without the classes related to CIFAR-10"


def test_published_cifar100_is_recognised_as_permuted() -> None:
    records = [record for record in load_published("calibration") if record.job.dataset == "cifar100"]
    sums = {record.provenance["data"][f"cifar100/{split}"] for record in records for split in ("train", "test")}
    assert {recognised(checksum) for checksum in sums} == {"CIFAR-100, its images permuted within classes"}


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
        ("places365_1803460x365", None, "Places365, 1,803,460 images of 365 classes"),
        ("mine", None, "mine"),
    ],
)
def test_other_content_is_not_called_the_stand_in(holds: str, checksum: str | None, words: str) -> None:
    assert description(holds, checksum) == words
