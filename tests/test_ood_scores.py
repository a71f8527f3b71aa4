"""Out-of-distribution detection: metrics, scores and OOD images, against other implementations and by hand."""

import numpy as np
import pytest
import torch
import toys
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytorch_ood.detector import KNN, EnergyBased, Mahalanobis, MaxLogit, MaxSoftmax
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as reference_roc

from robustness_lib.data import load
from robustness_lib.errors import UserError
from robustness_lib.methods import ood_images
from robustness_lib.methods.ood_images import make_noise_images, nearest_images, sample_ood_images, shared_classes
from robustness_lib.methods.ood_scores import SCORES, FeatureBank, Outputs, knn_score, mahalanobis_score, outputs
from robustness_lib.metrics.ood_detection import detection_metrics, roc_curve
from robustness_lib.models.architectures import build
from robustness_lib.training.trainer import predict

fine = st.floats(-1e6, 1e6, allow_subnormal=False)
coarse = st.integers(-3, 3).map(float)
sides = st.one_of(
    st.tuples(st.lists(values, min_size=1, max_size=40), st.lists(values, min_size=1, max_size=40))
    for values in (fine, coarse)
)


@settings(max_examples=40)
@given(sides)
def test_metrics_equal_scikit_learn(pair: tuple[list[float], list[float]]) -> None:
    known, outside = pair
    labels, scores = np.r_[np.zeros(len(known)), np.ones(len(outside))], np.r_[known, outside]
    found = detection_metrics(known, outside)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    weights = np.r_[np.ones(len(known)), np.full(len(outside), 0.2 * len(known) / len(outside))]
    weighted = average_precision_score(labels, scores, sample_weight=weights)
    assert detection_metrics(known, outside, out_per_in=0.2)["aupr"] == pytest.approx(weighted, abs=1e-12)
    false, true, _ = reference_roc(labels, scores, drop_intermediate=False)
    rates = [0.0, 0.25, 0.5, 1.0]
    np.testing.assert_allclose(roc_curve(*pair, rates), [true[false <= rate + 1e-9].max() for rate in rates])


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


@pytest.mark.parametrize("pair", [([1.0], []), ([[1.0]], [1.0]), ([1.0, np.nan], [1.0])])
def test_unusable_scores_are_one_sentence(pair: tuple[list[float], list[float]]) -> None:
    for measure in (detection_metrics, lambda a, b: roc_curve(a, b, [0.5])):
        with pytest.raises(UserError, match=r"the scores of the (ID|OOD) images"):
            measure(*pair)
    with pytest.raises(UserError, match="out_per_in is"):
        detection_metrics([0.0], [1.0], out_per_in=np.nan)


@pytest.fixture(scope="module")
def said() -> tuple[Outputs, FeatureBank]:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    known = torch.randn(90, 5, generator=stream) + 2 * torch.eye(3, 5)[labels]
    seen = torch.randn(40, 5, generator=stream)
    return Outputs(4 * torch.randn(40, 3, generator=stream), seen), FeatureBank(known, labels, 7)


def test_scores_of_logits_equal_pytorch_ood(said: tuple[Outputs, FeatureBank]) -> None:
    for name, detector in {"standard": MaxSoftmax, "max-logit": MaxLogit, "energy": EnergyBased}.items():
        np.testing.assert_allclose(SCORES[name](*said), detector.score(said[0].logits), rtol=1e-5)


def test_neighbour_score_is_the_distance_to_the_kth_neighbour(said: tuple[Outputs, FeatureBank]) -> None:
    seen, known = said

    def unit(x: torch.Tensor) -> np.ndarray:
        return (x / x.norm(dim=1, keepdim=True)).double().numpy()

    distances = np.sort(cdist(unit(seen.features), unit(known.features)), axis=1)
    for k in (1, 7, 90):
        np.testing.assert_allclose(knn_score(seen.features, known.features, k), distances[:, k - 1], atol=1e-5)
    theirs = KNN(None, k=7).fit_features(known.features, known.labels).predict_features(seen.features)
    np.testing.assert_allclose(distances[:, 6], theirs, atol=1e-5)
    with pytest.raises(UserError, match="neighbours is 91 but there are 90"):
        knn_score(seen.features, known.features, 91)


def test_mahalanobis_score_is_the_least_distance_to_a_class(said: tuple[Outputs, FeatureBank]) -> None:
    seen, known = said
    points, labels = known.features.double().numpy(), known.labels.numpy()
    means = np.stack([points[labels == k].mean(0) for k in range(3)])
    inverse = np.linalg.inv(np.mean([np.outer(point, point) for point in points - means[labels]], axis=0))
    expected = [min(mahalanobis(x, m, inverse) ** 2 for m in means) for x in seen.features.double().numpy()]
    found = mahalanobis_score(seen.features, known.features, known.labels)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    theirs = Mahalanobis(None).fit_features(known.features, known.labels).predict_features(seen.features)
    assert np.array_equal(np.argsort(found), np.argsort(theirs.numpy()))


def test_mahalanobis_score_without_some_features_and_classes(said: tuple[Outputs, FeatureBank]) -> None:
    seen, known = said
    dead = [torch.cat([10 * x, torch.zeros(len(x), 2)], dim=1) for x in (seen.features, known.features)]
    expected = mahalanobis_score(seen.features, known.features, known.labels)
    np.testing.assert_allclose(mahalanobis_score(*dead, known.labels * 2), expected, rtol=1e-6)


@pytest.mark.parametrize("architecture", ["wrn-10-1", "resnet18"])
def test_outputs_are_the_networks(architecture: str) -> None:
    data = toys.images(30, 4, size=32)
    network = build(architecture, 4, seed=1).train()
    found = outputs(network, data.images, "cifar", toys.PLAIN, batch_size=7)
    torch.testing.assert_close(found.logits, predict(network, data, "cifar", toys.PLAIN))
    assert not network.training
    assert found.features.shape == (30, {"wrn-10-1": 64, "resnet18": 512}[architecture])
    floats = data.images.float() / 127.5 - 1
    torch.testing.assert_close(outputs(network, floats, "cifar", toys.PLAIN).logits, found.logits)


def test_noise_has_its_distribution() -> None:
    normal = make_noise_images("gaussian", 50, 32, seed=0)
    assert (normal.shape, normal.dtype, normal.abs().max()) == ((50, 3, 32, 32), torch.float32, 1)
    assert float((normal.abs() == 1).float().mean()) == pytest.approx(2 * norm.cdf(-2), abs=0.003)
    assert float((normal < 0.25).float().mean()) == pytest.approx(norm.cdf(0.5), abs=0.01)
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


def test_draws_are_without_replacement_and_each_image_is_kept_once() -> None:
    images = torch.arange(40).view(40, 1, 1, 1).expand(40, 3, 2, 2).to(torch.uint8)
    found = sample_ood_images("some", images, 10, 5, seed=0)
    assert found.rows.shape == (5, 10)
    drawn = found.images[:, 0, 0, 0][found.rows]
    assert all(len(set(row)) == 10 for row in drawn.tolist())
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 5
    assert len(found.images) == len(set(drawn.flatten().tolist())) < 40
    other = sample_ood_images("some", images, 10, 5, seed=1)
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
