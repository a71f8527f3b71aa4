"""What is lost when a sweep is killed: ``python -m benchmarks.kills --kills 200``.

The same small command, pre-training included, is killed at random moments by SIGKILL or SIGTERM and given again, until
it ends by itself; then it starts anew. What it recorded is compared with a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.process
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from robustness_lib import cli
from robustness_lib.models.checkpoints import load_weights, weights_checksum
from robustness_lib.runner.records import Store, result_of

SETTINGS = ("epochs=2", "train_images=100", "observations=1", "pretraining.epochs=1", "pretraining.train_images=400")
COMMAND = ["run", "calibration", "--seeds", "0", *(word for setting in SETTINGS for word in ("--set", setting))]

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["robustness_lib.cli", "robustness_lib.runner.sweep", "torch._dynamo", "torchvision"])


def run(folder: Path) -> None:
    """The command, in a process that has imported the library already."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    place = ["--store", str(folder / "runs"), "--out", str(folder / "out"), "--device", "cpu", "--threads", "1"]
    sys.argv = ["robustness", *COMMAND, *place]
    cli.main()


def start(folder: Path) -> multiprocessing.process.BaseProcess:
    process = CHILDREN.Process(target=run, args=(folder,))
    process.start()
    return process


def results(store: Path) -> dict[str, object]:
    """Metrics by key, and checksums of weights by path."""
    found: dict[str, object] = {record.job.key: result_of(record) for record in Store(store).records()}
    for path in store.glob("*/*.safetensors"):
        if not path.stem.endswith(".partial"):
            found[str(path.relative_to(store))] = weights_checksum(load_weights(path)[0])
    return found


def leftovers(folder: Path) -> list[Path]:
    """Files of writes and trainings that did not end."""
    return [*folder.rglob(f".*.{'[0-9a-f]' * 8}"), *folder.rglob("*.partial.safetensors")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, counts = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        calm, folder = Path(name) / "calm", Path(name) / "killed"
        for _ in range(2):  # the first one also starts the server that the others come from
            shutil.rmtree(calm, ignore_errors=True)
            started = time.monotonic()
            process = start(calm)
            process.join()
            if process.exitcode != 0:
                sys.exit("the command fails without any kill; run it by itself to see why")
        seconds, expected, mirrored = time.monotonic() - started, results(calm / "runs"), results(calm / "out")
        before: dict[str, object] = {}
        while counts["kills"] < options.kills:
            process = start(folder)
            process.join(draw.uniform(0, 1.2 * seconds))
            if process.is_alive():
                kind = draw.choice((signal.SIGKILL, signal.SIGTERM))
                os.kill(process.pid or 0, kind)
                process.join()
                counts.update(["kills", kind.name])
                counts["other status"] += process.exitcode not in (-kind, 143)
            now = results(folder / "runs")
            counts["lost"] += sum(now.get(key) != value for key, value in before.items())
            counts["damaged"] += len(Store(folder / "runs").damaged())
            counts["differing"] += sum(expected.get(key) != value for key, value in now.items())
            before = now
            if process.exitcode == 0:
                counts["completed"] += 1
                counts["incomplete"] += now != expected or results(folder / "out") != mirrored
                counts["left over"] += len(leftovers(folder))
                shutil.rmtree(folder)
                before = {}
    names = ("kills", "SIGKILL", "SIGTERM", "completed", "lost", "damaged", "differing", "incomplete", "left over")
    print(", ".join(f"{name} {counts[name]}" for name in (*names, "other status")))


if __name__ == "__main__":
    main()
