"""The section on out-of-distribution detection: its jobs, and what it measures."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from robustness_lib import paper
from robustness_lib.data import load, write_bundle
from robustness_lib.errors import UserError
from robustness_lib.experiments import ood, registry
from robustness_lib.experiments.ood import OODConfig
from robustness_lib.experiments.presets import profile
from robustness_lib.methods import ood_images, ood_scores
from robustness_lib.methods.ood_images import sample_ood_images
from robustness_lib.methods.ood_scores import Outputs, outputs
from robustness_lib.runner import model_cache
from robustness_lib.runner.model_cache import Context, Training
from robustness_lib.runner.records import SCRATCH, Job, Record
from robustness_lib.runner.sweep import perform
from robustness_lib.training.trainer import predict


def test_paper_profile_has_the_papers_sets() -> None:
    for dataset in profile("paper").targets:
        [job, *_] = ood.jobs("paper", datasets=[dataset])
        recipe = OODConfig(**job.recipe)
        printed = paper.select("ood", dataset=dataset, arm="scratch", locator="P1 Table 6")["metric"]
        assert {f"auroc_{name}" for name in [*recipe.averaged, "mean"]} == set(
            printed[printed.str.startswith("auroc_")]
        )
        assert recipe.names == recipe.averaged
        assert (recipe.draws, recipe.draw_images) == (5, 0)


def test_overlap_is_measured_once_and_where_the_checkpoint_names_its_corpus() -> None:
    found = ood.jobs("smoke", datasets=["own"], init="tiny")
    assert {job.method for job in found} == set(ood_scores.SCORES) == set(ood.METHODS) - {ood.OVERLAP, *ood.SIZED}
    assert all(job.method != "overlap" for job in ood.jobs("cpu", seeds=[3, 4]))
    assert {job.seed for job in ood.jobs("cpu", seeds=[3, 4], methods=["overlap"])} == {3}
    assert ood._corpus("wrn-16-1_imagenet32_160000x275_untargeted_e10_s1_f8e138") == "imagenet32"
    for other in ("wrn-16-1_imagenet32_160000x275_n14000_e10_s1_6a07ad", "wrn-40-2_imagenet32_authors_0123ab"):
        assert ood._corpus(other) is None  # of a part of the corpus, or of other images than ours


SETTINGS = {
    **{"train_images": "40", "epochs": "1", "observations": "1", "batch_size": "20"},
    **{"ood_sets": "gaussian:rademacher:blobs:other", "further_sets": "mine", "draw_images": "10", "draws": "3"},
}
TINY = "wrn-10-1_other_30x3_e1_s1_abcdef"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count, classes, size in (
        *(("own", 60, 4, 16), ("other", 30, 3, 16), ("mine", 12, 2, 16), ("large", 20, 2, 20)),
        *(("big", 20, 2, 64), ("textures-64", 20, 2, 64), ("flat", 60, 4, 16)),
    ):
        toys.write_bundle(folder, name, count, classes, size=size)
    for split in ("train", "test"):
        with np.load(folder / "flat" / f"{split}.npz") as arrays:
            content = dict(arrays)
        np.savez(folder / "flat" / f"{split}.npz", **{**content, "images": content["images"][..., :12]})
    return folder


@pytest.fixture(scope="module")
def context(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A store with a checkpoint that says it was pre-trained on ``other``."""
    store = tmp_path_factory.mktemp("runs")
    toys.keep_checkpoint(store, TINY, classes=3)
    return toys.context(store, data=root)


def own_jobs(**changes: str) -> list[Job]:
    return ood.jobs("smoke", datasets=["own"], seeds=[0], overrides=SETTINGS | changes, init=TINY)


def own_job(init: str = SCRATCH, method: str = "standard", **changes: str) -> Job:
    [job] = [job for job in own_jobs(**changes) if (job.init, job.method) == (init, method)]
    return job


@pytest.fixture(scope="module")
def measured(context: Context) -> tuple[dict[str, Record], list[int], dict[str, set[bytes]]]:
    """Records of all jobs by key; how many images each pass through a network had; and the draws of each set."""
    passes: list[int] = []
    drawn: dict[str, set[bytes]] = {}

    def watch_outputs(network: nn.Module, images: torch.Tensor, *arguments: object) -> Outputs:
        passes.append(len(images))
        return outputs(network, images, *arguments)

    def watch_draw(name: str, images: torch.Tensor, *arguments: int) -> ood_images.OODSample:
        found = sample_ood_images(name, images, *arguments)
        drawn.setdefault(name, set()).add(found.images[found.rows].numpy().tobytes())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ood, "outputs", watch_outputs)
        patch.setattr(ood_images, "sample_ood_images", watch_draw)
        return {job.key: perform(ood.run, job, context) for job in own_jobs()}, passes, drawn


def test_one_pass_serves_all_scores_and_both_arms_have_the_same_draws(context: Context, measured: Any) -> None:
    records, passes, drawn = measured
    assert len(records) == 2 * len(ood_scores.SCORES) + 1  # both arms, and the overlap
    assert OODConfig().images_of_a_draw(context.images("own", "test")) == 12  # a fifth
    assert len(passes) == 2 * 7  # per network: test images, reference images, five OOD sets
    assert len(drawn) == 5
    assert {len(draws) for draws in drawn.values()} == {1}
    assert len(list((context.store / "networks").glob("*"))) == 2


@pytest.mark.parametrize("job", own_jobs(), ids=lambda job: f"{job.method}-{job.init}")
def test_all_documented_metrics_are_measured(job: Job, measured: Any, root: Path) -> None:
    sets = ["gaussian", "rademacher", "blobs", "other", "mine"]
    plain = {f"{measure}_{name}" for measure in ood.MEASURES for name in (*sets, "mean")}
    curves = {f"roc_{name}" for name in sets} | {f"histogram_{name}" for name in (*sets, "known")}
    found, provenance = measured[0][job.key].metrics, measured[0][job.key].provenance
    assert len(json.dumps(found)) < 10_000
    for name in set(found) - {"error"} - curves:
        paper.metric(name)
    if job.method == "overlap":
        return
    expected = {"error"} | plain | {f"spread_{name}" for name in plain}
    assert set(found) == expected | (curves if job.method == "standard" else set())
    assert all(0 <= found[name] <= 1 for name in expected)
    for measure in ood.MEASURES:
        assert found[f"{measure}_mean"] == pytest.approx(np.mean([found[f"{measure}_{name}"] for name in sets[:-1]]))
    if job.method == "standard":
        for name in (*sets, "known"):
            assert sum(found[f"histogram_{name}"]) == pytest.approx(1, abs=0.01)
        for curve in (found[f"roc_{name}"] for name in sets):
            assert len(curve) == len(ood.RATES)
            assert curve == sorted(curve)
            assert curve[-1] == 1
    used = {"own/train": ("own", "train")} | {f"{name}/test": (name, "test") for name in ("own", "other", "mine")}
    assert provenance["data"] == {label: load(*used[label], root).checksum for label in sorted(used)}


def test_values_are_those_of_the_networks_scores(context: Context, root: Path, measured: Any) -> None:
    """By hand for one set: predict, draw, measure with scikit-learn."""
    job = own_job(TINY)
    found = measured[0][job.key].metrics
    training = Training(dataset="own", init=TINY, seed=0, recipe=OODConfig.of(job.recipe))
    network = model_cache.trained(training, context).network

    def confidence(name: str) -> np.ndarray:
        return -predict(network, load(name, "test", root), "half", toys.PLAIN).double().softmax(1).max(1).values.numpy()

    known, outside = confidence("own"), confidence("other")
    drawn = sample_ood_images("other", torch.arange(30), 10, 3, 0)
    rows = drawn.images[drawn.rows].numpy()
    labels = np.r_[np.zeros(60), np.ones(10)]
    areas = [roc_auc_score(labels, np.r_[known, outside[row]]) for row in rows]
    assert found["auroc_other"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["spread_auroc_other"] == pytest.approx(np.std(areas, ddof=1), abs=1e-6)
    weights = np.r_[np.ones(60), np.full(10, 12 / 10)]
    precision = [average_precision_score(labels, np.r_[known, outside[r]], sample_weight=weights) for r in rows]
    assert found["aupr_other"] == pytest.approx(np.mean(precision), abs=1e-6)
    single = {name: value for name, value in found.items() if not isinstance(value, list)}
    assert ood.run(dataclasses.replace(job, method="standard-1000"), context) == single


def test_changed_images_are_evaluated_again(context: Context, root: Path, tmp_path: Path, measured: Any) -> None:
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data" / "mine" / "train.npz").replace(tmp_path / "data" / "mine" / "test.npz")
    after = ood.run(own_job(), toys.context(context.store, data=tmp_path / "data"))
    before = measured[0][own_job().key].metrics
    assert after["auroc_mine"] != before["auroc_mine"]
    assert after["auroc_other"] == before["auroc_other"]


def test_id_images_of_64_pixels_get_ood_ones_of_that_size(context: Context) -> None:
    changes = {"ood_sets": "textures", "further_sets": "", "draw_images": "4", "train_images": "20"}
    job = dataclasses.replace(own_job(**changes), dataset="big")
    assert list(ood.ood_sets(OODConfig.of(job.recipe), context.images("big", "test"), context)) == ["textures"]
    assert "textures-64/test" in context.take_used_data()
    job = dataclasses.replace(job, recipe={**job.recipe, "ood_sets": "svhn"})
    with pytest.raises(UserError, match=r"fetch svhn-64' downloads it; or do without it"):
        ood.check_images(job, context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"further_sets": "large"}, "large has images of 20x20 pixels but own of 16x16"),
        ({"further_sets": "svhn"}, "fetch svhn' downloads it; or do without it: --set further_sets=$"),
        (
            {"ood_sets": "gaussian:lsun:mine:svhn", "further_sets": ""},
            r"lsun.* or do without it: --set ood_sets=gaussian:mine$",
        ),
        ({"further_sets": "mein"}, "mein"),
        ({"draw_images": "31"}, "draw_images=30 or fewer, or leave other out"),
        ({"neighbours": "41"}, "neighbours is 41 but there are 40 reference images"),
    ],
)  # fmt: skip
def test_unusable_sets_are_one_sentence_before_anything_is_trained(
    context: Context, changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "train", None)
    with pytest.raises(UserError, match=message):
        ood.run(own_job(**changes), context)
    if "neighbours" not in changes:
        with pytest.raises(UserError, match=message):
            ood.check_images(own_job(**changes), context)


def test_sets_that_do_not_fit_are_refused_before_the_pretraining(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    context = toys.context(tmp_path / "empty", data=tmp_path / "data")
    asked: dict[str, Any] = {"methods": ["standard"], "seeds": [0]}
    with pytest.raises(UserError, match="large has images of 20x20 pixels but synthetic of 16x16"):
        registry.measure_section("ood", "smoke", context, overrides={"further_sets": "large"}, **asked)
    (tmp_path / "data" / "blobs").mkdir()
    with pytest.raises(UserError, match="blobs is noise that is made here, so no data set can be called so"):
        registry.measure_section("ood", "smoke", context, **asked)
    assert not list((tmp_path / "empty").rglob("*.safetensors"))


def test_id_images_that_are_not_square_are_refused(context: Context) -> None:
    for ask in (ood.run, ood.check_images):
        with pytest.raises(UserError, match="flat has images of 16x12 pixels, but OOD images are square"):
            ask(dataclasses.replace(own_job(), dataset="flat"), context)


def test_overlap_is_counted(root: Path, tmp_path: Path) -> None:
    """``other`` is its own corpus; two of its test images are put among the training images.

    The toys of all sets are the same noise, with a shift by class that does not matter.
    """
    root = shutil.copytree(root, tmp_path / "data")
    context = toys.context(tmp_path / "runs", data=root)
    test, train = load("other", "test", root), load("other", "train", root)
    noise = torch.randint(0, 256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise[:2] = test.images[:2]
    arrays = {"images": noise.permute(0, 2, 3, 1).numpy(), "labels": train.labels.numpy()}
    names = ("class 0", "frog", "big class 1")
    np.savez(root / "other" / "train.npz", **arrays, class_names=np.array(names))
    write_bundle(root / "other" / "test.npz", dataclasses.replace(test, class_names=names))
    [job] = [job for job in own_jobs() if job.method == "overlap"]
    found = ood.run(job, context)
    assert found == {
        "corpus_images": 30,
        "corpus_classes": 3,
        "corpus_related_classes": 0,
        **{"images_own": 60, "classes_own": 4, "shared_classes_own": 1, "kindred_classes_own": 2},
        **{"images_other": 30, "classes_other": 3, "shared_classes_other": 3, "kindred_classes_other": 3},
        **{"images_mine": 12, "classes_mine": 2, "shared_classes_mine": 1, "kindred_classes_mine": 2},
        **dict.fromkeys(["shared_images_own", "shared_images_other", "shared_images_mine"], 2),
    }
    with pytest.raises(UserError, match="the checkpoint tiny does not name a corpus"):
        ood.run(dataclasses.replace(job, init="tiny"), context)
