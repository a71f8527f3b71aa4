"""What stands behind a page: commands, revisions, checksums."""

import dataclasses

from robustness_lib.experiments import ood
from robustness_lib.report import provenance
from robustness_lib.runner.records import SCRATCH, Job, Record

JOB = Job(
    section="ood", profile="paper", dataset="cifar10", init=SCRATCH, method="standard", level=None, seed=0, recipe={}
)


def test_the_box_has_commands_revision_device_time_and_checksums() -> None:
    source = {"seconds": 600.0, "device": "2 CPU cores", "precision": "bfloat16", "revision": "0123456789ab-dirty"}
    source |= {"data": {"cifar10/test": "ab" * 32}, "date": "2025-01-01T00:00:00+00:00"}
    found = [Record(dataclasses.replace(JOB, seed=seed), {"error": 0.5}, source) for seed in range(12)]
    text = provenance.provenance_box(found, "ood")
    assert text.startswith(":::{dropdown} How this page was made\n")
    assert text.count(":::") == 2
    for fact in ("--dataset cifar10", "0123456-dirty", "2 CPU cores", "2.0 h", "ab" * 32, "12 records"):
        assert fact in text
    cpu = Record(dataclasses.replace(JOB, profile="cpu"), {"error": 0.5}, {})
    both = provenance.provenance_box([*found, cpu], "ood")
    assert both.index("profile `paper`, 12 records") < both.index("profile `cpu`, 1 records")
    assert "robustness run ood --profile cpu\n" in provenance.provenance_box([], "ood")


def command(*found: Record) -> str:
    return provenance.rerun_command(found)


PLAIN = "robustness run ood --profile paper --dataset cifar10 --seeds 0"


def test_commands_name_the_seeds_and_another_part_of_the_corpus() -> None:
    whole, part = (f"wrn-40-2_imagenet32_{counts}_e100_s1_0123ab" for counts in ("1281167x1000", "160000x275"))
    for init, words in ((whole, ""), (part, f" --init {part}")):
        tuned = dataclasses.replace(JOB, init=init, seed=2)
        assert command(Record(JOB, {}, {}), Record(tuned, {}, {})) == f"{PLAIN},2{words}"


def test_commands_name_the_settings_in_which_all_records_were_changed() -> None:
    jobs = ood.jobs("paper", datasets=["cifar10"], methods=["standard"], seeds=[0])
    changes = [{"draw_images": 1000, "draws": 3}, {"draw_images": 1000, "draws": 4}]
    found = [Record(job, {"error": 0.5}, {"changed": one}) for job, one in zip(jobs, changes, strict=True)]
    assert command(*found) == f"{PLAIN} --set draw_images=1000"
    assert command(found[0], Record(jobs[1], {"error": 0.5}, {})) == PLAIN
