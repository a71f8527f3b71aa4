"""The benchmark compares like with like."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from robustness_lib.errors import UserError
from robustness_lib.models import WideResNet
from robustness_lib.recipes import Recipe
from robustness_lib.runtime import Runtime

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "training.py"
TINY = ["--architecture", "wrn-10-1", "--batch-size", "4", "--batches", "2", "--rounds", "2", "--workers", "0"]
TINY += ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def updates() -> Iterator[list[dict[str, Any]]]:
    """What every update of any optimiser and any Wide ResNet is made with, in order."""
    seen: list[dict[str, Any]] = []
    batches: list[torch.Tensor] = []

    def before_forward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, WideResNet):
            batches.append(inputs[0])

    def before_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        group = optimiser.param_groups[0]
        seen.append({name: group[name] for name in ("lr", "momentum", "weight_decay", "nesterov")})
        seen[-1] |= {"batches": list(batches), "parameters": sum(p.numel() for p in group["params"])}
        batches.clear()

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(before_forward),
        register_optimizer_step_pre_hook(before_step),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def test_both_loops_do_the_same_updates_on_the_same_images(
    benchmark: ModuleType, updates: list[dict[str, Any]], tmp_path: Path
) -> None:
    images, kind = benchmark.images_to_train_on(10, tmp_path)
    assert kind == "random images"
    recipe = Recipe(architecture="wrn-10-1", batch_size=4, epochs=1, crop_padding=0)
    runtime = Runtime(device="cpu", precision="bfloat16", threads=1)
    lines: list[str] = []
    result = benchmark.measure(recipe, runtime, images=images, rounds=1, workers=[0], say=lines.append)

    names = ["textbook", "this library, bfloat16", "this library, float32"]
    assert list(result["images_per_second"]) == names
    assert all(len(values) == 1 and values[0] > 0 for values in result["images_per_second"].values())
    assert len(lines) == 2
    loops = {name: updates[3 * k - 9 :][:3] for k, name in enumerate(names)}  # the only round: three updates each
    up_to_a_flip = []
    for steps in loops.values():
        assert [len(batch) for step in steps for batch in step["batches"]] == [4, 4, 2]
        seen = torch.cat([batch for step in steps for batch in step["batches"]])
        up_to_a_flip.append((seen + seen.flip(3)).sum((2, 3)).sort(0).values)
    torch.testing.assert_close(up_to_a_flip[0], up_to_a_flip[1])
    torch.testing.assert_close(up_to_a_flip[0], up_to_a_flip[2])
    expected = (2 * images.images.double().sum((2, 3)) / 127.5 - 2 * 32 * 32).sort(0).values
    torch.testing.assert_close(up_to_a_flip[0].double(), expected, rtol=1e-4, atol=1e-2)
    for name in ("momentum", "weight_decay", "nesterov", "parameters"):
        assert len({step[name] for steps in loops.values() for step in steps}) == 1
    rates = [[step["lr"] for step in steps] for steps in loops.values()]
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    assert rates[0] == pytest.approx(rates[2], rel=1e-9)
    assert rates[0][-1] == pytest.approx(1e-6, rel=1e-9)


def test_the_command_prints_and_writes_what_it_measured(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "speed.json"
    benchmark.run([*TINY, "--data-root", str(tmp_path), "--out", str(out)])
    written = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert list(out.parent.iterdir()) == [out]
    assert "random images" in printed
    assert written["device"] in printed
    assert (written["threads"], written["batches"], written["workers"]) == (1, 2, 0)
    theirs = written["images_per_second"].pop("textbook")
    assert written["images_per_second"].keys() == written["ratio"].keys()
    for name, ours in written["images_per_second"].items():
        low, high = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        assert written["ratio"][name] == pytest.approx({"min": low, "median": (low + high) / 2, "max": high})
        assert f"{(low + high) / 2:.2f} ({low:.2f} to {high:.2f})" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "0"], "--batches is 0 but must be at least 1"),
        (["--batch-size", "-2"], "--batch-size is -2"),
        (["--workers", "0,many"], "--workers 0,many cannot be read"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--architecture", "wrn-40"], "there is no 'wrn-40'"),
        (["--data-root", "nowhere"], "the data root nowhere does not exist"),
        (["--out", "."], "is a folder"),
    ],
)
def test_bad_values_are_refused_before_anything_is_measured(
    benchmark: ModuleType, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "measure", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(UserError, match=message):
        benchmark.run(arguments)


def test_an_error_is_one_sentence(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --rounds is 0 but must be at least 1; give another value\n"
