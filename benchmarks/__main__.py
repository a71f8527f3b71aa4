"""The command: measure what is not recorded yet, a line a measurement.

``python -m benchmarks --device cuda --time-budget 540 --out DIR`` does what fits into nine minutes, and can be repeated
until all is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import plan
from benchmarks.measurements import FRESH, run
from robustness_lib.errors import UserError
from robustness_lib.files import as_path
from robustness_lib.runner import sync
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import Job, Record
from robustness_lib.runner.sweep import Outcome, sweep
from robustness_lib.training.device import Runtime

BASELINES = {plan.AT_ONCE: "one network alone"}
"""What a measurement is compared with; the textbook loop where nothing is said."""


def fresh_process() -> Executor:
    """A process that has done nothing yet, so that no measurement inherits memory or compiled code from another."""
    return ProcessPoolExecutor(1, FRESH)


def line(record: Record) -> str:
    """A measurement in one line."""
    job = record.job
    metrics = {name: value for name, value in record.metrics.items() if not isinstance(value, list)}
    if job.method == plan.CEILINGS:
        return f"{metrics['teraflops']:.3g} TFLOP/s, {metrics['gigabytes_per_second']:.3g} GB/s"
    if job.method == plan.DETECTION:
        return f"all scores and measures in {metrics['seconds']:.2f} s"
    if job.method == plan.WORKERS:
        return f"{metrics['workers']:.0f} workers are fastest"
    return (
        f"{metrics['images_per_second']:,.0f} images/s, {metrics['ratio']:.2f} times "
        f"{BASELINES.get(job.method, 'the textbook loop')} ({metrics['ratio_min']:.2f} to {metrics['ratio_max']:.2f})"
    )


def measure_all(
    jobs: Sequence[Job],
    context: Context,
    *,
    time_budget: float | None,
    executor: Callable[[], Executor] = fresh_process,
    keep: Callable[[Record], object] = lambda record: None,
) -> Outcome:
    """Measure all that is not recorded, in order, and print a line about each.

    Args:
        jobs: From :func:`benchmarks.plan.jobs`.
        context: Store and runtime.
        time_budget: Seconds; no measurement begins that is not expected to end within them, by what one like it took.
            None for no limit.
        executor: Makes what each measurement runs in.
        keep: Called with every record that is made.

    Returns:
        What was done. A measurement that fails does not stop the others.
    """
    outcome, started = Outcome(), time.monotonic()

    def tell(record: Record) -> None:
        keep(record)
        print(f"{plan.name(record.job)}: {line(record)}; took {record.provenance['seconds']:.0f} s", flush=True)

    for job in jobs:
        left = None if time_budget is None else time_budget - (time.monotonic() - started)
        own = replace(context, runtime=plan.runtime_of(job, context.runtime))
        with executor() as process:
            try:
                done = sweep([job], run, own, time_budget=left, executor=process, on_record=tell)
            except Exception as error:  # whatever it is, the others can be measured
                done = Outcome(failed=[(job, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")])
        for name in vars(outcome):
            getattr(outcome, name).extend(getattr(done, name))
        for _, reason in done.failed:
            print(f"{plan.name(job)}: failed: {reason}", flush=True)
    return outcome


def command(arguments: Sequence[str] | None = None, executor: Callable[[], Executor] = fresh_process) -> int:
    """Read the command line and measure.

    Args:
        arguments: Those of the command; None for ``sys.argv``.
        executor: As for :func:`measure_all`.

    Returns:
        The exit status: 0, or 1 where a measurement failed.

    Raises:
        UserError: A value is unknown or out of its range.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what is not recorded yet.")
    parser.add_argument("--store", type=as_path, default=Path("runs"), help="folder of the records (%(default)s)")
    parser.add_argument("--out", type=as_path, help="folder to mirror them in, for 'robustness merge'")
    parser.add_argument("--time-budget", type=float, help="seconds; nothing begins that would not end within them")
    parser.add_argument("--rounds", type=int, help="measurements of each side; the device's own number by default")
    parser.add_argument("--only", help='measurements whose name has this text, such as "training wrn-40-2"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's choice by default")
    options = parser.parse_args(arguments)
    for flag, value in {"--rounds": options.rounds, "--time-budget": options.time_budget}.items():
        if value is not None and not value >= 1:
            raise UserError(f"{flag} is {value:g} but must be at least 1; give another value")
    if options.store.is_file():
        raise UserError(f"--store {options.store} is a file; name a folder")

    runtime = Runtime.detect(options.device, threads=options.threads)
    jobs = plan.jobs(runtime, rounds=options.rounds)
    chosen = [job for job in jobs if options.only is None or options.only in plan.name(job)]
    if not chosen:
        names = "; ".join(plan.name(job) for job in jobs)
        raise UserError(f"no measurement has {options.only!r} in its name; there are: {names}")
    where = runtime.describe()
    print(f"{where['device']}, {where['threads']} threads: {len(chosen)} measurements", flush=True)
    context = Context(store=options.store, runtime=runtime, progress=False)
    with sync.mirrored(jobs, options.store, options.out) as keep:
        outcome = measure_all(chosen, context, time_budget=options.time_budget, executor=executor, keep=keep)
    print(
        f"{len(outcome.recorded)} recorded, {len(outcome.skipped)} were recorded before, {len(outcome.failed)} failed, "
        f"{len(outcome.left)} not begun for lack of time" + ("; run the same command again" if outcome.left else "")
    )
    return 1 if outcome.failed else 0


def main() -> int:
    """Run the command; a mistake that the user can mend is one sentence and exit status 2."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was recorded is kept; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
