"""What stands behind a page: commands, revisions, checksums."""

from __future__ import annotations

import dataclasses

from robustness_lib.experiments import ood
from robustness_lib.report import provenance
from robustness_lib.runner.records import SCRATCH, Job, Record, frame


def test_the_box_has_commands_revision_device_time_and_checksums() -> None:
    source = {"seconds": 600.0, "device": "2 CPU cores", "precision": "bfloat16", "revision": "0123456789ab-dirty"}
    source |= {"data": {"cifar10/test": "ab" * 32}, "date": "2025-01-01T00:00:00+00:00"}
    job = Job(
        section="calibration",
        profile="cpu",
        dataset="cifar10",
        init=SCRATCH,
        method="standard",
        level=None,
        seed=0,
        recipe={},
    )
    found = [Record(dataclasses.replace(job, seed=seed), {"error": 0.5}, source) for seed in range(12)]
    text = provenance.provenance_box(frame(found), "calibration")
    assert text.startswith(":::{dropdown} How this page was made\n")
    assert text.rstrip().endswith(":::")
    for fact in ("--dataset cifar10", "0123456-dirty", "2 CPU cores", "2.0 h", "ab" * 32, "12 records"):
        assert fact in text
    assert "Nothing is recorded yet" in provenance.provenance_box(frame([]), "calibration")


def test_rerun_command():
    command = provenance.rerun_command("calibration", "cpu", "cifar10", [2, 0, 1, 1])
    assert command == "robustness run calibration --profile cpu --dataset cifar10 --seeds 0,1,2"
    assert provenance.rerun_command("ood", "paper", None, []) == "robustness run ood --profile paper"
    tried = provenance.rerun_command(
        "recipe_choice", "cpu", None, [0], methods=["imbalanced", "adversarial", "imbalanced"]
    )
    assert tried == "robustness run recipe_choice --profile cpu --method adversarial,imbalanced --seeds 0"


def test_commands_name_the_checkpoint_where_it_is_of_another_part_of_the_corpus() -> None:
    whole, part = (f"wrn-40-2_imagenet32_{counts}_e100_s1_0123ab" for counts in ("1281167x1000", "160000x275"))
    job = Job(section="ood", profile="paper", dataset="cifar10", init=SCRATCH, method="standard", seed=0, level=None,
              recipe={})  # fmt: skip
    for init, words in ((whole, ""), (part, f" --init {part}")):
        found = [Record(one, {"error": 0.5}, {}) for one in (job, dataclasses.replace(job, init=init))]
        text = provenance.provenance_box(frame(found), "ood")
        assert f"\nrobustness run ood --profile paper --dataset cifar10 --seeds 0{words}\n" in text
    cpu = dataclasses.replace(job, profile="cpu", seed=3)
    text = provenance.provenance_box(frame([*found, Record(cpu, {"error": 0.5}, {})]), "ood")
    assert text.index("profile `paper`, 2 records") < text.index("profile `cpu`, 1 records")
    assert text.count(":::") == 2
    assert "profile `cpu`" not in provenance.provenance_box(frame(found), "ood")


def test_commands_name_the_settings_in_which_all_records_were_changed() -> None:
    jobs = ood.jobs("paper", datasets=["cifar10"], methods=["standard"], seeds=[0])
    changes = [{"draw_images": 1000, "draws": 3}, {"draw_images": 1000, "draws": 4}]
    found = [Record(job, {"error": 0.5}, {"changed": one}) for job, one in zip(jobs, changes, strict=True)]
    command = "robustness run ood --profile paper --dataset cifar10 --seeds 0"
    assert provenance.rerun_commands("ood", "paper", "cifar10", frame(found)) == [f"{command} --set draw_images=1000"]
    plain = [found[0], Record(jobs[1], {"error": 0.5}, {})]
    assert provenance.rerun_commands("ood", "paper", "cifar10", frame(plain)) == [command]
