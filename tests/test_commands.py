"""Every command that the README and the book print can be given as printed, from a fresh clone."""

import re
import shlex
import subprocess
from pathlib import Path

import formats
import pytest
import torch
import toys

from robustness_lib import cli
from robustness_lib.models.architectures import build

PAGES = [Path("README.md"), *sorted(Path("book").glob("*.md"))]


def printed(*pages: Path) -> list[str]:
    """The lines of the pages' shell blocks, without comments; of all pages by default, and then each once."""
    lines: list[str] = []
    for page in pages or PAGES:
        for block in re.findall(r"^```(?:bash|shell|console)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            text = block.replace("\\\n", " ")
            lines += [line.split(" #")[0].strip() for line in text.splitlines() if line.strip() and line[0] not in "#>"]
    return lines if pages else list(dict.fromkeys(lines))


@pytest.mark.parametrize("line", [line for line in printed() if re.match(r"(torchrun .*-m )?robustness", line)])
def test_a_command_can_be_read(line: str) -> None:
    words = shlex.split(line.partition("robustness")[2].removeprefix("_lib").partition(" > ")[0].rstrip("& "))
    command = toys.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("robustness", words, resilient_parsing="--help" in words)


@pytest.mark.parametrize("line", [line for line in printed() if line.startswith("papermill")])
def test_a_notebook_can_be_run(line: str) -> None:
    words = shlex.split(line)[1:]
    [source, *out] = [word for word in words if word.endswith(".ipynb")]
    assert all(Path(path).parent == Path() for path in out), "a fresh clone has no such folder"
    parameters = Path(source).with_suffix(".py").read_text().partition('tags=["parameters"')[2].partition("# %%")[0]
    for place, word in enumerate(words):
        if word == "-p":
            assert re.search(rf"^{words[place + 1]} = ", parameters, re.MULTILINE), words[place + 1]


@pytest.mark.parametrize("line", [line for line in printed() if line.startswith("make")])
def test_a_target_can_be_made(line: str) -> None:
    done = subprocess.run([*shlex.split(line), "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


IMPORTED = "imagenet_wrn_baseline_epoch_99.pt"
SMALL = ["epochs=1", "observations=1", "train_images=30", "batch_size=10"]
SMALL_BY_COMMAND = {
    "run calibration": SMALL,
    "run ood": [*SMALL, "ood_sets=gaussian", "draws=1", "draw_images=9", "reference_images=20"],
    "pretrain --profile": SMALL,
}
"""Settings with which a command takes a second."""


@pytest.mark.parametrize("page", ["README.md", "book/rerun.md", "book/data.md", "book/cluster.md"])
def test_a_page_can_be_followed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every command in its order, with little training on small files in the real formats."""
    lines = [line for line in printed(Path(page)) if line.startswith("robustness") and "--scheduler" not in line]
    formats.write_cifar10(tmp_path / "data", monkeypatch)
    formats.write_downsampled(tmp_path / "data", [[1, 2, 3, 4] * 20], [1, 2, 3, 4])
    toys.write_bundle(tmp_path / "data", "mine", 40, 4, size=32)
    weights = build("wrn-16-1", 1000, seed=3).state_dict()
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / IMPORTED)
    (tmp_path / "book").mkdir()
    (tmp_path / "book/checkpoints").symlink_to(Path("book/checkpoints").resolve())
    monkeypatch.chdir(tmp_path)
    command, name = toys.command(monkeypatch, capfd), ""
    for line in lines:
        words = ["cpu" if word == "paper" else word for word in shlex.split(line)[1:]]
        words = [name if word == "ID" else word for word in words]
        settings = list(SMALL_BY_COMMAND.get(" ".join(words[:2]), []))
        settings += [f"pretraining.{setting}" for setting in SMALL] if "smoke" in words else []
        words += [word for setting in settings for word in ("--set", setting)]
        words += ["--threads", "1"] if settings else []
        words += ["--seeds", "0", "--workers", "1"] if words[0] == "run" else []
        words += ["--dataset", "cifar10"] if words[0] == "run" and "--dataset" not in words else []
        if words[0] == "compare":
            command("publish", "--changed")  # the book has no records of this size
        status, out, err = command(*words)
        assert status == 0, (line, out, err)
        name = out.split()[0] if words[0] == "import" else name
