"""How fast the library's training loop is, side by side with a plain textbook PyTorch loop.

Both loops give the same network the same number of updates on the same images at the same batch size, with the same
augmentation, optimiser and learning rates (WRN-40-2, batch 128 by default). They run in turn, A B A B …, in one
process, so that whatever else the machine does meets both; the ratio is taken round by round.

    python benchmarks/training.py
    python benchmarks/training.py --device cuda --batches 200 --out speed.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from robustness_lib.data import ImageSet, load
from robustness_lib.data.files import MissingData
from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically
from robustness_lib.models import build
from robustness_lib.randomness import generator
from robustness_lib.recipes import NORMALISATIONS, Recipe
from robustness_lib.runtime import Runtime
from robustness_lib.training import cpu_threads, train

TEXTBOOK = "textbook"
SEED = 0
CLASSES = 10


# ------------------------------------------------------------------------------------------ the textbook loop


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's own classes serve them: one PIL image at a time, then the transformation."""

    def __init__(self, images: ImageSet, recipe: Recipe) -> None:
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.images.shape[-1], padding=recipe.crop_padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*NORMALISATIONS[recipe.normalisation]),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


Loader = DataLoader[tuple[Tensor, int]]


def textbook_loader(images: ImageSet, recipe: Recipe, runtime: Runtime, workers: int) -> Loader:
    """Batches for the textbook loop, from worker processes that are already running.

    Starting them is left out of every measurement (a real epoch is longer than ours, and hides it).
    """
    loader = DataLoader(
        PILImages(images, recipe),
        batch_size=recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=runtime.device != "cpu",
        persistent_workers=workers > 0,
    )
    if workers:
        for _ in loader:
            pass
    return loader


def train_textbook(network: nn.Module, loader: Loader, recipe: Recipe, device: str) -> float:
    """Train as the papers' era wrote it: float32, a scheduler step and a look at the loss after every update.

    Returns:
        The moving average of the loss.
    """
    network.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    total = recipe.epochs * len(loader)
    last = recipe.final_learning_rate / recipe.learning_rate
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (done + 1) / total))
    )
    average = 0.0
    for _ in range(recipe.epochs):
        network.train()
        for inputs, targets in loader:
            loss = F.cross_entropy(network(inputs.to(device)), targets.to(device))
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            scheduler.step()
            average = 0.8 * average + 0.2 * loss.item()
    return average


@contextlib.contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Let cuDNN pick the fastest algorithms by trial, which the textbook loop switches on."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


# ------------------------------------------------------------------------------------------ measuring


def images_to_train_on(count: int, data_root: Path | None) -> tuple[ImageSet, str]:
    """The first ``count`` images of CIFAR-10 (from the start again where that is more), or random ones.

    Args:
        count: Number of images.
        data_root: The data root; None for the usual one.

    Returns:
        The images, 32x32 pixels in ten classes, and a name for what they are.

    Raises:
        UserError: CIFAR-10 is damaged, or a data root was named that does not exist.
    """
    try:
        whole = load("cifar10", "train", data_root)
    except MissingData:
        if data_root is not None and not data_root.expanduser().is_dir():
            raise
        stream = generator(SEED, "benchmark")
        pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=stream, dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (count,), generator=stream)
        return ImageSet("random", pixels, labels, tuple(map(str, range(CLASSES)))), "random images"
    return whole.subset(torch.arange(count) % len(whole)), "CIFAR-10"


def images_per_second(work: Callable[[], object], images: int, device: str) -> float:
    """Run ``work``, which processes ``images``, and time it until the device has done it all."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return images / (time.perf_counter() - started)


def measure(
    recipe: Recipe,
    runtime: Runtime,
    *,
    images: ImageSet,
    rounds: int,
    workers: Sequence[int],
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Time the textbook loop and the library's in turn, each from fresh weights and through all of ``images``.

    The library's loop runs in the runtime's precision and, where that is another, in float32 too. Each loop is
    warmed up first; the textbook loop tries every number of workers on half of the images and keeps the fastest.

    Args:
        recipe: Network, batch size and everything that the two loops have in common; one epoch is one measurement.
        runtime: Device, precision of the library's loop, and threads of both.
        images: What one measurement trains on.
        rounds: How often each loop is timed.
        workers: Numbers of DataLoader workers to try.
        say: Called with a line about each step.

    Returns:
        ``workers`` (the number kept), ``workers_tried`` (images/s by number), ``images_per_second`` (by loop, one
        value a round) and ``ratio`` (by loop of the library, ``min``, ``median`` and ``max`` over the rounds of its
        images/s over those of the textbook loop).

    Raises:
        UserError: There is no such network.
    """

    def fresh() -> nn.Module:
        return build(recipe.architecture, images.num_classes, seed=SEED).to(runtime.device)

    def time_textbook(loader: Loader, count: int) -> float:
        network = fresh()
        with cudnn_benchmark():
            return images_per_second(
                lambda: train_textbook(network, loader, recipe, runtime.device), count, runtime.device
            )

    def time_library(precision: str, part: ImageSet) -> float:
        network = fresh()
        where = Runtime(device=runtime.device, precision=precision, threads=runtime.threads)
        return images_per_second(
            lambda: train(network, part, recipe, seed=SEED, runtime=where), len(part), runtime.device
        )

    def beginning(batches: int) -> ImageSet:
        return images.subset(torch.arange(min(batches * recipe.batch_size, len(images))))

    precisions = list(dict.fromkeys([runtime.precision, "float32"]))
    library = {f"this library, {precision}": precision for precision in precisions}
    with cpu_threads(runtime.threads):
        for precision in precisions:
            time_library(precision, beginning(2))
        time_textbook(textbook_loader(beginning(2), recipe, runtime, 0), len(beginning(2)))

        trial = beginning(max(1, len(images) // recipe.batch_size // 2))
        tried = {}
        for count in workers:
            tried[count] = time_textbook(textbook_loader(trial, recipe, runtime, count), len(trial))
            say(f"{TEXTBOOK} with {count} workers: {tried[count]:.1f} images/s")
        best = max(tried, key=lambda count: tried[count])
        loader = textbook_loader(images, recipe, runtime, best)

        speeds: dict[str, list[float]] = {name: [] for name in (TEXTBOOK, *library)}
        for number in range(1, rounds + 1):
            speeds[TEXTBOOK].append(time_textbook(loader, len(images)))
            for name, precision in library.items():
                speeds[name].append(time_library(precision, images))
            latest = ", ".join(f"{name} {values[-1]:.1f}" for name, values in speeds.items())
            say(f"round {number} of {rounds}, images/s: {latest}")

    ratio = {}
    for name in library:
        each = [ours / theirs for ours, theirs in zip(speeds[name], speeds[TEXTBOOK], strict=True)]
        ratio[name] = {"min": min(each), "median": median(each), "max": max(each)}
    return {"workers": best, "workers_tried": tried, "images_per_second": speeds, "ratio": ratio}


def table(result: Mapping[str, Any]) -> str:
    """The measurement as text: a line a loop."""
    lines = [f"{'loop':26}{'images/s (median)':>18}   times the textbook loop, round by round: median (min to max)"]
    for name, values in result["images_per_second"].items():
        line = f"{name:26}{median(values):18.1f}"
        if name in result["ratio"]:
            line += "   {median:.2f} ({min:.2f} to {max:.2f})".format(**result["ratio"][name])
        lines.append(line)
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ the command


def worker_counts(text: str | None) -> list[int]:
    """The numbers of workers to try: as given, or 0 and the powers of 2 up to the number of cores."""
    if text is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [0, *(2**k for k in range(cores.bit_length()))]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError(f"--workers {text} cannot be read: whole numbers were expected; give for example 0,1,2")
    return [int(part) for part in parts]


def run(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the command line, measure, print, and write the file where one is asked for.

    Raises:
        UserError: A value is unknown or out of its range, or data or the output cannot be used.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--architecture", default="wrn-40-2", help="a network of the library (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="images an update (%(default)s)")
    parser.add_argument("--batches", type=int, default=20, help="updates a measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each loop (%(default)s)")
    parser.add_argument("--workers", help="DataLoader workers to try, such as 0,1,2; the fastest number is used")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--precision", default="auto", help="of the library's loop: auto, bfloat16 or float32")
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's choice by default")
    parser.add_argument("--data-root", type=Path, help="folder of the image sets; else $ROBUSTNESS_DATA, else ./data")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    for name in ("batch_size", "batches", "rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is {value} but must be at least 1; give another value")
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder; name a file in it")

    workers = worker_counts(options.workers)
    runtime = Runtime.detect(options.device, options.precision, options.threads)
    recipe = Recipe(architecture=options.architecture, batch_size=options.batch_size, epochs=1)
    with torch.device("meta"):
        build(recipe.architecture, CLASSES)  # an unknown name is refused before anything is read
    images, kind = images_to_train_on(options.batches * options.batch_size, options.data_root)

    setting = {
        **runtime.describe(),
        "torch": torch.__version__,
        "images": kind,
        "architecture": recipe.architecture,
        "batch_size": recipe.batch_size,
        "batches": options.batches,
        "rounds": options.rounds,
    }
    print("\n".join(f"{name.replace('_', ' ') + ':':14}{value}" for name, value in setting.items()), flush=True)
    result = measure(
        recipe,
        runtime,
        images=images,
        rounds=options.rounds,
        workers=workers,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{TEXTBOOK}: float32, {result['workers']} workers (the fastest of {', '.join(map(str, workers))})")
    print(table(result))
    if options.out is not None:
        write_atomically(options.out, (json.dumps(setting | result, indent=2) + "\n").encode())
        print(f"written: {options.out}")
    return setting | result


def main() -> None:
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
