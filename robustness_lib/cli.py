"""The ``robustness`` command: a thin layer over the library."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from robustness_lib.errors import UserError, choose
from robustness_lib.experiments import registry
from robustness_lib.experiments.presets import PROFILES, profile
from robustness_lib.files import as_path
from robustness_lib.models import checkpoint_ids
from robustness_lib.runner import records
from robustness_lib.runner.records import EVIDENCE, PRETRAINING, PUBLISHED, Record, Store, load_published
from robustness_lib.training.config import ADVERSARIES, SEED_LIMIT

if TYPE_CHECKING:
    import pandas as pd

    from robustness_lib import data as data_sets
    from robustness_lib.runner.model_cache import Context


ABOUT = "Measures again what two papers found about pre-training and robustness."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=ABOUT)
data_app = typer.Typer(no_args_is_help=True, help="Image sets: what they are, whether they are here, how to get them.")
app.add_typer(data_app, name="data")

DEFAULT_STORE = Path("runs")
MOST = 1024  # processes or threads
RECORDED = (*registry.SECTIONS, PRETRAINING)  # the sections of records


def _option(help: str, *names: str, check: Callable[[str, Any], Any], **settings: Any) -> Any:
    """An option whose value, where one is given, is what ``check`` makes of its name and value."""

    def callback(option: typer.CallbackParam, value: Any) -> Any:
        return None if value is None else check(option.opts[0], value)

    return Option(*names, help=help, callback=callback, **settings)


def _text(help: str, *names: str) -> Any:
    return _option(help, *names, check=_not_empty)


def _not_empty(option: str, text: str) -> str:
    if not text.strip():
        raise UserError(f"{option} is empty; give it a value, or leave it out for the default")
    return text


def _number(help: str, least: float, most: float) -> Any:
    def check(option: str, number: float) -> float:
        if not least <= number <= most:  # NaN neither
            raise UserError(f"{option} is {number} but must be from {least} to {most}; leave it out for the default")
        return number

    return _option(help, check=check)


def _folder(option: str, help: str) -> Any:
    def check(option: str, text: object) -> Path:
        try:
            folder = as_path(_not_empty(option, str(text)).strip())
        except UserError as error:
            raise UserError(f"{option}: {error}") from error
        if option == "--store" and folder.exists() and not folder.is_dir():
            raise UserError(f"--store is {folder}, which is no folder; name a folder, which is made if it is missing")
        return folder

    return _option(help, option, check=check, parser=str, metavar="PATH")


ProfileName = Annotated[str, _text(f"Scale: {', '.join(PROFILES)}.", "--profile")]
Profiles = Annotated[str, _text("Profiles, separated by commas.", "--profile")]
Datasets = Annotated[str, _text("Data sets, separated by commas.")]
Methods = Annotated[str, _text("Methods, separated by commas.")]
Metrics = Annotated[str, _text("Metrics, separated by commas.")]
DataRoot = Annotated[
    Path | None, _folder("--data-root", "Folder of the image sets; else $ROBUSTNESS_DATA, else ./data.")
]
StoreFolder = Annotated[Path, _folder("--store", "Folder for records, networks and checkpoints.")]
Out = Annotated[
    Path | None, _folder("--out", "Folder that mirrors each record as soon as it is made, to take to another machine.")
]
Device = Annotated[str, _text("auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, _text("auto, bfloat16 or float32.")]
Threads = Annotated[int | None, _number("CPU threads at most; by default all. A small network takes one.", 1, MOST)]
Compile = Annotated[
    bool | None,
    Option("--compile/--no-compile", help="Whether networks are compiled for training; by default on a GPU."),
]
Settings = Annotated[
    list[str],
    Option(
        "--set", help="NAME=VALUE, a setting of the recipe; scratch., tuned. or pretraining. before NAME restricts it."
    ),
]
PretrainingSettings = Annotated[
    list[str], Option("--set", help="NAME=VALUE or pretraining.NAME=VALUE, a setting of the pre-training's recipe.")
]


def _context(
    data_root: Path | None, store: Path, device: str, precision: str, threads: int | None, compile: bool | None
) -> Context:
    import torch

    from robustness_lib.runner.model_cache import Context
    from robustness_lib.training import distributed
    from robustness_lib.training.device import Runtime

    runtime = Runtime.detect(distributed.local_device(device), precision, threads, compile)
    torch.set_num_threads(runtime.threads)
    return Context(data=data_root, store=store, runtime=runtime)


@app.command()
def run(
    section: Annotated[str, Argument(help=f"Section: {', '.join(registry.SECTIONS)}.")],
    profile_name: ProfileName = "smoke",
    dataset: Annotated[str, _text("Data sets, separated by commas; the profile's by default.")] = "all",
    method: Annotated[
        str, _text("Methods, separated by commas; the section's main ones by default; '--method help' names them.")
    ] = "all",
    seeds: Annotated[str, _text("0,1,2 or 0-4; the profile's by default.")] = "default",
    levels: Annotated[str, _text("Such as 0,0.5,1; the section's by default.")] = "all",
    settings: Settings = [],  # noqa: B006 - typer takes the default's type from it
    init: Annotated[
        str | None, _text("Id of a checkpoint to tune instead of the profile's; own: for each seed that of its seed.")
    ] = None,
    workers: Annotated[int | None, _number("Processes; by default one a GPU or CPU thread.", 1, MOST)] = None,
    scheduler: Annotated[
        str | None, _text("Address of a Dask scheduler, tcp://HOST:PORT, to run on its workers.")
    ] = None,
    time_budget: Annotated[
        float | None, _number("Seconds; no job is started when less is left than the longest like it took.", 0, 10**9)
    ] = None,
    out: Out = None,
    data_root: DataRoot = None,
    store: StoreFolder = DEFAULT_STORE,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    compile: Compile = None,
) -> None:
    """Measure what your store does not have of a section, whether or not the book has it."""
    from robustness_lib.runner import dask_executor

    if init is not None:
        checkpoint_ids.check_id(init, "--init")
    context = _context(data_root, store, device if scheduler is None else "auto", precision, threads, compile)
    options = {"device": device, "precision": precision, "threads": threads, "compile": compile}
    with dask_executor.connect(scheduler, **options) as executor:
        planned, outcome = registry.measure_section(
            section,
            profile_name,
            context,
            datasets=registry.parse_names(dataset),
            methods=registry.parse_names(method),
            seeds=registry.parse_seeds(seeds),
            chosen_levels=registry.parse_levels(levels),
            overrides=registry.parse_overrides(settings),
            init=init,
            workers=workers,
            executor=executor,
            time_budget=time_budget,
            out=out,
        )
    if not planned:
        filters = {"dataset": dataset, "method": method, "seeds": seeds, "levels": levels}
        chosen = [f"--{name} {text}" for name, text in filters.items() if text not in ("all", "default")]
        raise UserError(
            f"{section} measures nothing at {' '.join(['--profile', profile_name, *chosen])}; choose another --profile"
            + (", or leave out what restricts it" if chosen else "")
        )
    next_step = ""
    if outcome.left:
        next_step = "; run the same command again to go on"
    elif outcome.recorded or outcome.skipped:
        elsewhere = "" if store == DEFAULT_STORE else f" --store {shlex.quote(str(store))}"
        next_step = f"; 'robustness show {section} --profile {profile_name}{elsewhere}' has the numbers"
        if {job.key for job in planned} & {record.job.key for record in load_published(section)}:
            next_step += f", 'robustness compare {section}{elsewhere}' sets them beside the book's"
    print(f"{section}: {outcome.summary()}{next_step}")
    for job, error in outcome.failed:
        print(f"failed: {job.label}: {error}", file=sys.stderr)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def pretrain(
    profile_name: ProfileName = "smoke",
    corpus: Annotated[str | None, _text("Image set to pre-train on; the profile's by default.")] = None,
    seed: Annotated[int | None, _number("Seed; the profile's by default.", 0, SEED_LIMIT - 1)] = None,
    settings: PretrainingSettings = [],  # noqa: B006 - typer takes the default's type from it
    out: Out = None,
    data_root: DataRoot = None,
    store: StoreFolder = DEFAULT_STORE,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    compile: Compile = None,
) -> None:
    """Pre-train a network, unless it is there, and print its checkpoint's id.

    On several GPUs: torchrun --nproc-per-node N -m robustness_lib pretrain …
    """
    from robustness_lib.experiments import pretraining
    from robustness_lib.runner import model_cache, sync
    from robustness_lib.runner.sweep import sweep
    from robustness_lib.training import distributed

    context = _context(data_root, store, device, precision, threads, compile)
    scale = profile(profile_name)
    targets = list(scale.targets.values())
    target = next((target for target in targets if target.corpus == corpus), targets[0])
    ordered = sorted(settings, key=lambda pair: pair.startswith("pretraining."))  # those restricted to it win
    given = registry.parse_overrides([pair.removeprefix("pretraining.") for pair in ordered])
    plan = partial(pretraining.job, scale, target, seed=seed, overrides=given)
    plan(corpus_holds=target.corpus)  # settings are refused before the store is touched
    job = plan(corpus_holds=pretraining.with_counts(context.images(corpus or target.corpus, "train")))
    name = records.checkpoint_id(job)
    with (
        distributed.join(context.runtime.device) as rank,
        sync.mirrored([job], store, out if rank == 0 else None) as mirror,
    ):
        distributed.wait()  # for what is taken from ``out``
        path = model_cache.find_checkpoint(name, store)
        if rank > 0:
            if path is None:  # it cannot be made before this process helps
                pretraining.assist(job, context)
            return
        if path is None:
            pretraining.forget(job, store)
        else:
            model_cache.read_trained(path)  # though its record is there, the file may be damaged
        sweep([job], pretraining.run, context, on_record=mirror).check()
    record, result = Store(store).get(job), "no validation images of its classes"
    if record is not None and isinstance(error := record.metrics.get("error"), float):
        result = f"validation error {100 * error:.1f} %"
    print(f"{name}\n{model_cache.find_checkpoint(name, store)}: {result}")


@app.command("import")
def import_weights(
    weights: Annotated[
        str,
        Argument(help="A .pt file of P1's authors, or a torchvision network of the data root's folder torchvision."),
    ],
    corpus: Annotated[str | None, _text("Image set that an authors' network was trained on.")] = None,
    adversary: Annotated[
        str, _text(f"What an authors' network was trained against: {', '.join(ADVERSARIES)}.")
    ] = ADVERSARIES[0],
    data_root: DataRoot = None,
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Take published weights into the store, and print the id that --init takes."""
    from robustness_lib.runner import model_cache, pretrained_weights
    from robustness_lib.runner.model_cache import Context

    name = pretrained_weights.import_weights(
        str(as_path(weights)), Context(data=data_root, store=store), corpus=corpus, adversary=adversary
    )
    architecture = getattr(checkpoint_ids.origin(name), "architecture", "")
    settings = f"--set architecture={architecture}" + (" --set image_size=224" if weights == architecture else "")
    path = model_cache.find_checkpoint(name, store)
    print(f"{name}\n{path}: tune it with 'robustness run ... --init {name} {settings}'")


def _own(store: Path) -> Store:
    """The store, to read from; refused if it was named but is not there."""
    if store != DEFAULT_STORE and not store.is_dir():
        raise UserError(f"there is no store {store}; name one that 'robustness run' filled, or leave --store out")
    return Store(store)


def _published(section: str | None = None) -> list[Record]:
    """The published records, with a word on the error stream where this folder cannot have any."""
    if not PUBLISHED.is_dir():
        print(
            f"there is no {PUBLISHED} here, so only the store's records count; for the published ones too, run the "
            "command in the root of the repository",
            file=sys.stderr,
        )
    return load_published(section)


@app.command()
def status(store: StoreFolder = DEFAULT_STORE) -> None:
    """Show how much of each section you have measured, and how much the book has."""
    kept = _own(store)
    rows = registry.status(kept, _published())
    _print_table(list(rows[0]), rows)
    print(
        f"planned: jobs of the profile. yours: of these, recorded in {store}; 'robustness run' skips them. book: of "
        f"these, published in {PUBLISHED}; 'run' measures them all the same, and 'compare' sets yours beside them. "
        "other yours, other book: recorded with other settings, seeds or data sets."
    )
    for path in kept.damaged():
        print(f"{path} is not a whole record; its job counts as not recorded and will run again", file=sys.stderr)


@app.command()
def show(
    section: Annotated[str, Argument(help="Section, or pretraining.")],
    profile_name: Profiles = "all",
    dataset: Datasets = "all",
    method: Methods = "all",
    metric: Metrics = "all",
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Print your records of a section and the book's: means and standard deviations over seeds."""
    from robustness_lib.report import comparison

    choose(section, RECORDED, "section")
    table = comparison.summary(_own(store).records(section), _published(section))
    table = _restricted(table, profile=profile_name, dataset=dataset, method=method, metric=metric)
    _print_table(list(table), table.to_dict("records"))
    print(
        f"yours: recorded in {store}. book's: published in {PUBLISHED}. differs: what tells records apart that have "
        "all else in common but the seed. mean, sd: over the seeds, of which there are n; fractions, or as named."
    )


@app.command()
def compare(
    section: Annotated[str | None, Argument(help="Section, or pretraining; all by default.")] = None,
    profile_name: Profiles = "all",
    dataset: Datasets = "all",
    method: Methods = "all",
    metric: Metrics = "all",
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Set your records beside the book's, job by job and as means: do they agree?"""
    from robustness_lib.report import comparison

    if section is not None:
        choose(section, RECORDED, "section")
    yours, book = _own(store).records(section), _published(section)
    table = comparison.compare(yours, book)
    if table.empty:
        raise UserError(
            f"none of the {len(yours)} records of {section or 'all sections'} in {store} repeats a measurement of the "
            "book; 'robustness run' makes some with --profile cpu or --profile paper"
        )
    table = _restricted(table, profile=profile_name, dataset=dataset, method=method, metric=metric)
    shown = [column for column in table if column != "differs" or table[column].any()]
    numbers = ("yours", "book", "difference", "sd")
    text = table.assign(**{c: table[c].map(lambda value: "" if value != value else f"{value:.4f}") for c in numbers})
    _print_table(shown, text.to_dict("records"))
    print(
        f"yours: recorded in {store}. book: published in {PUBLISHED}. difference: yours less the book's. sd: of the "
        "book's value over its seeds, about what another seed changes. "
        "mean: over the seeds that both have; where there are none, over all that each has."
    )
    print(comparison.agreement(table))


def _restricted(table: pd.DataFrame, **chosen: str) -> pd.DataFrame:
    """The rows whose columns have one of the chosen values (names separated by commas, or "all")."""
    for column, text in chosen.items():
        wanted = registry.parse_names(text)
        if wanted is None:
            continue
        there = list(dict.fromkeys(str(value) for value in table[column]))
        if not there:
            raise UserError(f"--{column} {text} leaves nothing to show, as nothing is recorded; leave it out")
        for name in wanted:
            if name not in there:
                raise UserError(f"no selected record has the {column} {name!r}; choose one of: {', '.join(there)}")
        table = table[table[column].isin(wanted)]
    return table


@app.command()
def merge(
    folders: Annotated[list[Path], Argument(help="Folders that --out filled, or other stores.")],
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Take records and checkpoints that were made elsewhere into the store."""
    from robustness_lib.runner import sync

    bad = False
    for folder in map(as_path, folders):
        merged = sync.merge(folder, store)
        if merged == sync.Merged():
            raise UserError(
                f"{folder} holds nothing to merge, neither records (records/<section>/<key>.json) nor checkpoints "
                "(checkpoints/<id>.safetensors); give a folder that --out filled, or another store"
            )
        print(merged.summary(folder, store))
        print("".join(f"{line}\n" for line in merged.damaged), end="", file=sys.stderr)
        bad = bad or bool(merged.damaged)
    if bad:
        raise typer.Exit(1)


@app.command("publish")
def publish_records(
    store: StoreFolder = DEFAULT_STORE,
    changed: Annotated[
        bool, Option("--changed", help="Also records with settings changed by --set, which may take others' place.")
    ] = False,
    replace: Annotated[
        bool, Option("--replace", help="Also where the book has other numbers of the same job: yours instead.")
    ] = False,
    checkpoint: Annotated[list[str], Option(help="Also this checkpoint, in half precision.")] = [],  # noqa: B006 - as above
) -> None:
    """Merge the store's records into book/results, which the book reads: those that a profile plans."""
    from robustness_lib.runner import model_cache

    if not PUBLISHED.parent.is_dir():
        raise UserError(
            f"there is no folder {PUBLISHED.parent} here whose book could read them; run the command in the root of "
            "the repository, with --store for a store elsewhere"
        )
    evidence = [record for record in _own(store).records() if record.job.profile in EVIDENCE]
    chosen = []
    for record in evidence:
        changes = registry.changed_settings(record.job)
        if changed or registry.is_planned(record.job):
            source = record.provenance | ({"changed": changes} if changes else {})  # so that it can be measured again
            chosen.append(dataclasses.replace(record, provenance=source))
    for name in [checkpoint_ids.check_id(name, "--checkpoint") for name in checkpoint]:
        print(f"{model_cache.ship(name, store)}: comes with the repository now")
    result, kept = records.publish(chosen, replace=replace)
    if not result:
        print(f"nothing to publish: {store} holds no record that the profiles cpu or paper plan")
    for section, (count, fresh) in result.items():
        print(f"{PUBLISHED / section}.jsonl: {count} records, {fresh} of them new or changed")
    if others := len(evidence) - len(chosen):
        print(f"{others} with changed settings stay in {store}: the book compares like with like; --changed takes them")
    for published, new in kept:
        old, own = records.result_of(published), records.result_of(new)
        differing = (name for name in sorted(old | own) if old.get(name) != own.get(name))
        values = ", ".join(f"{name} {_brief(old.get(name))} -> {_brief(own.get(name))}" for name in differing)
        print(f"not published: {new.job.label} ({new.job.key}): {values}", file=sys.stderr)
    if kept:
        print(f"{len(kept)} published records have other numbers and stay; --replace puts yours there", file=sys.stderr)
        raise typer.Exit(1)


def _brief(value: float | list[float] | None) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else f"{len(value)} values"


@data_app.command("list")
def list_data(
    names: Annotated[list[str] | None, Argument(help="Image sets to tell all about.")] = None,
    data_root: DataRoot = None,
) -> None:
    """What each image set is, and whether it is here; of those named also where, by whom, and how to get it."""
    from robustness_lib import data

    if not names:
        rows = data.list_sets(data_root)
        rows = [row | {"here": row["found"].replace("made on the fly", "yes")} for row in rows]
        _print_table(["name", "here", "what"], rows)
        folder = data.data_root(data_root).resolve()
        print(f"searched: {folder}" + ("" if folder.is_dir() else ", which does not exist yet"))
        print("'robustness data list NAME' says where a set is looked for, who published it and how to get it")
        return
    unbroken: Any = {"break_long_words": False, "break_on_hyphens": False}
    for row in data.list_sets(data_root, names):
        print(f"{row['name']}: {row['what']}")
        place = f"{row['found']}, {row['where']}" if row["where"] else row["found"]
        for label, text in (("here", place), ("from", row["origin"]), ("get", row["get"])):
            if text:
                indent = f"  {label:4}  "
                print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=" " * 8, **unbroken))


@data_app.command("check")
def check_data(
    names: Annotated[list[str] | None, Argument(help="Image sets; all that are here by default.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Read image sets from end to end and say whether each is intact."""
    from robustness_lib import data

    if names:
        _report(data.check(name, data_root) for name in data.expand_names(names, data_root))
        return
    states = (data.check(row["name"], data_root) for row in data.list_sets(data_root))
    _report((status for status in states if status.state != "missing"), "incomplete")


@data_app.command("fetch")
def fetch_data(names: Annotated[list[str], Argument(help="Image sets.")], data_root: DataRoot = None) -> None:
    """Download image sets that can be downloaded; say how to get the others."""
    from robustness_lib import data

    _report(data.fetch(name, data_root) for name in data.expand_names(names, data_root))


def _report(statuses: Iterable[data_sets.Status], *fine: str) -> None:
    """Print the states of image sets; the command fails unless all are intact, or fine."""
    failed = False
    for status in statuses:
        print(f"{status.name} is {status.state}: {status.message}")
        failed = failed or status.state not in ("intact", *fine)
    if failed:
        raise typer.Exit(1)


def _print_table(columns: Sequence[Any], rows: Sequence[Mapping[Any, Any]]) -> None:
    cells = [[str(column) for column in columns], *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join([*padded[:-1], line[-1]]).rstrip())


def main() -> None:
    """Run the command; a mistake that the user can mend is one sentence and exit status 2."""
    terminated = False

    def end(number: int, frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        status = app(standalone_mode=False)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        usage = getattr(error, "format_message", None)  # of Click's own errors, whichever package has them
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
        elif usage or isinstance(error, UserError):
            print(f"error: {' '.join(usage().split()) if usage else error}", file=sys.stderr)
        else:
            raise
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status == 130:  # what Typer, too, makes of an interrupt
        word = "terminated" if terminated else "interrupted"
        print(f"{word}: what was recorded is kept; run the same command again to go on", file=sys.stderr)
    sys.exit(143 if terminated else status)
