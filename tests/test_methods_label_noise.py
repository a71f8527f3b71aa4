"""Corruption matrices and the labels drawn from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from robustness_lib.errors import UserError
from robustness_lib.methods.label_noise import check_matrix, corrupt_labels, corruption_matrix, observed_matrix

# The first twenty labels of P1's code at seed 1 and strength 0.6.
FIRST_TWENTY = {
    10: (
        [6, 9, 9, 4, 1, 1, 2, 7, 8, 3, 4, 7, 7, 2, 9, 9, 9, 3, 2, 6],
        [6, 9, 0, 4, 1, 1, 2, 5, 6, 3, 4, 7, 3, 7, 0, 9, 6, 3, 2, 3],
    ),
    100: (
        [19, 29, 0, 11, 1, 86, 90, 28, 23, 31, 39, 96, 82, 17, 71, 39, 8, 97, 80, 71],
        [19, 53, 0, 11, 1, 15, 31, 28, 23, 31, 39, 96, 34, 79, 4, 45, 8, 93, 23, 33],
    ),
}


@pytest.mark.parametrize("classes", FIRST_TWENTY)
def test_labels_are_those_of_the_authors_code(classes: int) -> None:
    true, noisy = FIRST_TWENTY[classes]
    assert corrupt_labels(true, corruption_matrix(classes, 0.6), 1).tolist() == noisy


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_labels_are_those_of_one_choice_an_example(seed: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    matrix = draw.dirichlet(np.full(classes, 0.3), size=classes)
    true = draw.integers(0, classes, size=60)
    legacy = np.random.RandomState(seed)
    expected = [legacy.choice(classes, p=matrix[label]) for label in true]
    assert corrupt_labels(true, matrix, seed).tolist() == expected
    counts = confusion_matrix(true, expected, labels=range(classes), normalize="true")
    there = np.isin(np.arange(classes), true)
    np.testing.assert_allclose(observed_matrix(true, expected, classes)[there], counts[there])


@given(st.integers(2, 120), st.floats(0, 1))
def test_uniform_noise_has_the_share_of_wrong_labels_of_the_paper(classes: int, strength: float) -> None:
    matrix = corruption_matrix(classes, strength)
    np.testing.assert_allclose(1 - np.diag(matrix), strength * (classes - 1) / classes, atol=1e-12)
    np.testing.assert_allclose(matrix[~np.eye(classes, dtype=bool)], strength / classes, atol=1e-12)


def test_flip_has_the_targets_of_the_authors_code() -> None:
    matrix = corruption_matrix(10, 0.4, "flip")
    assert (matrix - 0.6 * np.eye(10)).argmax(axis=1).tolist() == [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]
    assert sorted(matrix[0].tolist()) == [0.0] * 8 + [0.4, 0.6]
    assert not np.array_equal(matrix, corruption_matrix(10, 0.4, "flip", seed=2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corruption_matrix(10, 1.1), r"strength is 1\.1 but must lie in \[0, 1\]"),
        (lambda: corruption_matrix(1, 0.5), "at least 2 classes, not 1"),
        (lambda: check_matrix([[0.5, 0.4], [0, 1]]), r"row 0 of the corruption matrix sums to 0\.9 instead of 1"),
        (lambda: check_matrix([[1.0, 0.5], [0.0, 0.5]]), "transpose what has one a column"),
        (lambda: check_matrix(np.full((2, 3), 1 / 3)), r"the corruption matrix is \[2, 3\]; give \[K, K\]"),
        (lambda: corrupt_labels([0.0, 1.0], np.eye(2), 1), "whole numbers from 0 to 1"),
        (lambda: observed_matrix([0, 1], [0], 2), r"the shape of given labels is \[1\]; give \[2\]"),
    ],
)
def test_bad_input_is_one_sentence(call: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
