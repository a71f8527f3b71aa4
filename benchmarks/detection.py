"""How long the scores and measures of out-of-distribution detection take, once features and logits are there."""

from __future__ import annotations

import time
from statistics import median

import torch

from robustness_lib.methods.ood_scores import SCORES, FeatureBank, Outputs
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.ood_detection import detection_metrics
from robustness_lib.randomness import generator


def measure(
    *, id_images: int, ood_images: int, sets: int, draws: int, reference: int, features: int, classes: int, rounds: int
) -> Metrics:
    """All scores of all images, and all measures of every score, set and draw.

    Args:
        id_images: ID test images.
        ood_images: OOD images of a set, and of a draw.
        sets: OOD sets.
        draws: Draws of each.
        reference: Training images that are compared with.
        features: Features of an image.
        classes: Logits of an image.
        rounds: How often it is measured.

    Returns:
        ``seconds``, the median over rounds, and ``seconds_by_round``.
    """
    stream = generator(0, "benchmark")

    def images(count: int) -> Outputs:
        return Outputs(
            torch.randn(count, classes, generator=stream), torch.randn(count, features, generator=stream).relu()
        )

    tested = images(id_images + sets * ood_images)
    labels = torch.arange(reference) % classes
    compared = FeatureBank(images(reference).features, labels, neighbours=5)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for method in SCORES:
            scores = SCORES[method](tested, compared)
            for ood_scores in scores[id_images:].reshape(sets, ood_images):
                for _ in range(draws):
                    detection_metrics(scores[:id_images], ood_scores, out_per_in=1 / 5)
        times.append(time.perf_counter() - started)
    return {"seconds": median(times), "seconds_by_round": times}
