"""Tables and figures that put the papers' numbers beside ours."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_paper import record

from robustness_lib import calibration, ood, paper, report
from robustness_lib.errors import UserError
from robustness_lib.records import SCRATCH, Job, Record, frame
from robustness_lib.report import verdicts
from robustness_lib.report.headlines import so_far
from robustness_lib.report.tables import number

LISTS = {
    "history_epoch": [1.0, 2.0, 3.0],
    "history_rms_calibration_error": [0.3, 0.2, 0.1],
}


def test_numbers_have_the_digits_of_their_metric_and_zero_has_no_sign() -> None:
    assert number(0.92254, "slope") == "0.9225"
    assert number(-0.4896, "intercept", signed=True) == "−0.4896"
    assert number(0.98406, "r_squared") == "0.984"
    assert number(-0.00001, "error") == "0.0"
    assert number(-0.00001, "error", signed=True) == "+0.0"


def records() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for dataset in ("cifar10", "tiny_imagenet32"):
        for arm, value in (("scratch", 0.2), ("pre-trained", 0.1)):
            for seed in range(3):
                noise = float(rng.normal(0, 0.001))
                rows.append(
                    record(
                        dataset=dataset, arm=arm, seed=seed, rms_calibration_error=value + noise, error=value + noise,
                        provenance={
                            "seconds": 600.0, "device": "2 CPU cores", "precision": "bfloat16",
                            "versions": {"torch": "2.11.0"},
                            "revision": "0123456789ab-dirty", "data": {f"{dataset}/test": "ab" * 32},
                            "date": f"2025-01-0{seed + 1}T00:00:00+00:00",
                        },
                        **LISTS,
                    )
                )  # fmt: skip
    for arm in ("scratch", "pre-trained"):
        for level in (0.0, 0.5, 1.0):
            rows.append(record(section="label_noise", method="none", arm=arm, level=level, error=0.2 + level / 2))
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def _no_figure_left():
    yield
    plt.close("all")


def parse(table: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one pipe table in a directive."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert set("".join(cells[1])) <= set("-: ")
    assert {len(row) for row in cells} == {len(cells[0])}
    return cells[0], cells[2:]


# ---------------------------------------------------------------------------------------- tables


def comparison(frame: pd.DataFrame) -> str:
    return report.comparison_table(
        "calibration", frame, metrics=["rms_calibration_error"], datasets=["cifar10", "cifar100", "tiny_imagenet"],
        caption="Calibration {cite:p}`hendrycks2019using`.", name="tab-cal", made_by="[how](#how)",
    )  # fmt: skip


def test_comparison_table_is_a_numbered_myst_table():
    table = comparison(records())
    assert table.startswith(":::{table} Calibration {cite:p}`hendrycks2019using`.\n:name: tab-cal\n\n|")
    assert table.rstrip().endswith(":::")
    header, rows = parse(table)
    assert header == ["Setting", "Verdict", "Paper", "Here (mean ± s.d., n seeds)", "Here less paper", "Made by"]
    assert [row[0] for row in rows] == [
        f"{data}, {arm}"
        for data in ("CIFAR-10", "CIFAR-100", "Tiny ImageNet")
        for arm in ("from scratch", "pre-trained")
    ]
    shown = table._repr_markdown_()
    assert shown.replace("\u00a0", " ") == table
    assert re.search("\\d\u00a0±\u00a0\\d+\\.\\d\u00a0%, n\u00a0=\u00a03", shown), "numbers keep their spread and unit"


def test_comparison_table_cells():
    frame = records()
    _, rows = parse(comparison(frame))
    ours = frame[(frame["arm"] == "scratch") & (frame["dataset"] == "cifar10")]["rms_calibration_error"] * 100
    paper_value = float(rows[0][2].removesuffix(" %"))
    assert rows[0][1] == "reference"
    assert rows[0][3] == f"{ours.mean():.1f} ± {ours.std():.1f} %, n = 3"
    assert rows[0][4:] == [f"{ours.mean() - paper_value:+.1f}", "`cpu`, `0123456-dirty`, [how](#how)"]
    assert rows[1][1] == "supported"
    assert rows[2][3:5] == ["not run", "–"]
    assert rows[3][1] == "not measured"
    assert "Tiny ImageNet (32 px)" in rows[4][3]


def test_comparison_uses_a_true_minus_and_the_papers_decimals():
    frame = records()
    frame["error"] /= 100
    _, rows = parse(
        report.comparison_table("calibration", frame, metrics=["error"], datasets=["cifar10"], caption="c", name="t")
    )
    assert rows[0][2] == "5.32 %"
    assert re.fullmatch(r"−5\.1\d", rows[0][4])


def test_comparison_of_areas_and_of_means():
    rows = report.comparison_rows(
        "label_noise", records(), metrics=["error"], datasets=["cifar10"], methods=["none"], over_levels="area"
    )
    assert list(rows["printed"]) == ["28.7", "15.9"]
    assert rows["mean"].to_list() == pytest.approx([0.45, 0.45])
    assert rows["sd"].isna().all()
    mean = report.comparison_rows(
        "imbalance", records(), metrics=["error"], datasets=["cifar10"], methods=["smote"], over_levels="mean"
    )
    assert mean["paper"].iloc[0] == pytest.approx(
        paper.select("imbalance", dataset="cifar10", method="smote", metric="error")["value"].mean()
    )


def test_comparison_at_a_given_profile():
    smoke = records().assign(profile="smoke")
    settings = {"metrics": ["error"], "datasets": ["cifar10"]}
    assert set(report.comparison_rows("calibration", smoke, **settings)["n"]) == {0}
    rows = report.comparison_rows("calibration", smoke, **settings, profile="smoke")
    assert set(rows["profile"]) == {"smoke"}
    assert set(rows["n"]) == {3}


def test_one_seed_shows_no_spread():
    frame = records()
    _, rows = parse(comparison(frame[frame["seed"] == 0]))
    assert "±" not in rows[0][3]
    assert rows[0][3].endswith(", n = 1")


def test_arms_table_pairs_by_seed():
    frame = records()
    frame = frame[~((frame["arm"] == "pre-trained") & (frame["seed"] == 2))]
    settings = {"metrics": ["error"], "datasets": ["cifar10", "tiny_imagenet", "cifar100"], "caption": "c", "name": "t"}
    header, rows = parse(report.arms_table("calibration", frame, **settings))
    assert header[1:3] == ["From scratch", "Pre-trained"]
    assert [row[0] for row in rows] == ["CIFAR-10, test error (%)", "Tiny ImageNet (32 px), test error (%)"]
    mine = (
        frame[(frame["dataset"] == "cifar10") & (frame["section"] == "calibration")]
        .pivot_table("error", "seed", "arm")
        .dropna()
    )
    effect = 100 * (mine["pre-trained"] - mine["scratch"]).mean()
    assert rows[0][3].startswith(f"{effect:+.1f} [".replace("-", "−"))
    assert rows[0][4] == "`cpu`, 2"
    _, (none,) = parse(report.arms_table("calibration", frame.iloc[:0], **settings))
    assert none[0] == "not run"


def test_tables_of_no_records():
    empty = records().iloc[:0]
    assert "not run" in comparison(empty)
    assert "not run" in report.provenance_table(empty, caption="c", name="t")
    assert "Nothing is recorded yet" in report.made_by(empty, "calibration")


def test_myst_table_escapes_pipes_and_refuses_ragged_rows():
    _, rows = parse(report.myst_table(["a", "b"], [["x|y", "z"]], caption="c", name="t"))
    assert rows == [["x\\|y", "z"]]
    with pytest.raises(ValueError, match="2"):
        report.myst_table(["a", "b"], [["x"]], caption="c", name="t")


def test_scoreboard_has_every_claim_once():
    board = report.scoreboard(records(), {section: f"{section}.ipynb" for section in paper.SECTIONS})
    tables = board.split(":::{table}")[1:]
    assert len(tables) == len(paper.SECTIONS)
    names = re.findall(r":name: (\S+)", board)
    assert names[4] == "tab-claims-calibration"
    assert len(set(names)) == len(names)
    rows = [row for table in tables for row in parse(table)[1]]
    assert [row[0] for row in rows] == [claim.statement for claim in paper.CLAIMS]
    assert all(row[4].startswith(verdicts.DIRECTIONS) for row in rows)
    first = next(row for row in rows if "RMS calibration error on CIFAR-10." in row[0])
    assert first[1] == "6.4 → 2.9 %; “at least halved” (P1 Table 5)"
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ → [\d.]+ ± [\d.]+ % \(`cpu`, n = 3\)", first[2])
    assert re.fullmatch(r"\d+ % less \[\d+, \d+\]", first[3])
    page = "calibration.ipynb"
    assert first[4].startswith("supported")
    assert first[5] == f"[Calibration]({page}), [command]({page}#how-to-run-it-again)"


def test_scoreboard_on_a_sections_own_page_needs_no_link():
    header, _ = parse(report.scoreboard(records(), sections=["calibration"], name="tab-verdicts"))
    assert header[-1] == "Verdict"


# ---------------------------------------------------------------------------------------- provenance


def test_rerun_command():
    command = report.rerun_command("calibration", "cpu", "cifar10", [2, 0, 1, 1])
    assert command == "robustness run calibration --profile cpu --dataset cifar10 --seeds 0,1,2"
    assert report.rerun_command("ood", "paper", None, []) == "robustness run ood --profile paper"
    tried = report.rerun_command("recipe_choice", "cpu", None, [0], methods=["imbalanced", "adversarial", "imbalanced"])
    assert tried == "robustness run recipe_choice --profile cpu --method adversarial,imbalanced --seeds 0"


def test_provenance_table_and_dropdown():
    frame = records()
    frame = frame[frame["section"] == "calibration"]
    header, rows = parse(report.provenance_table(frame, caption="c", name="tab-provenance"))
    assert header[-1] == "Command"
    assert rows[0] == [
        "Calibration, CIFAR-10, `cpu`",
        "6 (3 seeds)",
        "2 CPU cores; bfloat16",
        "torch 2.11.0; code `0123456-dirty`",
        "2025-01-01 to 2025-01-03; 60 min of computing",
        "`robustness run calibration --profile cpu --dataset cifar10 --seeds 0,1,2`",
    ]
    text = report.made_by(frame, "calibration")
    assert text.startswith(":::{dropdown} How this page was made\n")
    assert text.rstrip().endswith(":::")
    for fact in ("--dataset tiny_imagenet32", "0123456-dirty", "2 CPU cores", "2.0 h", "ab" * 32, "12 records"):
        assert fact in text


def test_images_with_several_contents_are_named() -> None:
    frame = records().head(3)
    data = [{"a/train": "1" * 64, "b/test": "2" * 64}, {"a/train": "3" * 64, "b/test": "2" * 64}, {"a/train": "3" * 64}]
    frame["provenance"] = [{"data": one} for one in data]
    note = report.contents_note(frame)
    assert note.count("\n- ") == 1
    profiles = list(frame["profile"])
    assert f"- `a/train`: `{'1' * 12}` (1 at `{profiles[0]}`), `{'3' * 12}` (2 at " in note
    assert report.contents_note(frame.tail(1)) == ""


def test_commands_name_the_checkpoint_where_it_is_of_another_part_of_the_corpus() -> None:
    whole, part = (f"wrn-40-2_imagenet32_{counts}_e100_s1_0123ab" for counts in ("1281167x1000", "160000x275"))
    job = Job(section="ood", profile="paper", dataset="cifar10", init=SCRATCH, method="standard", seed=0, level=None,
              recipe={})  # fmt: skip
    for init, words in ((whole, ""), (part, f" --init {part}")):
        found = [Record(one, {"error": 0.5}, {}) for one in (job, dataclasses.replace(job, init=init))]
        text = report.made_by(frame(found), "ood")
        assert f"\nrobustness run ood --profile paper --dataset cifar10 --seeds 0{words}\n" in text
    cpu = dataclasses.replace(job, profile="cpu", seed=3)
    text = report.made_by(frame([*found, Record(cpu, {"error": 0.5}, {})]), "ood")
    assert text.index("profile `paper`, 2 records") < text.index("profile `cpu`, 1 records")
    assert text.count(":::") == 2
    assert "profile `cpu`" not in report.made_by(frame(found), "ood")


def test_commands_name_the_settings_in_which_all_records_were_changed() -> None:
    jobs = ood.jobs("paper", datasets=["cifar10"], methods=["standard"], seeds=[0])
    changes = [{"draw_images": 1000, "draws": 3}, {"draw_images": 1000, "draws": 4}]
    found = [Record(job, {"error": 0.5}, {"changed": one}) for job, one in zip(jobs, changes, strict=True)]
    command = "robustness run ood --profile paper --dataset cifar10 --seeds 0"
    assert report.rerun_commands("ood", "paper", "cifar10", frame(found)) == [f"{command} --set draw_images=1000"]
    plain = [found[0], Record(jobs[1], {"error": 0.5}, {})]
    assert report.rerun_commands("ood", "paper", "cifar10", frame(plain)) == [command]


def test_the_count_of_claims_says_what_paper_networks_were_pre_trained_on() -> None:
    def told(init: str) -> str:
        arms = [calibration.jobs("paper", datasets=["cifar10"], methods=["standard"], seeds=[seed], init=init)
                for seed in (0, 1)]  # fmt: skip
        values = {SCRATCH: 0.2, init: 0.1}
        jobs = [job for both in arms for job in both]
        return so_far(frame([Record(job, {"rms_calibration_error": values[job.init]}, {}) for job in jobs]))

    assert "pre-trained on" not in told("wrn-40-2_imagenet32_1281167x1000_e100_s1_0123ab")
    words = "networks were pre-trained on 160,000 images of 275 classes instead of 1,281,167 of 1,000."
    said = told("wrn-40-2_imagenet32_160000x275_e100_s1_0123ab")
    assert f"1 is judged at the papers' scale. In 1 of those at the papers' scale, {words}" in said


# ---------------------------------------------------------------------------------------- figures


def every_figure() -> dict[str, plt.Figure]:
    frame = records()
    return {
        "levels": report.curves_with_paper(
            "label_noise", frame, "error", dataset="cifar10", method="none", x_label="corruption strength"
        ),
        "epochs": report.curves_with_paper(
            "calibration", frame, "history_rms_calibration_error", dataset="cifar100", x="history_epoch"
        ),
    }


def test_figures_have_labels_units_and_legends_outside_the_axes():
    for name, figure in every_figure().items():
        figure.canvas.draw()
        assert figure.get_figwidth() == 6.0
        assert figure.get_facecolor() == (1, 1, 1, 1)
        left = [axes for axes in figure.axes if axes.get_subplotspec().is_first_col()]
        assert all("(%)" in axes.get_ylabel() for axes in left), name
        assert all(axes.get_xlabel() for axes in figure.axes), name
        assert not any(axes.get_title() for axes in figure.axes)
        assert not any(axes.get_legend() for axes in figure.axes)
        [legend] = figure.legends
        words = [text.get_text() for text in legend.get_texts()]
        assert len(words) == len(set(words))
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1, name
        for axes in figure.axes:
            assert not box.overlaps(axes.get_window_extent()), name
            assert axes.get_tightbbox().y0 >= -1, f"{name}: labels are cut off"


def test_curves_show_the_papers_points_and_ours():
    frame = records()
    figure = report.curves_with_paper("label_noise", frame, "error", dataset="cifar10", method="none")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(lines["from scratch, paper"].get_xdata()) == 11
    assert list(lines["pre-trained, here"].get_xdata()) == [0.0, 0.5, 1.0]
    assert list(lines["pre-trained, here"].get_ydata()) == pytest.approx([20, 45, 70])


def test_arms_differ_in_colour_and_marker():
    scratch, tuned = report.arm_style("scratch"), report.arm_style("pre-trained")
    assert all(scratch[key] != tuned[key] for key in ("color", "marker"))
    with pytest.raises(UserError, match="scratch"):
        report.arm_style("tuned")


def test_figures_compose():
    figure, axes = report.new_figure(columns=2)
    for panel, dataset in zip(axes, ("cifar10", "cifar100"), strict=True):
        report.curves_with_paper("label_noise", records(), "error", dataset=dataset, method="none", axes=panel)
    assert not figure.legends
    report.legend_outside(figure)
    assert len(figure.legends) == 1


def test_use_style_sets_the_defaults():
    with mpl.rc_context():
        report.use_style()
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["savefig.facecolor"] == "white"


def test_no_number_is_typed_where_published_ones_are_shown():
    root = Path(paper.__file__).parents[1]
    for name in ("paper/claims.py", "report/tables.py", "report/provenance.py"):
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        floats = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float)}
        assert floats <= {0.0, 1.0, 100.0, 0.975}, name  # no effect, per cent, and the 95 % interval


# ---------------------------------------------------------------------------------------- in short


def test_in_short_has_the_headline_and_counts_the_verdicts():
    text = report.in_short("calibration", records())
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines[0].startswith(
        "- CIFAR-10, RMS calibration error, from scratch → pre-trained: the paper **6.4 → 2.9 %**;"
    )
    assert "seeds)**: " in lines[0]
    assert re.search(r", (supported|contradicted|undecided)\.$", lines[0])
    noted = report.in_short("calibration", records(), "A further word.", "")
    assert noted.splitlines()[:-2] == [*text.splitlines()[:-2], "- A further word."]
    assert f"Of {len(paper.claims_of('calibration'))} claims" in lines[-1]
    assert re.search(r"\(#do-the-claims-hold\): \d+ supported, .*\d+ not measured\.$", lines[-1])


def test_in_short_says_what_was_not_run():
    nothing = records().iloc[:0]
    assert "here **not run**" in report.in_short("calibration", nothing)
    claims = paper.claims_of("calibration")
    assert f"judged below](#do-the-claims-hold): {len(claims)} not measured." in report.in_short("calibration", nothing)


def test_the_scoreboard_in_sentences_lists_what_is_contradicted():
    frame = records()
    frame["rms_calibration_error"] *= np.where(frame["arm"] == "pre-trained", 5.0, 1.0)
    links = {name: f"{name}.ipynb" for name in paper.SECTIONS}
    text = report.verdict_summary(frame, links)
    assert re.match(rf"\d+ of {len(paper.CLAIMS)} claims are measured: ", text)
    failed = next(one for one in paper.CLAIMS if one.id == "cal-rms-cifar10")
    assert f"- {failed.statement} ({failed.paper}; here " in text
    assert "none yet" in report.verdict_summary(frame.iloc[:0], links)


@pytest.mark.parametrize(
    ("parts", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_parts_of_a_sentence(parts, words):
    assert report.tables.listed(parts) == words


def test_recipes_are_shown_as_they_were_run():
    job = Job(section="imbalance", profile="cpu", dataset="cifar10", init=SCRATCH, method="normal", seed=0, level=0.2,
              recipe={"architecture": "wrn-16-1", "batch_size": 32, "learning_rate": 0.05, "epochs": 115,
                      "largest": 1000, "smallest": 50})  # fmt: skip
    other = dataclasses.replace(job, level=2.0, recipe=job.recipe | {"epochs": 69})
    smote = dataclasses.replace(job, method="smote", recipe=job.recipe | {"epochs": 20})
    found = frame([Record(one, {"error": 0.5}, {}) for one in (job, other, smote)])
    shared = report.recipes_table("imbalance", found, name="t")
    header, rows = parse(shared)
    assert header == ["Arm", "Epochs", "Data sets", "Methods"]
    assert rows == [
        ["from scratch", "20", "CIFAR-10", "SMOTE"],
        ["from scratch", "69 to 115", "CIFAR-10", "normal training"],
    ]
    common = "profile `cpu`, network WRN-16-1, training images 1,000 to 50 a class, batch 32, learning rate 0.05"
    assert f"All: {common}." in shared
    assert "Pre-trained" not in shared
    whole, part = (f"wrn-40-2_imagenet32_{counts}_e100_s1_0123ab" for counts in ("1281167x1000", "160000x275"))
    tuned = [dataclasses.replace(job, init=init, profile=scale) for init, scale in ((whole, "cpu"), (part, "paper"))]
    both = report.recipes_table("imbalance", frame([Record(one, {"error": 0.5}, {}) for one in tuned]), name="t")
    assert (
        "Pre-trained on ImageNet (32 px), 1,281,167 images of 1000 classes (`cpu`); "
        "ImageNet (32 px), 160,000 images of 275 classes (`paper`)."
    ) in both
    assert [row[1] for row in parse(both)[1]] == ["`cpu`", "`paper`"]
    faster = dataclasses.replace(smote, dataset="cifar100", recipe=smote.recipe | {"learning_rate": 0.1})
    header, rows = parse(
        report.recipes_table(
            "imbalance",
            frame([Record(one, {"error": 0.5}, {}) for one in (job, faster)]),
            name="t",
        )
    )
    assert header == ["Arm", "Learning rate", "Epochs", "Data sets", "Methods"]
    assert rows[1] == ["from scratch", "0.1", "20", "CIFAR-100", "SMOTE"]
    alone = report.recipes_table("imbalance", found[found["method"] == "smote"], name="t")
    assert parse(alone)[1] == [
        ["from scratch", "`cpu`", "WRN-16-1", "1,000 to 50 a class", "32", "0.05", "20", "CIFAR-10", "SMOTE"]
    ]
    _, (none,) = parse(report.recipes_table("ood", found, name="t"))
    assert none[0] == "not run"


def test_the_papers_area_is_also_that_of_the_strengths_at_hand():
    some = records()
    curve = paper.select("label_noise", dataset="cifar10", arm="scratch", method="none", metric="error")
    curve = curve.set_index("level")["value"]
    noise = some[(some["section"] == "label_noise") & (some["dataset"] == "cifar10") & (some["method"] == "none")]
    strengths = sorted(noise["level"].unique())
    area = np.trapezoid([curve.iloc[np.abs(curve.index - strength).argmin()] for strength in strengths], strengths)
    text = report.area_note(some, datasets=["cifar10"])
    assert f"Over the {len(strengths)} strengths recorded of CIFAR-10" in text
    assert f"would be {100 * area:.1f} → " in text
    assert report.area_note(some.iloc[:0], datasets=["cifar10"]) == ""


def test_a_claim_of_ones_own_needs_no_paper(monkeypatch):
    own = dataclasses.replace(paper.claims_of("calibration")[0], id="own-rms", locator="own", statement="Ours.")
    assert own.paper == "in no paper"
    monkeypatch.setattr("robustness_lib.report.tables.claims_of", lambda section: [own])
    [row] = parse(report.scoreboard(records(), sections=["calibration"], name="t"))[1]
    assert row[:2] == ["Ours.", "in no paper"]


def test_a_section_without_published_numbers_and_an_unknown_one(monkeypatch):
    monkeypatch.setitem(paper.SECTIONS, "small_sets", "Small sets")
    assert paper.published("small_sets").empty
    assert set(paper.published("small_sets")) == set(paper.published("calibration"))
    with pytest.raises(UserError, match=r"SECTIONS in robustness_lib/paper/numbers\.py"):
        paper.published("smaller_sets")


def test_arms_at_levels_need_one():
    settings = {"metrics": ["error"], "datasets": ["cifar10"], "methods": ["none"], "caption": "c", "name": "t"}
    with pytest.raises(UserError, match=r"at levels 0, 0.5, 1 only; give level= or over_levels="):
        report.arms_table("label_noise", records(), **settings)
    assert parse(report.arms_table("label_noise", records(), level=0.5, **settings))[1][0][0] != "not run"


def test_recipes_that_differ_in_one_setting_stand_in_rows():
    jobs = [
        Job(section="label_noise", profile="cpu", dataset="cifar10", init=SCRATCH, method=method, seed=seed, level=0.6,
            recipe={"train_images": images})
        for method in ("none", "forward") for seed in (0, 1) for images in (2000, 10000) if images == 2000 or seed == 0
    ]  # fmt: skip
    errors = {(2000, 0): 0.6, (2000, 1): 0.64, (10000, 0): 0.4}
    found = frame([Record(job, {"error": errors[job.recipe["train_images"], job.seed]}, {}) for job in jobs])
    settings = {"setting": "train_images", "words": "Images", "measure": "error", "dataset": "cifar10", "level": 0.6}
    table = report.setting_table("label_noise", found, methods=["none", "forward"], caption="c", name="n", **settings)
    header, rows = parse(table)
    assert header == ["Images", "Method", "From scratch (%)", "Pre-trained (%)"]
    assert rows[0] == ["2,000", "no correction", "62.0 ± 2.8, n = 2", "not run"]
    assert rows[3] == ["10,000", "Forward correction", "40.0, n = 1", "not run"]
    none = report.setting_table("label_noise", found.iloc[:0], methods=["none"], caption="c", name="n", **settings)
    assert parse(none)[1][0][0] == "not run"
