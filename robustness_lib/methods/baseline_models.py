"""Our own testbed: ordinary models of a target, from weak to strong, that a baseline is fitted to (P2 §3, B.1).

Networks, and for low accuracies models of pixels, which P2 does not name (ours are scikit-learn's).
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError, choose

PIXEL_MODELS = ("bayes", "neighbours", "ridge", "logistic", "forest", "random-features", "kernel")
"""Models that see an image as a row of pixels."""

Score = Callable[[ImageDataset], Tensor]
"""Images to scores of the K classes, float [N, K]; the largest is the prediction."""


def _pixel_rows(images: ImageDataset) -> NDArray[np.float32]:
    return (images.images.flatten(1).to(torch.float32) / 255).numpy()


def _pixel_model(name: str, seed: int) -> Any:
    from sklearn import decomposition, ensemble, linear_model, naive_bayes, neighbors, preprocessing, svm
    from sklearn.kernel_approximation import RBFSampler
    from sklearn.pipeline import make_pipeline

    pca = functools.partial(decomposition.PCA, random_state=seed)
    kernel = RBFSampler(gamma=0.01, n_components=1000, random_state=seed)
    return {
        "bayes": make_pipeline(pca(30), naive_bayes.GaussianNB()),
        "neighbours": make_pipeline(pca(60), neighbors.KNeighborsClassifier(15, weights="distance")),
        "ridge": make_pipeline(preprocessing.StandardScaler(), linear_model.RidgeClassifier(3000.0)),
        "logistic": make_pipeline(pca(100, whiten=True), linear_model.LogisticRegression(C=0.01)),
        "forest": ensemble.RandomForestClassifier(100, random_state=seed),
        "random-features": make_pipeline(pca(100), kernel, linear_model.RidgeClassifier(1.0)),
        "kernel": make_pipeline(pca(100), svm.SVC(C=5.0, gamma="scale")),
    }[choose(name, PIXEL_MODELS, "model of pixels")]


def fit_pixel_model(name: str, data: ImageDataset, seed: int) -> Score:
    """Fit one of :data:`PIXEL_MODELS`."""
    from sklearn.exceptions import ConvergenceWarning

    if (count := len(torch.unique(data.labels))) < 2:
        raise UserError(f"{data.name} has images of {count} classes; a model needs at least two")
    model = _pixel_model(name, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_pixel_rows(data), data.labels.numpy())
    score_rows = getattr(model, "decision_function", None) or model.predict_proba

    def score(images: ImageDataset) -> Tensor:
        scores = torch.as_tensor(score_rows(_pixel_rows(images)), dtype=torch.float32)
        if scores.dim() == 1:  # of two classes scikit-learn gives the second one's score
            scores = torch.stack([-scores, scores], 1)
        of_all_classes = torch.full((len(images), images.num_classes), -torch.inf)
        of_all_classes[:, torch.as_tensor(model.classes_)] = scores
        return of_all_classes

    return score
