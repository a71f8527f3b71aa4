"""The page on the amount of data: its values at equal test error are worked out a second time from the records."""

import itertools
import json
import re
from pathlib import Path
from statistics import mean
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
def recorded() -> dict[tuple[int, bool, int], tuple[float, float]]:
    """Test error and RMS calibration error by number of images, arm and seed; pre-training has the same seed."""
    found = {}
    for line in (ROOT / "book/results/calibration.jsonl").read_text().splitlines():
        record = json.loads(line)
        job, metrics = record["job"], record["metrics"]
        place = job["recipe"]["train_images"], job["init"] != "scratch", job["seed"]
        here = (job["profile"], job["dataset"]) == ("cpu", "cifar10") and job["seed"] < 3
        named = job["method"] == ("standard" if place[0] == 5000 else f"standard-{place[0]}")
        if here and named and (not place[1] or f"_160000x275_e10_s{job['seed']}_" in job["init"]):
            found[place] = metrics["error"], metrics["rms_calibration_error"]
    return found


def at(place: float, points: list[tuple[float, float]]) -> float:
    """The value at ``place`` on the straight segment between the two points that enclose it."""
    (x0, y0), (x1, y1) = next(pair for pair in itertools.pairwise(points) if pair[0][0] <= place < pair[1][0])
    return y0 + (y1 - y0) * (place - x0) / (x1 - x0)


@pytest.mark.parametrize("images", SIZES[:2])
def test_the_difference_at_equal_test_error(
    page: dict[str, Any], recorded: dict[tuple[int, bool, int], tuple[float, float]], images: int
) -> None:
    expected = []
    for seed in range(3):
        error, rms = recorded[images, True, seed]
        scratch = sorted(recorded[size, False, seed] for size in SIZES)
        expected.append(rms - at(error, scratch))
    assert page["difference"](page["RMS"], images)[0] == pytest.approx(mean(expected))
    plain = [recorded[images, True, seed][1] - recorded[images, False, seed][1] for seed in range(3)]
    assert page["difference"](page["RMS"], images, "images")[0] == pytest.approx(mean(plain))
    assert abs(mean(expected)) < abs(mean(plain))
