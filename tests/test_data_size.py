"""The page on the amount of data: its values at equal test error are worked out a second time from the records."""

import itertools
import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SIZES = (1000, 2000, 5000)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's cells define before its first sentence."""
    text = (ROOT / "notebooks/data_size.py").read_text().replace('"book/results"', f'"{ROOT}/book/results"')
    names: dict[str, Any] = {}
    for cell in re.split(r"(?m)^# %%", text.partition("# %% mystnb")[0])[1:]:
        if not cell.startswith(" [markdown]"):
            exec(cell.partition("\n")[2], names)
    return names


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[str, bool, int], tuple[float, float]]:
    """Test error and RMS calibration error by number of images and tuning, arm and seed, which pre-training shares."""
    found = {}
    for line in (ROOT / "book/results/calibration.jsonl").read_text().splitlines():
        record = json.loads(line)
        job, metrics = record["job"], record["metrics"]
        is_tuned, seed = job["init"] != "scratch", job["seed"]
        here = (job["profile"], job["dataset"]) == ("cpu", "cifar10") and seed < 3
        if here and (not is_tuned or f"_160000x275_e10_s{seed}_" in job["init"]):
            name = {"standard": "5000"}.get(job["method"], job["method"].removeprefix("standard-"))
            found[name, is_tuned, seed] = metrics["error"], metrics["rms_calibration_error"]
    return found


def at(place: float, points: list[tuple[float, float]]) -> float:
    """The value at ``place`` on the straight segment between the two points that enclose it."""
    (x0, y0), (x1, y1) = next(pair for pair in itertools.pairwise(points) if pair[0][0] <= place < pair[1][0])
    return y0 + (y1 - y0) * (place - x0) / (x1 - x0)


@pytest.mark.parametrize("tuning", ["", "longer", "rate-0.01"])
@pytest.mark.parametrize("images", SIZES[:2])
def test_the_difference_at_equal_test_error(
    page: dict[str, Any], recorded: dict[tuple[str, bool, int], tuple[float, float]], images: int, tuning: str
) -> None:
    expected, name = [], "-".join(filter(None, (str(images), tuning)))
    for seed in range(3):
        error, rms = recorded[name, True, seed]
        scratch = sorted(recorded[str(size), False, seed] for size in SIZES)
        expected.append(rms - at(error, scratch))
    half = 4.302653 * stdev(expected) / 3**0.5  # Student's t with two degrees of freedom
    ends = mean(expected), mean(expected) - half, mean(expected) + half
    assert page["difference"](page["RMS"], images, tuning=tuning) == pytest.approx(ends)
    if not tuning:
        plain = [recorded[name, True, seed][1] - recorded[name, False, seed][1] for seed in range(3)]
        assert page["difference"](page["RMS"], images, "images")[0] == pytest.approx(mean(plain))
        assert abs(mean(expected)) < abs(mean(plain))


def test_against_a_shorter_training_from_scratch(
    page: dict[str, Any], recorded: dict[tuple[str, bool, int], tuple[float, float]]
) -> None:
    """At about the same test error, the sign of the difference depends on the rate of fine-tuning."""
    for tuning, sign in (("", 1), ("-rate-0.01", -1)):
        expected = [
            recorded[f"1000{tuning}", True, seed][1] - recorded["5000-shorter", False, seed][1] for seed in range(3)
        ]
        assert page["against_short"](page["RMS_NAME"], tuning).effect == pytest.approx(mean(expected))
        assert sign * mean(expected) > 0.03
