"""The table of a live run: every job that was run is in it, whatever its method measures."""

import dataclasses
from collections.abc import Sequence

from robustness_lib.metrics import Metrics
from robustness_lib.report import evidence, trainings
from robustness_lib.runner.records import Job, Record

SETTING = {"section": "calibration", "profile": "smoke", "dataset": "synthetic", "init": "scratch"}
JOB = Job(**SETTING, method="standard", level=None, seed=0, recipe={"epochs": 1})


def made(metrics: Metrics, precision: str = "float32", **changes: object) -> Record:
    return Record(dataclasses.replace(JOB, **changes), metrics, {"seconds": 1.0, "precision": precision})


def rows(*some: Record, metrics: tuple[str, ...] = ("error",), recorded: Sequence[Record] = ()) -> list[list[str]]:
    """The table's cells, the header first."""
    jobs, values = [record.job for record in some], evidence.tidy(recorded)
    table = trainings.live_table(jobs, some, values, metrics=metrics, caption="", name="tab")
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_no_method_level_or_arm_is_left_out() -> None:
    some = [
        made({"error": 0.25, "curve": [0.1, 0.2]}, seed=0),
        made({"error": 0.35}, seed=1),
        made({"error_tempered": 0.5}, method="temperature"),
        made({"error": 0.1}, method="glc-5", level=0.5, init="net_corpus"),
        made({"my_score": -1.5, "corpus_images": 4000.0}, method="of my own"),
    ]
    assert rows(*some) == [
        ["What", "Seeds", "test error (%)", "Measured"],
        ["synthetic, standard, from scratch", "2", "30.0 ± 7.1", ""],
        ["synthetic, temperature scaling, from scratch", "1", "", "test error, temperature scaling (%) 50.0"],
        ["synthetic, GLC, 5 % trusted at 0.5, pre-trained", "1", "10.0", ""],
        ["synthetic, of my own, from scratch", "1", "", "my score −1.500; images of the corpus 4,000"],
    ]


def test_recorded_values_of_the_same_setting_stand_beside() -> None:
    own = made({"error": 0.25}, method="glc-5", level=0.5)
    other = made({"error": 0.1}, method="glc-5", level=0.6)
    assert rows(own, recorded=[other])[1][2] == "25.0"
    same = [made({"error": error}, method="glc-5", level=0.5, seed=seed) for seed, error in enumerate((0.2, 0.3))]
    assert rows(own, recorded=[other, *same])[1][2] == "25.0<br>*recorded 25.0 ± 7.1*"


def test_what_differs_beside_the_seed_is_never_one_mean() -> None:
    twice = [made({"error": 0.2}), made({"error": 0.4}, "bfloat16", seed=1)]
    assert [row[1:] for row in rows(*twice)] == [
        ["Differs in", "Seeds", "test error (%)"],
        ["precision=float32", "1", "20.0"],
        ["precision=bfloat16", "1", "40.0"],
    ]


def test_a_job_without_a_record_is_not_run() -> None:
    table = trainings.live_table([JOB], [], evidence.tidy([]), metrics=["error"], caption="", name="tab")
    assert "| synthetic, standard, from scratch | 0 | not run |" in table


def test_the_best_candidate_is_bold() -> None:
    rows = []
    for epochs, accuracy in ((5, 0.3), (10, 0.25)):
        recipe = {"learning_rate": 0.03, "train_images": 5000, "batch_size": 128, "epochs": epochs}
        changes = {"section": "recipe_choice", "method": "adversarial", "init": "wrn-16-1_imagenet32_e3_s1_000000"}
        rows.append(made({"error": 0.4, "adversarial_accuracy": accuracy}, profile="cpu", recipe=recipe, **changes))
    measures = ["error", "adversarial_accuracy"]
    table = trainings.candidates_table(
        rows, method="adversarial", measures=measures, caption="c", name="tab-candidates"
    )
    assert "| **pre-trained** | **5** | **40.0** | **30.0** |" in table
    assert "| pre-trained | 10 | 40.0 | 25.0 |" in table
