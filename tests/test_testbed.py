"""Published predictions: reading, making and checking the tables, and what is computed from them.

The real tables are tested where the data root has them, small ones in the published formats everywhere.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
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

MODELS = ("a_net", "b_net", "c_net", "fv_16k")
IMAGES = 60


def answers(part: int, count: int = IMAGES) -> np.ndarray:
    """Predicted classes [4, count] of the four models, better ones first, where class k of image k % 10 is right."""
    draw = np.random.default_rng(part)
    right = draw.random((len(MODELS), count)) < np.array([[0.9], [0.8], [0.6], [0.5]])
    return np.where(right, np.arange(count) % 10, (np.arange(count) + 1) % 10)


def write(path: Path, content: str | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)


# --------------------------------------------------------------------------------------------- what authors publish

TYPES = """from enum import Enum

class ModelTypes(Enum):
    STANDARD = ('Standard training', 'tab:blue')

model_types_map = {
'vgg11': ModelTypes.STANDARD,
'ig': ModelTypes.MORE_DATA,
}
nat_model_types_map = {k: mapper[v] for k, v in model_types_map.items()}
raise SystemExit("never run")
"""

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
    columns = ["something-else", *published_predictions.ACCURACY_COLUMNS]
    lines = [",".join(["model", *columns])]
    for model, (val, shifted) in rows.items():
        cells = {name: shifted if name.startswith("imagenetv2") else val for name in columns}
        lines.append(",".join([model, *cells.values()]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the authors publish, small, behind a server on this machine."""
    folder = tmp_path / "published"
    for number, part in enumerate(("original", "v4", "v6")):
        for model, row in zip(MODELS, answers(number), strict=True):
            path = folder / f"cifar101/model_predictions/{part}_predictions/{model}_predictions.json"
            write(path, json.dumps(row.tolist(), indent=2))
        labels = (np.arange(IMAGES) % 10).astype(np.int32 if part == "original" else np.uint16)
        name = "cifar10_labels.npy" if part == "original" else f"cifar101/datasets/cifar10.1_{part}_labels.npy"
        write(folder / name, labels)
    wnids = [f"n{number:08d}" for number in range(10)]
    classes = [{"cid": number, "wnid": wnid, "synset": ["x"]} for number, wnid in enumerate(wnids)]
    write(folder / "v2/metadata/class_info.json", json.dumps(classes))
    for number, part in enumerate(("imagenet-validation-original", "imagenetv2-b-33")):
        names = [[f"image{image}", wnids[image % 10]] for image in range(IMAGES)]
        write(folder / f"v2/datasets/{part}.json", json.dumps({"seed": 1, "image_filenames": names}))
        for model, row in zip(MODELS, answers(3 + number), strict=True):
            five = np.stack([row, *[(row + step) % 10 for step in range(1, 5)]], axis=1)
            write(folder / f"v2/predictions/{part}/{model}.npy", five)
    for date, commit in published_predictions.SNAPSHOT_COMMITS.items():
        write(folder / f"testbed/{commit}/robustness_top1s.csv", state(STATES[date]))
        write(folder / f"testbed/{commit}/plotting/model_types.py", TYPES)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        for name, place in (
            ("CIFAR101_ADDRESS", "cifar101/"),
            ("CIFAR10_LABELS_ADDRESS", "cifar10_labels.npy"),
            ("IMAGENETV2_ADDRESS", "v2/"),
            ("TESTBED_ADDRESS", "testbed/"),
        ):
            monkeypatch.setattr(published_predictions, name, address + place)
        monkeypatch.setattr(published_predictions, "CIFAR10_MODELS", MODELS)
        monkeypatch.setattr(published_predictions, "IMAGENET_MODELS", MODELS)
        yield folder
        server.shutdown()
        thread.join()


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
        now = {
            name: shifted if name.startswith("imagenetv2") else val for name in published_predictions.ACCURACY_COLUMNS
        }
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


# --------------------------------------------------------------------------------------------- fetching


def test_tables_are_made_from_what_is_published(published: Path, pinned: None, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in published_predictions.FILES:
        assert data.check(name, root).state == "missing"
        status = data.fetch(name, root)
        assert status.state == "intact", status.message
    made = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert made == set(published_predictions.FILES.values())
    cifar = published_predictions.cifar10_correctness(root)
    np.testing.assert_array_equal(cifar.correct["cifar10.1-v6"], answers(2) == LABELS)
    net = published_predictions.imagenet_correctness(root)
    np.testing.assert_array_equal(net.correct["imagenetv2"], answers(4) == LABELS)
    assert net.labels["imagenet"].tolist() == LABELS.tolist()
    found = published_predictions.imagenet_accuracies(root)
    assert found.loc["vgg11", "val@2020-08-31"] == pytest.approx(0.5)
    assert found["val"].isna().tolist() == [False, False, False, False, True]
    assert found["model_type"].tolist() == ["more_data", "", "standard", "", ""]
    for path in sorted(published.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for name in published_predictions.FILES:
        assert data.fetch(name, root).state == "intact"  # nothing is downloaded twice


FIRST, _, LAST = (f"testbed/{commit}" for commit in published_predictions.SNAPSHOT_COMMITS.values())


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("cifar10-testbed", "cifar101/model_predictions/v6_predictions/b_net_predictions.json", b"[0, 1"),
        ("cifar10-testbed", "cifar101/model_predictions/v6_predictions/b_net_predictions.json", b"[0, 11]"),
        ("imagenet-answers", "v2/metadata/class_info.json", b"[1, 2]"),
        ("imagenet-answers", "v2/datasets/imagenetv2-b-33.json", b'{"image_filenames": [["image", "n99"]]}'),
        ("imagenet-answers", "v2/predictions/imagenetv2-b-33/a_net.npy", b"<html>Please log in</html>"),
        ("imagenet-testbed", f"{LAST}/robustness_top1s.csv", b"a,b"),
        ("imagenet-testbed", f"{FIRST}/robustness_top1s.csv", b""),
        ("imagenet-testbed", f"{LAST}/plotting/model_types.py", b"("),
    ],
)
def test_a_damaged_publication_is_refused(
    name: str, path: str, content: bytes, published: Path, pinned: None, tmp_path: Path
) -> None:
    (published / path).write_bytes(content)
    with pytest.raises(UserError) as refused:
        data.fetch(name, tmp_path / "data")
    assert "\n" not in str(refused.value)
    assert not [found for found in (tmp_path / "data").rglob("*") if found.is_file()]


def test_another_publication_than_the_known_one_is_refused(published: Path, pinned: None, tmp_path: Path) -> None:
    path = published / "cifar101/model_predictions/v4_predictions/a_net_predictions.json"
    path.write_text(json.dumps([9 - k for k in json.loads(path.read_text())]))
    with pytest.raises(UserError, match=r"downloading cifar10-testbed into .* failed: it is not what was published"):
        data.fetch("cifar10-testbed", tmp_path / "data")
    (published / "v2/metadata/class_info.json").unlink()
    with pytest.raises(UserError, match=r"downloading imagenet-answers into .* failed"):
        data.fetch("imagenet-answers", tmp_path / "data")


# --------------------------------------------------------------------------------------------- reading


def test_tables_are_listed_beside_the_image_sets(small: Path) -> None:
    rows = {row["name"]: row for row in data.list_sets(small)}
    assert {rows[name]["found"] for name in published_predictions.FILES} == {"yes"}
    assert rows["imagenet-answers"]["get"] == "'robustness data fetch imagenet-answers' downloads it"
    assert data.check("cifar10-testbed", small).message.startswith("4 networks; images: cifar10 60, cifar10.1-v4 60")
    assert data.check("imagenet-testbed", small).message == "5 networks, 14 columns of accuracies"
    with pytest.raises(UserError, match="did you mean 'imagenet-testbed'"):
        data.check("imagenet-testbd", small)


def test_missing_and_damaged_tables(small: Path) -> None:
    cifar10, imagenet, accuracies = (small / place for place in published_predictions.FILES.values())
    np.savez(cifar10, **CIFAR10_ARRAYS | {"cifar10_labels": LABELS[::-1]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"damaged: the SHA-256 sum of its content is \w+, expected \w+; 'rob"):
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
    with pytest.raises(UserError, match="is missing: 'robustness data fetch cifar10-testbed' downloads it"):
        published_predictions.cifar10_correctness(small.parent)


# --------------------------------------------------------------------------------------------- measurements


def test_jobs_are_one_a_pair_and_method() -> None:
    planned = testbed.jobs("cpu")
    assert len({job.key for job in planned}) == len(planned)
    assert {job.dataset for job in planned} == set(testbed.PAIRS)
    assert {job.method for job in planned} == set(testbed.METHODS)
    assert all(testbed.is_job(job) and job.seed == 0 and job.profile == "cpu" for job in planned)
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
    planned, outcome = registry.measure_section(
        testbed.SECTION, "cpu", context, workers=1, datasets=["cifar10.1-v4"], methods=["fit-linear"]
    )
    outcome.check()
    assert registry.recorded(planned, Store(tmp_path / "runs"))["model_count"].tolist() == [3]
    for record in Store(tmp_path / "runs").records(testbed.SECTION):
        assert list(record.provenance["data"]) == ["cifar10-testbed"]


# --------------------------------------------------------------------------------------------- the real tables


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


def test_accuracies_of_the_cifar_models(real: dict[tuple[str, str], Record]) -> None:
    found = published_predictions.cifar10_correctness()
    at = found.models.index("vgg16_keras")
    counts = [int(found.correct[name][at].sum()) for name in ("cifar10", "cifar10.1-v4", "cifar10.1-v6")]
    assert counts == [9359, 1723, 1712]
    assert [int(found.correct["cifar10.1-v6"][found.models.index(name)].sum()) for name in ("nas", "darc")] == [
        1784,
        1798,
    ]


def test_recorded_results_are_what_the_tables_give(real: dict[tuple[str, str], Record]) -> None:
    recorded = {record.job.key: record.metrics for record in load_published(testbed.SECTION)}
    assert {record.job.key: recorded.get(record.job.key) for record in real.values()} == {
        record.job.key: record.metrics for record in real.values()
    }
