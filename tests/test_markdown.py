"""Numbers, tables and findings as text."""

import numpy as np
import pandas as pd
import pytest

from robustness_lib.report import markdown
from robustness_lib.report.evidence import Comparison

FOUND = Comparison((0, 1), np.array([0.45, 0.46]), np.array([0.64, 0.65]), -0.19, -0.2, -0.18)


@pytest.mark.parametrize(
    ("value", "name", "settings", "text"),
    [
        (0.1325, "error", {}, "13.2"),
        (-0.004, "error", {}, "−0.4"),
        (0.004, "error", {"signed": True}, "+0.4"),
        (-0.0001, "error", {"signed": True}, "0.0"),
        (1.2345, "negative_log_likelihood", {}, "1.234"),
        (float("nan"), "error", {}, "–"),
    ],
)
def test_numbers(value, name, settings, text):
    assert markdown.number(value, name, **settings) == text


def test_sides_and_effects_have_their_units():
    assert markdown.sides(FOUND, "error") == "64.5 ± 0.7 → 45.5 ± 0.7 %"
    assert markdown.effect(FOUND, "error") == "−19.0 points [−20.0, −18.0]"
    assert markdown.effect(Comparison(), "error") == "not measured"
    one = Comparison((0,), np.array([0.4]), np.array([0.5]), -0.1, -np.inf, np.inf)
    assert markdown.effect(one, "error") == "−10.0 points"  # one seed has no interval


def test_a_table_is_myst_and_html():
    text = markdown.table([{"Set": "a|b", "Error": "<1"}], caption="A table.", name="tab-x")
    assert text.splitlines()[:2] == [":::{table} A table.", ":name: tab-x"]
    assert "| a\\|b | <1 |" in text
    assert "<td>&lt;1</td>" in text._repr_html_()
    assert "| none recorded |" in markdown.table([], caption="A table.", name="tab-x")


def test_a_finding_does_not_outlive_its_condition():
    text = markdown.findings((True, "It helps."), (False, "It does not."))
    assert "- It helps." in text
    assert "It does not." not in text
    assert markdown.STALE in text


def test_the_table_of_arms_names_what_differs():
    row = {"dataset": "cifar10", "measured_on": "cifar10", "method": "none", "level": None, "metric": "error", "n": 3}
    row |= {"scratch": 0.6, "scratch_sd": 0.01, "tuned": 0.4, "tuned_sd": 0.02, "difference": -0.2}
    row |= {"low": -0.25, "high": -0.15, "paper_scratch": 0.287, "paper_tuned": 0.159}
    numbers = {name: np.nan for name, value in row.items() if isinstance(value, float)}
    other = row | numbers | {"dataset": "cifar100", "n": 0}
    text = markdown.arms_table(pd.DataFrame([row, other]), caption="C.", name="tab-x")
    assert "| CIFAR-10 | 28.7 → 15.9 | 60.0 ± 1.0 | 40.0 ± 2.0 | −20.0 [−25.0, −15.0] |" in text
    assert "| CIFAR-100 | – | – | – | not measured |" in text
