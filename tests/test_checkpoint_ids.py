"""Names of corpora and ids of checkpoints: what is written into them is what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness_lib.experiments import ood, pretraining
from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoint_ids import Origin, corpus_counts, corpus_name, origin, trained_on
from robustness_lib.runner.records import checkpoint_id
from robustness_lib.training.config import TORCHVISION

SHIPPED = sorted(path.stem for path in Path("book/checkpoints").glob("*.safetensors"))


def test_counts_of_a_corpus() -> None:
    assert corpus_name("imagenet32-no-cifar10_160000x275") == "imagenet32-no-cifar10"
    assert corpus_counts("imagenet32-no-cifar10_160000x275") == (160_000, 275)
    assert corpus_name("cifar10.1-v4") == "cifar10.1-v4"
    assert corpus_counts("cifar10.1-v4") is None


@pytest.mark.parametrize("scale", PROFILES)
@pytest.mark.parametrize("adversary", ["none", "untargeted", "targeted"])
@pytest.mark.parametrize("images", [0, 500])
def test_what_is_written_is_read(scale: str, adversary: str, images: int) -> None:
    for target in PROFILES[scale].targets.values():
        for holds in (target.corpus_holds, "my_own_set_700x12"):
            changes = {"adversary": adversary, "train_images": str(images)}
            job = pretraining.job(PROFILES[scale], target, corpus_holds=holds, overrides=changes, seed=3)
            assert origin(checkpoint_id(job)) == Origin(
                architecture=job.recipe["architecture"],
                corpus=corpus_name(holds),
                holds=holds,
                images=images,
                adversary=adversary,
                epochs=job.recipe["epochs"],
                seed=3,
            )


@pytest.mark.parametrize("checkpoint", SHIPPED)
def test_the_shipped_checkpoints_say_what_they_are(checkpoint: str) -> None:
    found = origin(checkpoint)
    assert found is not None
    assert (found.architecture, found.seed) == (checkpoint.partition("_")[0], 1)
    assert trained_on(checkpoint, found.corpus)
    assert (found.images == 14_000) == ("_n14000_" in checkpoint)
    assert (found.adversary != "none") == ("targeted" in checkpoint)
    planned = ood.jobs("cpu", datasets=["cifar10"], seeds=[0], init=checkpoint)
    assert any(job.method == ood.OVERLAP for job in planned) == (not found.images)


def test_published_weights_and_other_names() -> None:
    found = origin("wrn-40-2_imagenet32_untargeted_authors_0123ab")
    assert found == Origin("wrn-40-2", "imagenet32", "imagenet32", 0, "untargeted", None, None)
    for architecture in TORCHVISION:  # two of which have an underscore in their names
        found = origin(f"{architecture}_imagenet_1281167x1000_v1")
        assert found == Origin(architecture, "imagenet", "imagenet_1281167x1000", 0, "none", None, None)
        found = origin(f"{architecture}_imagenet32-no-cifar10_1086000x847_e100_s1_165ab6")
        assert found is not None
        assert (found.architecture, found.corpus, found.epochs) == (architecture, "imagenet32-no-cifar10", 100)
    for name in ("ck", "scratch", "timm/resnetv2_101x3_bit.goog_in21k", "wrn-16-1_imagenet32"):
        assert origin(name) is None
        assert not trained_on(name, "imagenet32")


def test_scenes_stand_in_for_places365_but_not_the_other_way_round() -> None:
    assert trained_on("wrn-16-1_miniplaces_45000x100_e10_s1_cb9952", "places365")
    assert trained_on("wrn-16-1_places365_1803460x365_e10_s1_0123ab", "places365")
    assert not trained_on("wrn-16-1_places365_1803460x365_e10_s1_0123ab", "miniplaces")
    assert not trained_on("wrn-16-1_imagenet32_160000x275_e10_s2_e98e9e", "places365")
