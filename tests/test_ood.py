"""Out-of-distribution detection: measures, scores, OOD sets and the section."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import example, given
from hypothesis import strategies as st
from pytorch_ood.detector import KNN, EnergyBased, Mahalanobis, MaxLogit, MaxSoftmax
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as reference_roc
from torch import nn

from robustness_lib import paper
from robustness_lib.data import load, write_bundle
from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, ood, registry
from robustness_lib.experiments.ood import OODConfig
from robustness_lib.experiments.presets import PROFILES, profile
from robustness_lib.methods import ood_images, ood_scores
from robustness_lib.methods.ood_images import make_noise_images, nearest_images, sample_ood_images, shared_classes
from robustness_lib.methods.ood_scores import (
    FeatureBank,
    Outputs,
    energy_score,
    knn_score,
    mahalanobis_score,
    max_logit_score,
    outputs,
    score,
    softmax_score,
)
from robustness_lib.metrics.ood_detection import detection_metrics, roc_curve
from robustness_lib.models.architectures import build
from robustness_lib.runner import model_cache
from robustness_lib.runner.model_cache import Context, Training, save_trained
from robustness_lib.runner.records import SCRATCH, Job, Store
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.trainer import History, predict

# ---------------------------------------------------------------------------------------- measures

fine = st.floats(-1e6, 1e6, allow_subnormal=False)
coarse = st.integers(-3, 3).map(float)
sides = st.one_of(
    st.tuples(st.lists(values, min_size=1, max_size=40), st.lists(values, min_size=1, max_size=40))
    for values in (fine, coarse)
)


def truth(known: list[float], outside: list[float]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.r_[np.zeros(len(known)), np.ones(len(outside))]
    return labels, np.r_[known, outside]


@given(sides)
def test_measures_equal_scikit_learn(pair: tuple[list[float], list[float]]) -> None:
    known, outside = pair
    labels, scores = truth(known, outside)
    found = detection_metrics(known, outside)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    weights = np.r_[np.ones(len(known)), np.full(len(outside), 0.2 * len(known) / len(outside))]
    weighted = average_precision_score(labels, scores, sample_weight=weights)
    assert detection_metrics(known, outside, out_per_in=0.2)["aupr"] == pytest.approx(weighted, abs=1e-12)


def fpr95_as_described(known: list[float], outside: list[float]) -> float:
    """The authors' procedure (PROTOCOL §6.2): thresholds fall until all is found; the last of the closest counts."""
    recalls, rates = [], []
    for threshold in sorted({*known, *outside}, reverse=True):
        recalls.append(sum(score >= threshold for score in outside) / len(outside))
        rates.append(sum(score >= threshold for score in known) / len(known))
        if recalls[-1] == 1:
            break
    distances = [abs(recall - 0.95) for recall in recalls]
    return max(rate for rate, distance in zip(rates, distances, strict=True) if distance == min(distances))


@given(sides)
@example(([0.0], [1.0] * 9 + [0.0]))  # recalls of 0.9 and 1, which are equally close only on paper
@example(([0.0, 0.5, 1.0, 1.0], [2.0] * 19 + [0.5]))  # two thresholds with a recall of 0.95
@example(([1.0, 1.0, 0.0], [1.0] * 3))
@example(([0.0, -0.0], [-0.0, 0.0, 1.0]))
def test_fpr95_is_that_of_the_authors_procedure(pair: tuple[list[float], list[float]]) -> None:
    assert detection_metrics(*pair)["fpr95"] == pytest.approx(fpr95_as_described(*pair), abs=1e-12)


def test_fpr95_by_hand() -> None:
    """At 1 the recall is 19/20 with 2 of 4 ID images, at 0.5 the last ID image but one is flagged too."""
    known, outside = [1.0, 1.0, 0.5, -1.0], [1.0] * 19 + [0.0]
    assert detection_metrics(known, outside)["fpr95"] == 0.75
    assert detection_metrics([0.0], [1.0] * 9 + [0.0])["fpr95"] == 0  # |0.9 - 0.95| < |1 - 0.95| in float64


def test_measures_by_hand() -> None:
    """Two ID and two OOD images; one pair is the wrong way round, one ties."""
    found = detection_metrics([0.1, 0.5], [0.5, 0.3])
    assert found["auroc"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found["aupr"] == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 3)
    assert found["fpr95"] == 0.5
    assert detection_metrics([0, 0], [1, np.inf]) == {"auroc": 1, "aupr": 1, "fpr95": 0}
    same = detection_metrics(np.zeros(10), np.zeros(2), out_per_in=0.2)
    assert same == {"auroc": 0.5, "aupr": pytest.approx(1 / 6), "fpr95": 1}


@pytest.mark.parametrize(
    ("known", "outside", "message"),
    [
        ([], [1.0], r"scores of the ID images have shape \(0,\)"),
        ([1.0], [], r"scores of the OOD images have shape \(0,\)"),
        ([[1.0]], [1.0], r"shape \(1, 1\); give a vector"),
        ([1.0, np.nan], [1.0], "1 of the 2 scores of the ID images are not a number"),
        ([1.0], [np.nan, np.nan], "2 of the 2 scores of the OOD images are not a number"),
    ],
)
def test_unusable_scores_are_one_sentence(known: list[float], outside: list[float], message: str) -> None:
    for measure in (detection_metrics, lambda a, b: roc_curve(a, b, [0.5])):
        with pytest.raises(UserError, match=message):
            measure(known, outside)


@pytest.mark.parametrize("ratio", [0.0, -1.0, np.nan, np.inf])
def test_unusable_share_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match="out_per_in is"):
        detection_metrics([0.0], [1.0], out_per_in=ratio)


@given(sides)
def test_roc_curve_is_scikit_learns_at_the_given_rates(pair: tuple[list[float], list[float]]) -> None:
    labels, scores = truth(*pair)
    false, true, _ = reference_roc(labels, scores, drop_intermediate=False)
    rates = [0.0, 0.25, 0.5, 1.0]
    expected = [true[false <= rate + 1e-9].max() for rate in rates]
    np.testing.assert_allclose(roc_curve(*pair, rates), expected)


# ---------------------------------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def said() -> tuple[Outputs, FeatureBank]:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    known = torch.randn(90, 5, generator=stream) + 2 * torch.eye(3, 5)[labels]
    seen = torch.randn(40, 5, generator=stream)
    return Outputs(4 * torch.randn(40, 3, generator=stream), seen), FeatureBank(known, labels, 7)


def test_scores_of_logits_equal_pytorch_ood(said: tuple[Outputs, FeatureBank]) -> None:
    logits = said[0].logits
    np.testing.assert_allclose(softmax_score(logits), MaxSoftmax.score(logits), rtol=1e-5)
    np.testing.assert_allclose(max_logit_score(logits), MaxLogit.score(logits), rtol=1e-6)
    np.testing.assert_allclose(energy_score(logits), EnergyBased.score(logits), rtol=1e-5)


def test_sure_networks_are_still_ranked() -> None:
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0], [22.0, 0.0]])
    assert len(np.unique(logits.softmax(1).max(1).values.numpy())) == 1
    assert np.argsort(softmax_score(logits)).tolist() == [1, 2, 0]


def test_neighbour_score_is_the_distance_to_the_kth_neighbour(said: tuple[Outputs, FeatureBank]) -> None:
    seen, known = said

    def unit(x: torch.Tensor) -> np.ndarray:
        return (x / x.norm(dim=1, keepdim=True)).double().numpy()

    distances = np.sort(cdist(unit(seen.features), unit(known.features)), axis=1)
    for k in (1, 7, 90):
        np.testing.assert_allclose(knn_score(seen.features, known.features, k), distances[:, k - 1], atol=1e-5)
    oracle = KNN(None, k=7).fit_features(known.features, known.labels)
    theirs = oracle.predict_features(seen.features)
    np.testing.assert_allclose(knn_score(seen.features, known.features, 7), theirs, atol=1e-5)
    with pytest.raises(UserError, match="neighbours is 91 but there are 90"):
        knn_score(seen.features, known.features, 91)


def test_mahalanobis_score_is_the_least_distance_to_a_class(said: tuple[Outputs, FeatureBank]) -> None:
    seen, known = said
    points, labels = known.features.double().numpy(), known.labels.numpy()
    means = np.stack([points[labels == k].mean(0) for k in range(3)])
    inverse = np.linalg.inv(np.mean([np.outer(point, point) for point in points - means[labels]], axis=0))
    expected = [min(mahalanobis(x, m, inverse) ** 2 for m in means) for x in seen.features.double().numpy()]
    np.testing.assert_allclose(mahalanobis_score(seen.features, known.features, known.labels), expected, rtol=1e-8)
    theirs = Mahalanobis(None).fit_features(known.features, known.labels).predict_features(seen.features)
    order = np.argsort(mahalanobis_score(seen.features, known.features, known.labels))
    assert np.array_equal(order, np.argsort(theirs.numpy()))


def test_mahalanobis_score_does_not_mind_units_dead_features_or_missing_classes(
    said: tuple[Outputs, FeatureBank],
) -> None:
    seen, known = said
    plain = mahalanobis_score(seen.features, known.features, known.labels)
    scaled = torch.tensor([1.0, 10.0, 0.1, 2.0, 5.0])
    changed = mahalanobis_score(seen.features * scaled, known.features * scaled, known.labels * 2)
    np.testing.assert_allclose(changed, plain, rtol=1e-5)
    dead = [torch.cat([x, torch.zeros(len(x), 2)], dim=1) for x in (seen.features, known.features)]
    np.testing.assert_allclose(mahalanobis_score(*dead, known.labels), plain, rtol=1e-6)


def test_unknown_score_is_refused(said: tuple[Outputs, FeatureBank]) -> None:
    assert set(ood.METHODS) == {*ood_scores.SCORES, "overlap"}
    with pytest.raises(UserError, match="standard, max-logit, energy"):
        score("odin", *said)
    with pytest.raises(UserError, match=r"logits has shape \(3,\)"):
        softmax_score(np.zeros(3))


@pytest.mark.parametrize("architecture", ["wrn-10-1", "resnet18"])
def test_outputs_are_the_networks(architecture: str) -> None:
    data = toys.images(30, 4, size=32)
    network = build(architecture, 4, seed=1).train()
    found = outputs(network, data.images, "cifar", toys.PLAIN, batch_size=7)
    torch.testing.assert_close(found.logits, predict(network, data, "cifar", toys.PLAIN))
    assert network.training
    assert found.features.shape == (30, {"wrn-10-1": 64, "resnet18": 512}[architecture])
    floats = data.images.float() / 127.5 - 1
    torch.testing.assert_close(outputs(network, floats, "cifar", toys.PLAIN).logits, found.logits)


# ---------------------------------------------------------------------------------------- OOD images


def test_noise_has_its_distribution() -> None:
    normal = make_noise_images("gaussian", 50, 32, seed=0)
    assert normal.shape == (50, 3, 32, 32)
    assert normal.dtype == torch.float32
    assert normal.abs().max() == 1
    inside = normal[normal.abs() < 1]
    assert float((normal.abs() == 1).float().mean()) == pytest.approx(2 * norm.cdf(-2), abs=0.003)
    assert float((inside < 0.25).float().mean()) == pytest.approx(
        (norm.cdf(0.5) - norm.cdf(-2)) / (1 - 2 * norm.cdf(-2)), abs=0.01
    )
    signs = make_noise_images("rademacher", 50, 32, seed=0)
    assert set(signs.unique().tolist()) == {-1, 1}
    assert float(signs.mean()) == pytest.approx(0, abs=0.02)
    correlations = np.corrcoef(signs.permute(1, 0, 2, 3).flatten(1))
    assert np.abs(correlations - np.eye(3)).max() < 0.02  # channels are independent


@pytest.mark.parametrize(("size", "width"), [(32, 1.5), (64, 2.0)])
def test_blobs_are_blurred_noise_cut_off(size: int, width: float) -> None:
    """Image by image, and as the definition has it: one filter over rows, columns and colours."""
    found = ood_images.blobs(3, size, np.random.default_rng(5))
    for image, noise in zip(found, np.random.default_rng(5).random((3, size, size, 3)) < 0.7, strict=True):
        values = gaussian_filter(noise.astype(float), sigma=width, mode="nearest", truncate=4)
        values[values < 0.75] = 0
        np.testing.assert_allclose(image.permute(1, 2, 0), 2 * values - 1, atol=1e-5)
    assert 0.7 < float((make_noise_images("blobs", 50, size, seed=0) == -1).float().mean()) < 0.9  # mostly black


def test_made_images_follow_the_seed_and_the_set() -> None:
    assert torch.equal(make_noise_images("gaussian", 5, 8, 0), make_noise_images("gaussian", 5, 8, 0))
    assert not torch.equal(make_noise_images("gaussian", 5, 8, 0), make_noise_images("gaussian", 5, 8, 1))
    assert len({ood_images.stream_seed(0, "foreign", name) for name in ood_images.NOISE_IMAGES}) == 3


def test_draws_are_without_replacement_and_each_image_is_kept_once() -> None:
    images = torch.arange(40).view(40, 1, 1, 1).expand(40, 3, 2, 2).to(torch.uint8)
    found = sample_ood_images("some", images, 10, 5, seed=0)
    assert found.rows.shape == (5, 10)
    drawn = found.images[:, 0, 0, 0][found.rows]
    assert all(len(set(row)) == 10 for row in drawn.tolist())
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 5
    assert len(found.images) == len(set(drawn.flatten().tolist())) < 40
    again, other = sample_ood_images("some", images, 10, 5, seed=0), sample_ood_images("some", images, 10, 5, seed=1)
    assert torch.equal(found.rows, again.rows)
    assert not torch.equal(drawn, other.images[:, 0, 0, 0][other.rows])
    longer = sample_ood_images("some", images, 10, 6, seed=0)
    assert torch.equal(longer.images[:, 0, 0, 0][longer.rows][:5], drawn)
    with pytest.raises(UserError, match="some has 40 images but a draw has 41; add --set draw_images=40"):
        sample_ood_images("some", images, 41, 5, seed=0)


def test_classes_are_compared_by_name() -> None:
    corpus = ["lawn mower", "beer bottle", "Egyptian cat", "glass", "orange"]
    names = ["Lawn_mower", "bottles", "cat", "cattle", "gla", "oranges"]
    same, kindred = shared_classes(names, corpus)
    assert same == ["Lawn_mower", "oranges"]
    assert kindred == ["Lawn_mower", "bottles", "cat", "oranges"]


def test_copies_are_found_however_bright_and_others_are_not() -> None:
    """The corpus has a darker, a reddish and a coarsely stored copy of the first three of six photographs."""
    photographs = load("synthetic", "test").images[:6]
    strangers = load("synthetic-source", "train").images[:500]
    dark, red, coarse = photographs[:3].float()
    dark, red, coarse = dark * 0.6 + 10, red * torch.tensor([1.0, 0.7, 0.7])[:, None, None], (coarse / 8).round() * 8
    copies = torch.stack([dark, red, coarse]).clamp(0, 255).to(torch.uint8)
    similarity, where = nearest_images(photographs, torch.cat([strangers, copies]))
    assert where[:3].tolist() == [500, 501, 502]
    assert (similarity[:3] > ood_images.DUPLICATE).all()
    assert (similarity[3:] < ood_images.DUPLICATE).all()
    alone, where = nearest_images(photographs, photographs)
    torch.testing.assert_close(alone, torch.ones(6))
    assert where.tolist() == list(range(6))


# ---------------------------------------------------------------------------------------- jobs


@pytest.mark.parametrize("scale", PROFILES)
def test_networks_are_those_of_calibration(scale: str) -> None:
    def keys(section: Any) -> set[str]:
        types = {"ood": OODConfig, "calibration": calibration.CalibrationConfig}
        return {
            Training(dataset=j.dataset, init=j.init, seed=j.seed, recipe=types[section.SECTION].of(j.recipe)).key
            for j in section.jobs(scale, methods=["standard"])
        }

    assert keys(ood) == keys(calibration)


def test_paper_profile_has_the_papers_sets() -> None:
    for dataset in profile("paper").datasets:
        [job, *_] = ood.jobs("paper", datasets=[dataset])
        recipe = OODConfig(**job.recipe)
        printed = paper.select("ood", dataset=dataset, arm="scratch", locator="P1 Table 6")["metric"]
        assert {f"auroc_{name}" for name in recipe.averaged} | {"auroc_mean"} == {
            name for name in printed if name.startswith("auroc_")
        }
        assert recipe.further == []
        assert (recipe.draws, recipe.draw_images) == (5, 0)


def test_unknown_values_are_refused() -> None:
    for setting in ("draws=0", "draw_images=-1", "neighbours=0", "reference_images=0"):
        name, _, value = setting.partition("=")
        with pytest.raises(UserError, match=f"{name} is {value} but must be at least"):
            ood.jobs("cpu", overrides={name: value})
    with pytest.raises(UserError, match="ood_sets names no set"):
        ood.jobs("cpu", overrides={"ood_sets": ":"})
    with pytest.raises(UserError, match="textures is named more than once"):
        ood.jobs("cpu", overrides={"ood_sets": "textures:blobs", "further_sets": "textures"})
    with pytest.raises(UserError, match="cifar10 is the ID set"):
        ood.jobs("cpu", datasets=["cifar10"], overrides={"further_sets": "cifar10"})


def test_overlap_needs_a_checkpoint_that_names_its_corpus() -> None:
    found = ood.jobs("smoke", datasets=["own"], init="tiny")
    assert {job.method for job in found} == set(ood_scores.SCORES)
    [job] = ood.jobs("smoke", datasets=["own"], init="tiny", methods=["overlap"])
    assert job.init == "tiny"


def test_further_seeds_count_the_overlap_no_second_time() -> None:
    assert all(job.method != "overlap" for job in ood.jobs("cpu", seeds=[3, 4]))
    assert {job.seed for job in ood.jobs("cpu", seeds=[3, 4], methods=["overlap"])} == {3}


# ---------------------------------------------------------------------------------------- measuring

SETTINGS = {
    "train_images": "40",
    "epochs": "1",
    "observations": "1",
    "batch_size": "20",
    "ood_sets": "gaussian:rademacher:blobs:other",
    "further_sets": "mine",
    "draw_images": "10",
    "draws": "3",
}
TINY = "wrn-10-1_other_30x3_e1_s1_abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count, classes in (("own", 60, 4), ("other", 30, 3), ("mine", 12, 2)):
        toys.write_bundle(tmp_path / "data", name, count, classes)
    toys.write_bundle(tmp_path / "data", "large", 20, 2, size=20)
    return tmp_path / "data"


@pytest.fixture
def context(root: Path, tmp_path: Path) -> Context:
    """A store with a checkpoint that says it was pre-trained on ``other``."""
    save_trained(tmp_path / "runs" / "checkpoints" / f"{TINY}.safetensors", build("wrn-10-1", 3, 0.0, 1), History(), {})
    return toys.context(tmp_path / "runs", data=root)


def own_jobs(**changes: str) -> list[Job]:
    return ood.jobs("smoke", datasets=["own"], seeds=[0], overrides=SETTINGS | changes, init=TINY)


def own_job(init: str = SCRATCH, method: str = "standard", **changes: str) -> Job:
    [job] = [job for job in own_jobs(**changes) if (job.init, job.method) == (init, method)]
    return job


def test_sweep_measures_all_documented_metrics(context: Context, root: Path) -> None:
    jobs = own_jobs()
    outcome = sweep(jobs, ood.run, context)
    assert outcome.recorded == jobs
    assert len(jobs) == 2 * len(ood_scores.SCORES) + 1  # both arms, and the overlap
    sets = ["gaussian", "rademacher", "blobs", "other", "mine"]
    plain = {f"{measure}_{name}" for measure in ood.MEASURES for name in (*sets, "mean")}
    curves = {f"roc_{name}" for name in sets} | {f"histogram_{name}" for name in (*sets, "known")}
    for job in jobs:
        record = Store(context.store).get(job)
        assert record is not None
        assert len(json.dumps(record.metrics)) < 10_000
        for name in record.metrics:
            if name != "error" and not name.startswith(("roc_", "histogram_")):
                paper.metric(name)
        if job.method == "overlap":
            continue
        expected = {"error"} | plain | {f"spread_{name}" for name in plain}
        assert set(record.metrics) == expected | (curves if job.method == "standard" else set())
        numbers = {name: float(str(record.metrics[name])) for name in expected}
        assert all(0 <= value <= 1 for value in numbers.values())
        for measure in ood.MEASURES:
            averaged = [numbers[f"{measure}_{name}"] for name in sets[:-1]]
            assert numbers[f"{measure}_mean"] == pytest.approx(np.mean(averaged))
        if job.method == "standard":
            for name in (*sets, "known"):
                assert sum(record.metrics[f"histogram_{name}"]) == pytest.approx(1, abs=0.01)
            for name in sets:
                curve = record.metrics[f"roc_{name}"]
                assert len(curve) == len(ood.RATES)
                assert curve == sorted(curve)
                assert curve[-1] == 1
        data = {
            f"{name}/{split}": load(name, split, root).checksum for name, split in (("own", "train"), ("own", "test"))
        }
        data |= {f"{name}/test": load(name, "test", root).checksum for name in ("other", "mine")}
        assert record.provenance["data"] == dict(sorted(data.items()))


def test_values_are_those_of_the_networks_scores(context: Context, root: Path) -> None:
    """By hand for one set: predict, draw, measure with scikit-learn."""
    job = own_job(TINY)
    found = ood.run(job, context)
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


def test_one_pass_serves_all_scores_and_both_arms_have_the_same_draws(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    drawn: dict[tuple[str, str], set[bytes]] = {}

    def watch_outputs(network: nn.Module, images: torch.Tensor, *arguments: object) -> Outputs:
        passes.append(len(images))
        return outputs(network, images, *arguments)

    def watch_draw(name: str, images: torch.Tensor, *arguments: int) -> ood_images.OODSample:
        found = sample_ood_images(name, images, *arguments)
        drawn.setdefault((name, "drawn"), set()).add(found.images[found.rows].numpy().tobytes())
        return found

    monkeypatch.setattr(ood, "outputs", watch_outputs)
    monkeypatch.setattr(ood, "sample_ood_images", watch_draw)
    for job in own_jobs():
        ood.run(job, context)
    assert len(passes) == 2 * 7  # per network: test images, reference images, five OOD sets
    assert len(drawn) == 5
    assert {len(draws) for draws in drawn.values()} == {1}
    assert len(list((context.store / "networks").glob("*"))) == 2


def test_changed_images_are_evaluated_again(context: Context, root: Path) -> None:
    job = own_job()
    before = ood.run(job, context)
    (root / "mine" / "test.npz").unlink()
    (root / "mine" / "train.npz").rename(root / "mine" / "test.npz")
    after = ood.run(job, toys.context(context.store, data=root))
    assert after["auroc_mine"] != before["auroc_mine"]
    assert after["auroc_other"] == before["auroc_other"]


def test_id_images_of_64_pixels_get_ood_ones_of_that_size(root: Path, tmp_path: Path) -> None:
    for name, size in (("big", 64), ("textures-64", 64), ("svhn", 32)):
        toys.write_bundle(root, name, 20, 2, size=size)
    changes = {"ood_sets": "blobs:textures", "further_sets": "", "draw_images": "4", "train_images": "20"}
    settings = SETTINGS | changes
    [job] = ood.jobs("smoke", datasets=["big"], seeds=[0], methods=["energy"], overrides=settings, init=TINY)[:1]
    context = toys.context(tmp_path / "runs", data=root)
    assert "auroc_textures" in ood.run(job, context)
    assert "textures-64/test" in context.take_used_data()
    job = dataclasses.replace(job, recipe={**job.recipe, "ood_sets": "svhn"})
    with pytest.raises(UserError, match=r"fetch svhn-64' downloads it; or do without it"):
        ood.run(job, context)


def test_a_fifth_of_the_test_images_is_drawn_where_nothing_is_said(context: Context) -> None:
    with pytest.raises(UserError, match="mine has 12 images but a draw has 13"):
        ood.run(own_job(draw_images="13"), context)
    assert "auroc_mine" in ood.run(own_job(draw_images="0"), context)  # 60 / 5 = 12


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
    context = toys.context(tmp_path / "empty", data=root)
    asked = {"methods": ["standard"], "seeds": [0]}
    with pytest.raises(UserError, match="large has images of 20x20 pixels but synthetic of 16x16"):
        registry.measure_section("ood", "smoke", context, overrides={"further_sets": "large"}, **asked)
    (root / "blobs").mkdir()
    with pytest.raises(UserError, match="blobs is noise that is made here, so no data set can be called so"):
        registry.measure_section("ood", "smoke", context, overrides={}, **asked)
    assert not list((tmp_path / "empty").rglob("*.safetensors"))


def test_id_images_that_are_not_square_are_refused(context: Context, root: Path) -> None:
    toys.write_bundle(root, "flat", 60, 4)
    for split in ("train", "test"):
        path = root / "flat" / f"{split}.npz"
        with np.load(path) as arrays:
            content = dict(arrays)
        np.savez(path, **{**content, "images": content["images"][..., :12]})
    job = dataclasses.replace(own_job(), dataset="flat")
    for ask in (ood.run, ood.check_images):
        with pytest.raises(UserError, match="flat has images of 16x12 pixels, but OOD images are square"):
            ask(job, context)


def test_overlap_is_counted(context: Context, root: Path) -> None:
    """``other`` is its own corpus; two of its test images are put among the training images.

    The toys of all sets are the same noise, with a shift by class that does not matter.
    """
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


def test_related_classes_of_imagenet_are_counted_by_name() -> None:
    assert ood._corpus("wrn-16-1_imagenet32_160000x275_e10_s1_bcea81") == "imagenet32"
    assert ood._corpus("wrn-40-2_imagenet64-no-tiny_e100_s1_abcdef") == "imagenet64-no-tiny"
    assert ood._corpus("tiny") is None
    assert ood._corpus("wrn-16-1_imagenet32_160000x275_untargeted_e10_s1_f8e138") == "imagenet32"
    assert ood._corpus("wrn-16-1_imagenet32-no-cifar10_144900x249_n14000_e10_s1_6a07ad") is None  # not all of it
    assert ood._corpus("wrn-40-2_imagenet32_authors_0123ab") is None  # of other images than ours
