"""Published predictions: reading, making and checking the tables, and what is computed from them.

The real tables are tested where the data root has them, small ones in the published formats everywhere.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustness_lib import data
from robustness_lib.data import published_predictions
from robustness_lib.data.io import MissingData, arrays_digest
from robustness_lib.errors import UserError
from robustness_lib.experiments import registry, testbed
from robustness_lib.metrics import Metrics
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import Record, Store, check_metrics, load_published

_spec = importlib.util.spec_from_file_location("testbed_tables", "scripts/testbed_tables.py")
assert _spec is not None
assert _spec.loader is not None
testbed_tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(testbed_tables)

MODELS = ("a_net", "b_net", "c_net", "fv_16k")
IMAGES = 60


def answers(part: int, count: int = IMAGES) -> np.ndarray:
    """Predicted classes [4, count] of the four models, better ones first, where class k of image k % 10 is right."""
    right = np.random.default_rng(part).random((len(MODELS), count)) < np.array([[0.9], [0.8], [0.6], [0.5]])
    return np.where(right, np.arange(count) % 10, (np.arange(count) + 1) % 10)


def write(path: Path, content: str | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)


STATES = {
    "2020-08-31": {"vgg11": ("50.0", "38.00001"), "resnet": ("70.0", "57.0")},
    "2020-11-20": {"vgg11": ("50.5", "38.5"), "resnet": ("70.0", "57.0"), "ig": ("80.0", "70.0")},
    "2021-09-15": {
        "ig": ("80.0", "70.0"),
        "resnet": ("70.0", "57.0"),
        "vgg11": ("50.5", "38.5"),
        "weak": ("20.0", "15.0"),
        "new": ("", "15.0"),
    },
}


def state(rows: dict[str, tuple[str, str]]) -> str:
    """A published table: more columns than are wanted, empty cells where nothing was evaluated."""
    columns = ["something-else", *testbed_tables.ACCURACY_COLUMNS]
    lines = [",".join(["model", *columns])]
    for model, (val, shifted) in rows.items():
        cells = {name: shifted if name.startswith("imagenetv2") else val for name in columns}
        lines.append(",".join([model, *cells.values()]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the ImageNet testbed's authors publish, small."""
    folder = tmp_path / "published"
    for date, commit in testbed_tables.SNAPSHOT_COMMITS.items():
        write(folder / commit / "robustness_top1s.csv", state(STATES[date]))
        types = "{'vgg11': ModelTypes.STANDARD,\n'ig': ModelTypes.MORE_DATA}"
        write(folder / commit / "plotting/model_types.py", types)

    def retrieve(address: str, known_hash: str | None, raw: Path) -> Path:
        raw.mkdir(parents=True, exist_ok=True)
        return folder / address.removeprefix(testbed_tables.TESTBED_ADDRESS)

    monkeypatch.setattr(testbed_tables, "retrieve", retrieve)
    return folder


LABELS = (np.arange(IMAGES) % 10).astype(np.uint8)
CIFAR10_ARRAYS: dict[str, np.ndarray] = {"model_names": np.array(MODELS)} | {
    f"{key}_{kind}": array
    for place, key in enumerate(("cifar10", "cifar101_v4", "cifar101_v6"))
    for kind, array in (("predictions", answers(place).astype(np.uint8)), ("labels", LABELS))
}
IMAGENET_ARRAYS: dict[str, np.ndarray] = {"model_names": np.array(MODELS)} | {
    f"{key}_{kind}": array
    for place, key in enumerate(("imagenet_val", "imagenetv2_matched_frequency"))
    for kind, array in (
        ("correct", np.packbits(answers(3 + place) == LABELS, axis=1)),
        ("labels", LABELS.astype(np.int16)),
    )
}


def accuracy_file() -> pd.DataFrame:
    """What the three states become, written by hand."""
    v2, objects = "imagenetv2-matched-frequency-format-val", "val-on-objectnet-classes"
    rows = [
        ("ig", "more_data", "2020-11-20", "80.0", "70.0", "", "", "80.0"),
        ("resnet", "", "2020-08-31", "70.0", "57.0", "70.0", "57.0", "70.0"),
        ("vgg11", "standard", "2020-08-31", "50.5", "38.5", "50.0", "38.00001", "50.5"),
        ("weak", "", "2021-09-15", "20.0", "15.0", "", "", ""),
        ("new", "", "2021-09-15", "", "15.0", "", "", ""),
    ]
    lines = []
    for model, kind, since, val, shifted, val_then, shifted_then, objects_then in rows:
        now = {name: shifted if name.startswith("imagenetv2") else val for name in testbed_tables.ACCURACY_COLUMNS}
        then = {"val@2020-08-31": val_then, f"{v2}@2020-08-31": shifted_then, f"{objects}@2020-11-20": objects_then}
        lines.append({"model": model, "model_type": kind, "first_snapshot": since, **now, **then})
    return pd.DataFrame(lines)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of the small tables in place of the real ones."""
    for name, digest in (
        ("cifar10-testbed", arrays_digest(CIFAR10_ARRAYS.values())),
        ("imagenet-answers", arrays_digest(IMAGENET_ARRAYS.values())),
        ("imagenet-testbed", published_predictions.table_digest(accuracy_file())),
    ):
        monkeypatch.setitem(published_predictions.CHECKSUMS, name, digest)


@pytest.fixture
def small(tmp_path: Path, pinned: None) -> Path:
    """A data root with the small tables."""
    root = tmp_path / "root"
    (root / "testbeds").mkdir(parents=True)
    np.savez(root / published_predictions.FILES["cifar10-testbed"], **CIFAR10_ARRAYS)  # type: ignore[arg-type]
    np.savez(root / published_predictions.FILES["imagenet-answers"], **IMAGENET_ARRAYS)  # type: ignore[arg-type]
    write(root / published_predictions.FILES["imagenet-testbed"], accuracy_file().to_csv(index=False))
    return root


def test_a_table_is_made_from_what_is_published(published: Path, pinned: None, tmp_path: Path) -> None:
    root, name = tmp_path / "data", "imagenet-testbed"
    assert data.check(name, root).state == "missing"
    testbed_tables.make(name, root)
    assert data.check(name, root).state == "intact"
    [made] = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert made == published_predictions.FILES[name]
    found = published_predictions.imagenet_accuracies(root)
    assert found.loc["vgg11", "val@2020-08-31"] == pytest.approx(0.5)
    assert found["val"].isna().tolist() == [False, False, False, False, True]
    assert found["model_type"].tolist() == ["more_data", "", "standard", "", ""]
    [path] = published.glob(f"{testbed_tables.SNAPSHOT_COMMITS['2021-09-15']}/*.csv")
    path.write_text(path.read_text().replace("50.5", "50.6"))
    with pytest.raises(UserError, match=r"downloading imagenet-testbed into .* failed: it is not what was published"):
        testbed_tables.make(name, tmp_path / "other")
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]


def test_tables_are_listed_beside_the_image_sets(small: Path) -> None:
    rows = {row["name"]: row for row in data.list_sets(small)}
    assert {rows[name]["found"] for name in published_predictions.FILES} == {"yes"}
    assert rows["imagenet-answers"]["get"] == "make it with 'python scripts/testbed_tables.py imagenet-answers'"
    assert data.check("cifar10-testbed", small).message.startswith("4 networks; images: cifar10 60, cifar10.1-v4 60")
    assert data.check("imagenet-testbed", small).message == "5 networks, 14 columns of accuracies"
    with pytest.raises(UserError, match="did you mean 'imagenet-testbed'"):
        data.check("imagenet-testbd", small)


def test_missing_and_damaged_tables(small: Path) -> None:
    cifar10, imagenet, accuracies = (small / place for place in published_predictions.FILES.values())
    np.savez(cifar10, **CIFAR10_ARRAYS | {"cifar10_labels": LABELS[::-1]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"damaged: the SHA-256 sum of its content is \w+, expected \w+; make it"):
        published_predictions.cifar10_correctness(small)
    imagenet.write_bytes(b"PK")
    assert data.check("imagenet-answers", small).state == "damaged"
    write(accuracies, "model,val\nx,1\n")
    assert data.check("imagenet-testbed", small).state == "damaged"
    write(accuracies, accuracy_file().to_csv(index=False).replace("57.0", "58.0"))
    with pytest.raises(UserError, match=r"damaged: the SHA-256 sum of its content is"):
        published_predictions.imagenet_accuracies(small)
    table = accuracy_file()
    write(accuracies, table.replace({"model_type": {"standard": "lp_adv"}}).to_csv(index=False))
    assert data.check("imagenet-testbed", small).state == "damaged"
    table.loc[table["model"] == "weak", "model_type"] = "low_accuracy_cnn"  # nothing is computed from the latest types
    write(accuracies, table.to_csv(index=False))
    assert data.check("imagenet-testbed", small).state == "intact"
    with pytest.raises(UserError, match=r"is missing; make it with 'python scripts/testbed_tables.py cifar10-testbed'"):
        published_predictions.cifar10_correctness(small.parent)


def test_jobs_are_one_a_pair_and_method() -> None:
    planned = testbed.jobs("cpu")
    assert len({job.key for job in planned}) == len(planned)
    assert {job.dataset for job in planned} == set(testbed.PAIRS)
    assert {job.method for job in planned} == set(testbed.METHODS)
    assert all(job.seed == 0 and job.profile == "cpu" for job in planned)
    fits = ["fit-linear", "fit-probit", "fit-logit"]
    assert [job.method for job in testbed.jobs("cpu", datasets=["objectnet"])] == fits
    [job] = testbed.jobs("cpu", datasets=["imagenet", "objectnet"], methods=["fit-logit-2021-09"], seeds=[3, 4])
    assert (job.recipe["models"], job.recipe["scaling"]) == ("2021-09-15", "logit")
    assert testbed.jobs("smoke") == testbed.jobs("paper") == []
    assert testbed.jobs("cpu", methods=["standard"]) == testbed.jobs("cpu", datasets=["synthetic"]) == []
    assert testbed.jobs("cpu", methods=["mixed", "standard"], datasets=["cifar10", "synthetic"])[0].method == "mixed"


def measure(root: Path, dataset: str, method: str) -> Metrics:
    [job] = testbed.jobs("cpu", datasets=[dataset], methods=[method])
    return check_metrics(testbed.run(job, Context(data=root)))


def test_a_small_testbed_by_hand(small: Path) -> None:
    found = measure(small, "cifar10", "fit-linear")
    inside, outside = ((answers(part) == LABELS)[:3].mean(1) for part in (0, 2))  # fv_16k is left out
    slope, intercept = np.polyfit(inside, outside, 1)
    assert found["slope"] == pytest.approx(slope)
    assert found["intercept"] == pytest.approx(intercept)
    assert found["model_count"] == 3
    pairs = measure(small, "cifar10", "image-by-image")
    correct = answers(0) == LABELS
    correct = correct[np.argsort(correct.mean(1), kind="stable")]
    expected = [(correct[i] & ~correct[j]).mean() for i in range(4) for j in range(i + 1, 4)]
    assert pairs["dominance"] == pytest.approx(expected, abs=5e-5)
    assert pairs["accuracy"] == pytest.approx(correct.mean(1), abs=5e-6)
    assert pairs["hard_count"] == (~correct).all(0).sum()
    triplets = measure(small, "imagenet", "triplets")  # of three models: each with the pair of the others
    shares = [
        [(right[k] & ~np.delete(right, k, axis=0).any(0)).mean() for k in range(3)]
        for right in ((answers(part) == LABELS)[:3] for part in (3, 4))
    ]
    assert (triplets["id_share"], triplets["ood_share"]) == pytest.approx(tuple(map(np.mean, shares)))
    ratio = [there / here for here, there in zip(*shares, strict=True) if here]  # one never happens on ID images
    assert len(ratio) == 2
    assert triplets["ratio_median"] == pytest.approx(np.median(ratio))
    assert triplets["more_often"] == pytest.approx(np.mean([one > 1 for one in ratio]))
    assert triplets["correlation"] == pytest.approx(np.corrcoef(shares)[0, 1])
    assert (triplets["model_count"], triplets["event_count"]) == (3, 3)


def test_models_are_those_that_the_table_had(small: Path) -> None:
    for method, count in (("fit-logit-2020-08-today", 2), ("fit-logit-standard", 1)):
        with pytest.raises(UserError, match=f"through {count} models"):
            measure(small, "imagenet", method)
    assert measure(small, "imagenet", "fit-logit-2020-11")["model_count"] == 3
    assert measure(small, "imagenet", "fit-logit-2021-09")["model_count"] == 4
    found = measure(small, "imagenet", "testbed")
    assert (found["model_count"], found["compared_count"]) == (2, 2)
    assert found["id_accuracy"] == [0.5, 0.7]
    assert found["more_data"] == [0, 0]


def test_a_section_measures_them_without_images_and_records_their_data(small: Path, tmp_path: Path) -> None:
    context = Context(data=small, store=tmp_path / "runs", progress=False)
    _, outcome = registry.measure_section(
        testbed.SECTION, "cpu", context, workers=1, datasets=["cifar10.1-v4"], methods=["fit-linear"]
    )
    outcome.check()
    assert [record.metrics["model_count"] for record in Store(tmp_path / "runs").records(testbed.SECTION)] == [3]
    for record in Store(tmp_path / "runs").records(testbed.SECTION):
        assert list(record.provenance["data"]) == ["cifar10-testbed"]


@pytest.fixture(scope="module")
def real() -> dict[tuple[str, str], Record]:
    """Everything that is measured of the real testbeds, where the data root has them."""
    for read in (
        published_predictions.cifar10_correctness,
        published_predictions.imagenet_correctness,
        published_predictions.imagenet_accuracies,
    ):
        try:
            read()
        except MissingData as error:
            pytest.skip(str(error))
    context = Context()
    return {
        (job.dataset, job.method): Record(job, check_metrics(testbed.run(job, context)), {})
        for job in testbed.jobs("cpu")
    }


def test_the_papers_imagenet_line_to_four_digits(real: dict[tuple[str, str], Record]) -> None:
    found = real["imagenet", "fit-logit"].metrics
    assert (f"{found['slope']:.4f}", f"{found['intercept']:.4f}") == ("0.9225", "-0.4896")
    for scaling, printed in (("linear", "0.984"), ("probit", "0.995"), ("logit", "0.996")):
        assert f"{real['imagenet', f'fit-{scaling}'].metrics['r_squared']:.3f}" == printed
    assert found["model_count"] == 201
    assert real["imagenet", "testbed"].metrics["model_count"] == 204


def test_lines_through_other_models(real: dict[tuple[str, str], Record]) -> None:
    """Values that were worked out elsewhere from the same tables."""
    for dataset, method, slope, intercept, r_squared in (
        ("cifar10", "fit-logit", 0.8393, -0.4715, 0.982),
        ("cifar10.1-v4", "fit-logit", 0.8385, -0.4966, 0.981),
        ("imagenet", "fit-logit-answers", 0.9424, -0.5161, 0.998),
    ):
        found = real[dataset, method].metrics
        assert found["slope"] == pytest.approx(slope, abs=5e-5)
        assert found["intercept"] == pytest.approx(intercept, abs=5e-5)
        assert found["r_squared"] == pytest.approx(r_squared, abs=5e-4)
    assert real["cifar10", "fit-probit"].metrics["r_squared"] == pytest.approx(0.984, abs=5e-4)
    assert real["cifar10", "fit-linear"].metrics["r_squared"] == pytest.approx(0.990, abs=5e-4)
    assert real["imagenet", "fit-logit-2021-09"].metrics["model_count"] == 335


def test_dominance_and_hard_examples(real: dict[tuple[str, str], Record]) -> None:
    found = real["imagenet", "image-by-image"].metrics
    assert (found["hard_count"], found["image_count"], found["model_count"]) == (2384, 50_000, 67)
    assert found["hard_share"] == 0.04768
    rounded = [f"{100 * float(str(found[f'dominance_{name}'])):.1f}" for name in ("mean", "lowest", "highest")]
    assert rounded == ["4.2", "0.8", "9.1"]


def test_recorded_results_are_what_the_tables_give(real: dict[tuple[str, str], Record]) -> None:
    recorded = {record.job.key: record.metrics for record in load_published(testbed.SECTION)}
    assert {record.job.key: recorded.get(record.job.key) for record in real.values()} == {
        record.job.key: record.metrics for record in real.values()
    }
