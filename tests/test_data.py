"""Image sets: the type, every reader against small files in the published format, damage, the registry."""

import contextlib
import os
import pickle
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import formats
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from robustness_lib.data import (
    SOURCES,
    ImageDataset,
    Status,
    check,
    class_balanced_subset,
    class_list,
    expand_names,
    list_sets,
    load,
    write_bundle,
)
from robustness_lib.data.cifar import read_human_labels
from robustness_lib.data.image_folders import read_image
from robustness_lib.data.imagenet_downsampled import read_class_map
from robustness_lib.data.io import read_pickle
from robustness_lib.data.registry import TABLES
from robustness_lib.errors import UserError


@pytest.mark.parametrize(
    ("images", "labels", "names", "expected"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "ab", "uint8"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "ab", "int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "ab", r"shape \[2\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "ab", r"0\.\.1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, -1]), "ab", r"0\.\.1"),
        (torch.zeros(0, 3, 1, 1, dtype=torch.uint8), torch.arange(0), "a\udce9", r"'\\udce9' is no text in UTF-8"),
    ],
)
def test_an_image_set_checks_its_parts(images: torch.Tensor, labels: torch.Tensor, names: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ImageDataset("wrong", images, labels, tuple(names))


def test_checksum_is_of_the_content_and_not_of_the_name() -> None:
    images = torch.from_numpy(formats.some_images(6)).permute(0, 3, 1, 2).contiguous()
    data = ImageDataset("some", images, torch.arange(6) % 3, ("a", "b", "c"))
    assert data.checksum == ImageDataset("other", data.images.clone(), data.labels, data.class_names).checksum
    changed = data.images.clone()
    changed[5, 2, 31, 31] ^= 1
    variants = [
        ImageDataset("some", changed, data.labels, data.class_names),
        data.with_labels(data.labels.flip(0)),
        ImageDataset("some", data.images, data.labels, ("a", "b", "C")),
        ImageDataset("some", data.images.reshape(6, 3, 64, 16), data.labels, data.class_names),
    ]
    assert len({data.checksum, *(variant.checksum for variant in variants)}) == 5


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(sum),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=40)
def test_a_balanced_subset_is_as_even_as_can_be(sizes: list[int], share: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    count = 1 + int(share * (len(labels) - 1))
    chosen = class_balanced_subset(labels, count, seed)
    assert len(chosen) == count
    assert bool((chosen.diff() > 0).all())
    drawn = torch.bincount(labels[chosen], minlength=len(sizes)).tolist()
    assert all(n >= min(size, max(drawn) - 1) for n, size in zip(drawn, sizes, strict=True))
    assert torch.equal(chosen, class_balanced_subset(labels, count, seed))
    for impossible in (0, len(labels) + 1):
        with pytest.raises(UserError, match=f"between 1 and {len(labels)}"):
            class_balanced_subset(labels, impossible, seed)


@pytest.mark.parametrize("name", ["cifar11", "../cifar10", "", "/etc", ".cache", "n" * 300, "cifar-10-batches-py"])
def test_an_unknown_set_is_refused_with_the_list(tmp_path: Path, name: str) -> None:
    formats.write_bundle(tmp_path, "mine", "train")
    formats.write_bundle(tmp_path, ".cache", "train")
    (tmp_path / "cifar-10-batches-py").mkdir()
    for ask in (load, check):
        with pytest.raises(UserError, match=r"unknown data set.*cifar10,.*mine"):
            ask(name, root=tmp_path)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.location])
def test_a_missing_set_says_where_and_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is missing.*(robustness data fetch|to be had|download)") as caught:
        load(name, SOURCES[name].splits[-1], tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert check(name, tmp_path).state == "missing"


def test_a_bundle_of_ones_own(tmp_path: Path) -> None:
    train = formats.write_bundle(tmp_path, "mine", "train", count=5, size=20)
    data = load("mine", root=tmp_path)
    assert (data.name, tuple(data.images.shape), data.class_names[0]) == ("mine", (5, 3, 20, 20), "class 0")
    assert torch.equal(data.images.permute(0, 2, 3, 1), torch.from_numpy(formats.some_images(5, 20)))
    with pytest.raises(UserError, match=r"mine/test\.npz is missing, but .* write it, as the data page"):
        load("mine", "test", tmp_path)
    absent = train.with_name("test.npz")
    incomplete = Status("mine", "incomplete", f"train: 5 images, 20x20, 3 classes; test: {absent} is not there")
    assert check("mine", tmp_path) == incomplete
    write_bundle(absent, data)
    assert load("mine", "test", tmp_path).checksum == data.checksum
    assert check("mine", tmp_path).state == "intact"
    assert list_sets(tmp_path, ["mine"])[0]["found"] == "yes"
    formats.write_bundle(tmp_path, "textures", "test")  # of which no other split was published
    assert check("textures", tmp_path).state == "intact"


@pytest.mark.parametrize("name", ["cifar10", "cifar10n-worse", "imagenet32", "textures-64", "lsun", "miniplaces"])
def test_a_bundle_under_a_known_name_is_read_where_the_published_files_are_not(name: str, tmp_path: Path) -> None:
    formats.write_bundle(tmp_path, name, "test")
    for other in SOURCES.values():  # another bundle may lie where the published files of this set would be
        if other.location == other.name != name:
            formats.write_bundle(tmp_path, other.name, "test", count=6)
    (tmp_path / name / ".DS_Store").touch()
    assert len(load(name, "test", tmp_path)) == 12
    assert check(name, tmp_path).state in ("intact", "incomplete")
    row, other_size = list_sets(tmp_path, [name, "svhn-64"])
    assert (row["found"], row["where"], other_size["found"]) == ("yes", str(tmp_path / name), "no")


def test_the_data_page_makes_a_data_set_of_a_folder_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every format and case of letters, one a photograph on its side."""
    [recipe] = re.findall(r"```python\n(.*?)```", Path("book/data.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)
    for name in ("train/{}/0.png", "train/{}/1.JPG", "train/{}/deep/2.PNG", "test/{}/0.jpeg", "test/{}/1.WebP"):
        formats.save_image(Path("pictures", name.format("dog")), formats.some_images(1, 48)[0])
        formats.save_image(Path("pictures", name.format("cat")), formats.some_images(1, 48)[0, :, :, 0])
    formats.save_image(Path("pictures/train/dog/.thumbnails/0.png"), formats.some_images(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(formats.some_images(1, 32, 9)[0]).save("pictures/train/dog/0.png", exif=exif)
    with pytest.raises(UserError, match=r"'pictures': .*has neither train\.npz nor test\.npz.*data page"):
        load("pictures", root=".")
    exec(recipe, {})
    assert check("mine").message == "train: 6 images, 32x32, 2 classes; test: 4 images, 32x32, 2 classes"
    train = load("mine")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1, 1])
    assert torch.equal(train.images[4], read_image(Path("pictures/train/dog/1.JPG"), 32))
    lying = read_image(Path("pictures/train/dog/0.png"), 32)
    assert torch.equal(lying.permute(1, 2, 0), torch.from_numpy(formats.some_images(1, 32, 9)[0]))
    assert torch.equal(train.images[3], lying.rot90(-1, (1, 2)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": np.zeros((12, 32, 32, 3))}, "images must be uint8"),
        ({"labels": np.full(12, 3)}, r"labels must lie in 0\.\.2"),
        ({"labels": np.zeros(11, np.int64)}, "12 images but 11 labels"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, np.int64)}, "which hold no pixel"),
        ({"class_names": np.array(["a", None, "b"], dtype=object)}, "Object arrays"),
        ({"class_names": np.array([b"caf\xe9", b"b", b"c"])}, r"class_names are not in UTF-8: b'caf\\xe9'"),
    ],
)
def test_a_bundle_that_is_not_as_described(tmp_path: Path, change: dict[str, np.ndarray], expected: str) -> None:
    path = formats.write_bundle(tmp_path, "mine", "train")
    with np.load(path) as content:
        np.savez(path, **{**dict(content), **change})
    with pytest.raises(UserError, match=f"{expected}.*write it again, in the format that the data page") as caught:
        load("mine", root=tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_names": ["a", "c", "b"]}, r"class 1 is 'b' but 'c' in .*test\.npz"),
        ({"class_names": ["a", "b", "c", "d"]}, r"class 3 is 'missing' but 'd' in .*test\.npz"),
        ({"images": np.zeros((4, 8, 16, 3), np.uint8)}, r"16x16 pixels but of 8x16 in .*test\.npz"),
        ({"images": np.zeros((4, 3, 32, 16), np.uint8)}, r"16x16 pixels but of 32x16 in .*test\.npz"),
    ],
    ids=["order", "more", "size", "channels first"],
)
def test_splits_that_disagree_are_refused(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    (tmp_path / "own").mkdir()
    content = {"images": np.zeros((4, 16, 16, 3), np.uint8), "labels": [0, 1, 0, 1], "class_names": ["a", "b", "c"]}
    np.savez(tmp_path / "own" / "train.npz", **content)
    np.savez(tmp_path / "own" / "test.npz", **content | change)
    for split in ("train", "test"):
        with pytest.raises(UserError, match="write both splits with the same classes"):
            load("own", split, tmp_path)
    status = check("own", tmp_path)
    assert status.state == "damaged"
    assert re.search(expected, status.message)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_a_damaged_bundle_is_refused_or_read_unchanged(tmp_path: Path, place: float, cut: bool) -> None:
    path = formats.write_bundle(tmp_path, "mine", "train", count=2, size=4)
    expected = load("mine", root=tmp_path).checksum
    if cut:
        formats.truncate(path, place)
    else:
        formats.flip_byte(path, int(place * len(path.read_bytes())))
    status = check("mine", tmp_path)
    if status.state == "damaged":
        assert str(path) in status.message
    else:  # a byte that says nothing about the content, such as a time stamp
        assert not cut
        assert load("mine", root=tmp_path).checksum == expected


CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_cifar10(tmp_path, monkeypatch)
    train, test = load("cifar10", "train", tmp_path), load("cifar10", "test", tmp_path)
    assert (len(train), len(test), train.class_names) == (50, 10, tuple(CIFAR10_NAMES))
    assert train.labels[:11].tolist() == [*range(10), 0]
    assert torch.equal(test.images.permute(0, 2, 3, 1), torch.from_numpy(formats.some_images(10, seed=5)))
    assert check("cifar10", tmp_path).message.startswith("train: 50 images, 32x32, 10 classes")


def test_cifar100_and_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_cifar100(tmp_path, monkeypatch)
    official = load("cifar100", root=tmp_path)
    assert (official.labels.tolist(), official.num_classes) == (list(range(20)), 100)
    formats.write_bundle(tmp_path, "cifar100", "train", classes=4)
    assert load("cifar100", root=tmp_path).num_classes == 4
    with pytest.raises(UserError, match=r"test\.npz is missing"):  # not the other set's other split
        load("cifar100", "test", tmp_path)


def test_cifar101(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = formats.write_cifar101(tmp_path, monkeypatch, "v4")
    data = load("cifar10.1-v4", "test", tmp_path)
    assert (data.labels.tolist(), data.class_names) == (list(range(10)), tuple(CIFAR10_NAMES))
    assert torch.equal(data.images.permute(0, 2, 3, 1), torch.from_numpy(formats.some_images(10)))
    with pytest.raises(UserError, match="no train split"):
        load("cifar10.1-v4", "train", tmp_path)
    formats.flip_byte(folder / "cifar10.1_v4_labels.npy", -1)
    with pytest.raises(UserError, match=r"labels\.npy is damaged: its SHA-256 sum is [0-9a-f]{64}, expected"):
        load("cifar10.1-v4", "test", tmp_path)


def test_cifar10n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_cifar10(tmp_path, monkeypatch)
    clean = load("cifar10", root=tmp_path)
    path = formats.write_human_labels(tmp_path, clean.labels.tolist())
    for shift, suffix in enumerate(("clean", "aggre", "worse", "random1", "random2", "random3")):
        data = load(f"cifar10n-{suffix}", root=tmp_path)
        assert data.name == f"cifar10n-{suffix}"
        assert torch.equal(data.labels, (clean.labels + shift) % 10)
        assert torch.equal(data.images, clean.images)
    assert torch.equal(load("cifar10n-worse", "test", tmp_path).labels, load("cifar10", "test", tmp_path).labels)
    with np.load(path) as arrays:
        published = dict(arrays)
    path.unlink()
    for zipped in (True, False):
        torch.save(published, path.with_name("CIFAR-10_human.pt"), _use_new_zipfile_serialization=zipped)
        assert torch.equal(load("cifar10n-aggre", root=tmp_path).labels, (clean.labels + 1) % 10)
    np.savez(path, **{name: array * 0 for name, array in published.items()})
    with pytest.raises(UserError, match="not those of CIFAR-10"):
        load("cifar10n-worse", root=tmp_path)


BATCHES = ([450, 1, 450, 2], [2, 1000], [388])


@pytest.mark.parametrize(("size", "pickled"), [(32, False), (64, True)])
def test_downsampled_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool, size: int) -> None:
    folder = formats.write_downsampled(tmp_path, BATCHES, [1, 3, 1000], size, pickled)
    (folder / "unpacked").mkdir()
    for path in sorted(folder.glob("*batch_3*")):  # files may lie one level deeper, and numbers may be left out
        path.rename(folder / "unpacked" / path.name.replace("3", "12"))
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "train_data_batch_4").write_bytes(b"hidden")
    rows = [f"{wnid} {label} {text.replace(' ', '_')}" for label, (wnid, text) in enumerate(read_class_map(), start=1)]
    (folder / "map_clsloc.txt").write_text("\n".join(rows))
    name = f"imagenet{size}"
    train, test = load(name, "train", tmp_path), load(name, "test", tmp_path)
    # 1 (kit fox), 2 (English setter), 388, 450, 1000 become 0..4.
    assert train.name == f"{name}_7x5"
    assert train.labels.tolist() == [3, 0, 3, 1, 1, 4, 2]
    assert train.class_names[:2] == ("kit fox", "English setter")
    published = train.images[:, 0, 0, :3].tolist()
    assert published == [[label // 256, label % 256, k] for batch in BATCHES for k, label in enumerate(batch)]
    assert (test.name, test.labels.tolist(), test.class_names) == (f"{name}_2x5", [0, 4], train.class_names)
    monkeypatch.setattr("robustness_lib.data.registry.recognised", {train.checksum: "a stand-in"}.get)
    assert check(name, tmp_path).message == (
        f"train: 7 of the published 1,281,167 images, {size}x{size}, 5 classes, a stand-in; "
        f"test: 2 of the published 50,000 images, {size}x{size}, 5 classes"
    )
    (folder / "map_clsloc.txt").write_text("\n".join(sorted(rows)))
    with pytest.raises(UserError, match=r"map_clsloc\.txt .*not those of the development kit, in its order"):
        load(name, "train", tmp_path)


def test_the_named_exclusions(tmp_path: Path) -> None:
    formats.write_downsampled(tmp_path, [list(range(1, 1001))], list(range(1, 1001)))
    related = load("imagenet32-no-cifar10", root=tmp_path)
    assert related.name == "imagenet32-no-cifar10_847x847"
    tenth = load("imagenet32-no-cifar10-tenth", root=tmp_path)
    assert (tenth.name, tenth.class_names) == ("imagenet32-no-cifar10-tenth_85x85", related.class_names[::10])
    assert torch.equal(tenth.images, related.images[::10])
    assert torch.equal(tenth.labels, related.labels[::10] // 10)
    assert load("imagenet32-no-cifar10-tenth", "test", tmp_path).class_names == tenth.class_names
    left = load("imagenet32-no-tiny", "test", tmp_path)
    assert left.name == "imagenet32-no-tiny_800x800"
    tiny = load("tiny_imagenet32", "test", tmp_path)
    assert (tiny.name, len(tiny), tiny.num_classes) == ("tiny_imagenet32", 200, 200)
    assert not set(tiny.class_names) & set(left.class_names) - {"crane", "maillot"}
    labels = [256 * high + low for high, low in tiny.images[:, 0, 0, :2].int().tolist()]
    by_class = [read_class_map()[label - 1][0] for label in labels]
    assert [class_list("tiny_imagenet")[label] for label in tiny.labels.tolist()] == by_class


def test_tiny_imagenet32_has_the_first_500_images_of_each_class(tmp_path: Path) -> None:
    goldfish = 1 + [wnid for wnid, _ in read_class_map()].index("n01443537")
    formats.write_downsampled(tmp_path, [[goldfish] * 255 + [1], [1] * 3 + [goldfish] * 253], [goldfish])
    data = load("tiny_imagenet32", root=tmp_path)
    assert data.class_names == ("goldfish",)
    assert data.images[:, 0, 0, 2].tolist() == [k % 256 for k in range(255)] + [k % 256 for k in range(3, 248)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": [0, 1]}, r"labels must lie in 1\.\.1000"),
        ({"labels": [1.0, 2.0]}, "whole numbers"),
        ({"labels": [1]}, "2 images but 1 labels"),
        ({"data": np.zeros((2, 12288), np.uint8)}, r"data must be uint8 \[N, 3072\]"),
        ({"data": [1, 2]}, r"data must be uint8 .*, not list"),
    ],
)
def test_batches_that_are_not_in_the_format(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = formats.write_downsampled(tmp_path, [[1, 2]], [1], pickled=True) / "train_data_batch_1"
    path.write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2], **change}))
    with pytest.raises(UserError, match=f"train_data_batch_1 is damaged .*{expected}"):
        load("imagenet32", root=tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    array = formats.some_images(1)
    content = {"data": array, "labels": [1, 2], "mean": np.float64(3), "name": "batch", b"key": b"x"}
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(tmp_path / "batch")
    assert np.array_equal(found.pop("data"), array)
    assert found == {"labels": [1, 2], "mean": 3.0, "name": "batch", "key": b"x"}


def crafted(labels: bytes) -> bytes:
    """A batch of one black image as Python 2 wrote it, protocol 2, whose labels are given as instructions."""
    data = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86"
    data += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    pixels = bytes(range(256)) * 12
    return b"\x80\x02}(U\x04data" + data + b"T" + struct.pack("<i", 3072) + pixels + b"tbU\x06labels" + labels + b"u."


def forged_array(code: bytes, state: bytes, content: bytes = bytes(range(65, 73))) -> bytes:
    """An array of one item, its type ``code`` changed to ``state``."""
    text = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85cnumpy\ndtype\n"
    text += b"U" + bytes([len(code)]) + code + b"K\x00K\x01\x87R" + state
    return text + b"\x89U" + bytes([len(content)]) + content + b"tb"


def dtype_state(order: bytes = b"|", fields: bytes = b"NNN", size: int = -1, flags: int = 0) -> bytes:
    return b"(K\x03U\x01" + order + fields + 2 * (b"J" + struct.pack("<i", size)) + b"K" + bytes([flags]) + b"tb"


CRAFTED = {
    "a function": b"cposix\nsystem\nU\x0dtouch touched\x85R",
    "objects without their flags": forged_array(b"O8", dtype_state()),
    "flags of objects": forged_array(b"i8", dtype_state(b"<", flags=63)),
    "fields": forged_array(b"V8", dtype_state(fields=b"N(U\x01at}U\x01aN")),
    "a type built twice": forged_array(b"i8", dtype_state(b"<") + dtype_state(b"<", flags=63)),
    "a built list": b"]}b",
    "a class that is called": b"cnumpy\nndarray\nK\x05\x85R",
    "a new object": b"cnumpy\ndtype\nU\x02O8\x85\x81",
    "a place far away": b"K\x01r\xff\xff\xff\x7f",
    "a very long text": b"\x96\xff\xff\xff\xff\xff\x00\x00\x00",
    "a key of many tuples": b"}" + b")" + b"\x85" * 100_000 + b"K\x01s",
    "lists of lists, each nine times": b"(](K\x01eq\x00" + b"".join(
        b"](" + 9 * (b"h" + bytes([k - 1])) + b"eq" + bytes([k]) for k in range(1, 30)
    ) + b"l",
    "a list in itself": b"]q\x01h\x01a",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_batch_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Python's unpickler would crash on some of these: types without their flags make pointers of the file's bytes."""
    monkeypatch.chdir(tmp_path)
    formats.write_downsampled(tmp_path, [[1, 2]], [1])
    path = tmp_path / "imagenet32" / "train_data_batch_2"
    path.write_bytes(crafted(b"]K\x01a"))
    assert load("imagenet32", root=tmp_path).images[2].flatten().tolist() == list(range(256)) * 12
    path.write_bytes(crafted(CRAFTED[name]))
    with pytest.raises(UserError, match=r"train_data_batch_2 is damaged") as caught:
        load("imagenet32", root=tmp_path)
    assert "\n" not in str(caught.value)
    labels = tmp_path / "CIFAR-10_human.pt"
    with zipfile.ZipFile(labels, "w") as archive:
        archive.writestr("CIFAR-10_human/data.pkl", b"\x80\x02}U\x0bclean_label" + CRAFTED[name] + b"s.")
    with pytest.raises(UserError, match=r"CIFAR-10_human\.pt is damaged"):
        read_human_labels(labels)
    assert not Path("touched").exists()


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_batch_with_changed_instructions_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    batch = {"data": np.zeros((1, 8), np.uint8), "labels": [1], "mean": np.ones(2)}
    content = bytearray(pickle.dumps(batch, data.draw(st.integers(2, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "batch").write_bytes(content)
    with contextlib.suppress(UserError):
        read_pickle(tmp_path / "batch")


# The 153 classes as development-kit numbers.
PRINTED_NUMBERS = """
2 3 4 5 8 10 15 17 18 19 20 21 25 26 27 29 31 32 33 36 41 42 43 45 46 47 49 50 51 55 56 59 60 63 64
66 68 69 70 71 72 77 79 82 84 86 87 88 89 90 91 93 94 95 97 98 99 105 106 107 109 110 112 113 114
115 116 117 118 119 123 124 125 126 127 128 130 131 132 133 134 139 140 141 143 144 145 146 148 149
150 151 152 154 156 158 160 161 168 170 171 172 173 174 176 177 179 180 181 184 187 189 191 192 196
197 198 200 204 207 208 210 211 243 245 279 280 282 283 293 383 384 385 386 387 388 389 390 391 392
393 394 395 396 397 398 399 400 499 500 501 563 576
"""


def test_the_class_lists_are_the_papers() -> None:
    numbers_of = {wnid: number for number, (wnid, _) in enumerate(read_class_map(), start=1)}
    cifar10, tiny = class_list("cifar10_related"), class_list("tiny_imagenet")
    assert (len(set(cifar10)), len(set(tiny)), len(numbers_of)) == (153, 200, 1000)
    assert (list(cifar10), list(tiny)) == (sorted(cifar10), sorted(tiny))
    assert len(set(cifar10) & set(tiny)) == 11
    assert set(cifar10) | set(tiny) <= set(numbers_of)
    assert [numbers_of[wnid] for wnid in ("n02119789", "n02100735", "n02110185")] == [1, 2, 3]
    assert sorted(numbers_of[wnid] for wnid in cifar10) == [int(number) for number in PRINTED_NUMBERS.split()]
    names = [dict(read_class_map())[wnid] for wnid in ("n03345487", "n03947888", "n01641577")]
    assert names == ["fire engine", "pirate", "bullfrog"]


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = formats.write_tiny_imagenet(tmp_path, ("n02", "n01"))
    train, test = load("tiny_imagenet", "train", tmp_path), load("tiny_imagenet", "test", tmp_path)
    assert tuple(train.images.shape) == (6, 3, 64, 64)
    assert train.class_names == ("name of n01", "name of n02")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [1, 0])
    with Image.open(folder / "train" / "n01" / "images" / "n01_1.JPEG") as image:
        assert torch.equal(train.images[1].permute(1, 2, 0), torch.from_numpy(np.array(image)))
    assert torch.equal(train.images[0, 0], train.images[0, 1])  # a grey one
    path = folder / "train" / "n02" / "images" / "n02_2.JPEG"
    formats.truncate(path, 0.6)
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        load("tiny_imagenet", "train", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        load("tiny_imagenet", "train", tmp_path)
    (folder / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids.txt is missing"):
        load("tiny_imagenet", "train", tmp_path)


def test_other_pixels_in_a_file_of_the_same_size_and_time_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "lsun" / "test" / "a.bmp"
    for seed in (0, 1):
        pixels = formats.some_images(1, 32, seed)[0]
        formats.save_image(path, pixels)
        os.utime(path, ns=(1, 1))
        for _ in ("decoded", "from the cache"):
            assert torch.equal(load("lsun", "test", tmp_path).images[0], torch.from_numpy(pixels).permute(2, 0, 1))
    assert len(list((tmp_path / ".cache").iterdir())) == 2


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = formats.write_svhn(tmp_path, monkeypatch)
    data = load("svhn", "test", tmp_path)
    assert data.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(data.images.permute(0, 2, 3, 1), torch.from_numpy(formats.some_images(10)))
    large = load("svhn-64", "test", tmp_path).images
    assert tuple(large.shape) == (10, 3, 64, 64)
    assert (large.float().mean((1, 2, 3)) - data.images.float().mean((1, 2, 3))).abs().max() < 2
    formats.flip_byte(folder / "test_32x32.mat", 200)
    with pytest.raises(UserError, match=r"test_32x32.mat is damaged: its MD5 sum is \w{32}, expected \w{32}"):
        load("svhn", "test", tmp_path)


def test_textures(tmp_path: Path) -> None:
    folder = formats.write_textures(tmp_path)
    data = load("textures", "test", tmp_path)
    assert (data.class_names, data.labels.tolist()) == (("banded", "dotted"), [0, 0, 0, 1, 1, 1])
    assert tuple(data.images.shape) == (6, 3, 32, 32)
    assert tuple(load("textures-64", "test", tmp_path).images.shape) == (6, 3, 64, 64)
    (folder / "labels" / "val1.txt").unlink()
    with pytest.raises(UserError, match="not complete"):
        load("textures", "test", tmp_path)


def test_images_are_resized_and_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 255
    formats.save_image(tmp_path / "wide.png", pixels)
    assert read_image(tmp_path / "wide.png", 32).min() == 255
    assert read_image(tmp_path / "wide.png", 3, squeeze=True)[0].tolist() == [[0, 255, 0]] * 3
    with Image.open(tmp_path / "wide.png") as image:
        resized = np.array(image.resize((48, 16), Image.Resampling.BILINEAR))
    expected = torch.from_numpy(resized[:, 16:32]).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "wide.png", 16), expected)
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="save it with 8 bits a channel"):
        read_image(tmp_path / "a.tiff", 4)


def test_places365(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = formats.write_places365(tmp_path, monkeypatch)
    test, train = load("places365", "test", tmp_path), load("places365", "train", tmp_path)
    assert (tuple(test.images.shape), test.class_names) == ((4, 3, 32, 32), ("unlabelled",))
    assert (train.labels.tolist(), train.class_names) == ([0, 1, 0, 1], ("airfield", "bakery/shop"))
    (folder / "categories_places365.txt").unlink()
    with pytest.raises(UserError, match="is missing; 'robustness data fetch places365'"):
        load("places365", "test", tmp_path)


def test_lsun(tmp_path: Path) -> None:
    (tmp_path / "lsun" / "test").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no image file"):
        load("lsun", "test", tmp_path)
    for index, name in enumerate(("b.webp", "a/z.jpg", "a/y.png")):
        formats.save_image(tmp_path / "lsun" / "test" / name, formats.some_images(1, 40, seed=index)[0])
    (tmp_path / "lsun" / "test" / "folder.jpg").mkdir()
    formats.save_image(tmp_path / "lsun" / "test" / ".thumbs" / "y.png", formats.some_images(1)[0])
    formats.save_image(tmp_path / "elsewhere" / "y.png", formats.some_images(1, 40, seed=2)[0])
    for place in (tmp_path / "lsun" / "test" / "linked", tmp_path / "elsewhere" / "again"):
        place.symlink_to(tmp_path / "elsewhere")
    data = load("lsun", "test", tmp_path)
    assert tuple(data.images.shape) == (4, 3, 32, 32)
    assert torch.equal(data.images[3], read_image(tmp_path / "elsewhere" / "y.png", 32))
    assert torch.equal(data.images[0], read_image(tmp_path / "lsun" / "test" / "a" / "y.png", 32))
    assert load("lsun-64", "test", tmp_path).images.shape[2:] == (64, 64)
    (tmp_path / "lsun").rename(tmp_path / "imagenet21k")
    assert load("imagenet21k", "test", tmp_path).images.shape[2:] == (64, 64)


def test_the_list_says_what_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_cifar10(tmp_path, monkeypatch)
    monkeypatch.setitem(SOURCES, "digits", replace(SOURCES["synthetic"], name="digits"))  # as book/edit.md adds it
    rows = {row["name"]: row for row in list_sets(tmp_path)}
    assert list(rows) == [*SOURCES, *TABLES]
    assert (rows["cifar10"]["found"], rows["cifar10"]["where"]) == ("yes", str(tmp_path / "cifar-10-batches-py"))
    assert (rows["svhn"]["found"], rows["synthetic"]["found"]) == ("no", "made on the fly")
    for row in rows.values():
        assert all(row[key] for key in ("what", "origin", "get"))
    family = [row["name"] for row in list_sets(tmp_path, ["cifar10.1", "cifar10"])]
    assert family == ["cifar10.1-v4", "cifar10.1-v6", "cifar10"]
    assert len(expand_names(["cifar10n"], tmp_path)) == 6


def test_the_list_of_a_root_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was named is an error; the default one is not there before the first download."""
    with pytest.raises(UserError, match=r"the data root .*no does not exist; make it"):
        list_sets(tmp_path / "no")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTNESS_DATA", "neither")
    with pytest.raises(UserError, match="the data root neither does not exist"):
        list_sets()
    monkeypatch.delenv("ROBUSTNESS_DATA")
    assert {row["found"] for row in list_sets()} == {"no", "made on the fly"}
    with pytest.raises(UserError, match="File name too long"):
        list_sets("n" * 300)


@pytest.mark.parametrize(
    "name", ["known", "mean", "gaussian", "rademacher", "blobs", "all", "default", "cifar10n-mine", "cifar10-testbed"]
)
def test_a_set_of_ones_own_has_no_name_that_results_use(tmp_path: Path, name: str) -> None:
    formats.write_bundle(tmp_path, name, "test")
    with pytest.raises(UserError, match=f"results use the name '{name}' themselves"):
        load(name, "test", tmp_path)
    assert "yourself" not in {row["origin"] for row in list_sets(tmp_path)}
