"""Downloads against a server on this machine: what arrives whole is kept, and nothing else, at every call."""

import contextlib
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import formats
import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, DTD, SVHN

from robustness_lib.data import cifar, download, fetch, load
from robustness_lib.data.io import arrays_digest
from robustness_lib.errors import UserError


@dataclass
class Server:
    """Answers with ``content`` by path.

    Of what is in ``cut`` it sends half under the full length.
    """

    address: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            state.asked.append(name)
            if name not in state.content:
                self.send_error(404)
                return
            body = state.content[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has left
                self.wfile.write(body[: len(body) // 2] if name in state.cut else body)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.address = f"http://127.0.0.1:{listener.server_port}/"
        yield state
        listener.shutdown()
        thread.join()


def serve_cifar101(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = formats.write_cifar101(tmp_path / "published", monkeypatch)
    server.content |= {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(cifar, "CIFAR101_ADDRESS", server.address)


def serve_svhn(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = formats.write_svhn(tmp_path / "published", monkeypatch)
    for split, (_, filename, md5) in SVHN.split_list.items():
        server.content[filename] = (folder / filename).read_bytes()
        monkeypatch.setitem(SVHN.split_list, split, [server.address + filename, filename, md5])


def assert_nothing_is_left(root: Path) -> None:
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_a_download_is_kept_and_not_repeated(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what killed downloads have left goes."""
    serve_cifar101(server, tmp_path, monkeypatch)
    root = tmp_path / "root"
    for name in ("killed", "running"):
        (root / f".download-{name}").mkdir(parents=True)
        (root / f".download-{name}" / "part").write_bytes(b"half")
    os.utime(root / ".download-killed", (0, 0))
    status = fetch("cifar10.1-v6", root)
    assert (status.state, status.message) == ("intact", "test: 10 images, 32x32, 10 classes")
    assert sorted(path.name for path in root.iterdir()) == [".download-running", "cifar10.1"]
    before = len(server.asked)
    assert fetch("cifar10.1-v6", root).state == "intact"
    assert len(server.asked) == before


@pytest.mark.parametrize("fault", ["cut", "other", "absent"])
def test_a_bad_download_is_refused_at_every_call(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    serve_cifar101(server, tmp_path, monkeypatch)
    name = "cifar10.1_v6_labels.npy"
    whole = server.content[name]
    if fault == "cut":
        server.cut.add(name)
    elif fault == "other":
        server.content[name] = bytes(reversed(whole))
    else:
        del server.content[name]
    root = tmp_path / "root"
    for _ in range(2):
        with pytest.raises(UserError, match=r"downloading cifar10.1-v6 into .* failed"):
            fetch("cifar10.1-v6", root)
        assert_nothing_is_left(root)
    server.cut.clear()
    server.content[name] = whole
    assert fetch("cifar10.1-v6", root).state == "intact"


def test_sets_that_cannot_be_downloaded_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be downloaded by this command.*image-net"):
        fetch("imagenet32", tmp_path)
    with pytest.raises(UserError, match=r"cannot be downloaded.*lmdb.*lsun/test"):
        fetch("lsun", tmp_path)
    with pytest.raises(UserError, match="unknown data set"):
        fetch("cifar12", tmp_path)
    assert fetch("synthetic", tmp_path).state == "intact"


def tar(folder: Path, *, inside: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, inside)
    return buffer.getvalue()


def test_torchvisions_sets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    body = tar(formats.write_cifar10(tmp_path / "published", monkeypatch), inside=CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", server.address + CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(body).hexdigest())
    server.content[CIFAR10.filename] = body[:-100]
    with pytest.raises(UserError, match="downloading cifar10 into"):
        fetch("cifar10", root)
    assert_nothing_is_left(root)
    server.content[CIFAR10.filename] = body
    assert fetch("cifar10", root).state == "intact"
    assert [path.name for path in root.iterdir()] == [CIFAR10.base_folder]
    formats.flip_byte(root / CIFAR10.base_folder / "test_batch", 99)
    assert fetch("cifar10", root).state == "intact"

    serve_svhn(server, tmp_path, monkeypatch)
    assert fetch("svhn", root).state == "intact"

    body = tar(formats.write_textures(tmp_path / "published"), inside="dtd")
    server.content["dtd.tar.gz"] = body
    monkeypatch.setattr(DTD, "_URL", server.address + "dtd.tar.gz")
    monkeypatch.setattr(DTD, "_MD5", hashlib.md5(body).hexdigest())
    assert fetch("textures", root).message == "test: 6 images, 32x32, 2 classes"
    assert not list(root.rglob("*.tar.gz"))


def test_human_labels_are_checked_by_content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    formats.write_cifar10(root, monkeypatch)
    clean = load("cifar10", root=root).labels.tolist()
    with np.load(formats.write_human_labels(tmp_path / "published", clean)) as arrays:
        labels = dict(arrays)
    buffer = io.BytesIO()
    torch.save({name: array.astype(np.int64) for name, array in labels.items()}, buffer)
    server.content["CIFAR-10_human.pt"] = buffer.getvalue()
    monkeypatch.setattr(cifar, "CIFAR10N_ADDRESS", server.address + "CIFAR-10_human.pt")
    with pytest.raises(UserError, match=r"failed: the labels have the SHA-256 sum \w{64}, expected \w{64}"):
        fetch("cifar10n-worse", root)
    assert not (root / "cifar10n").exists()
    monkeypatch.setattr(download, "CIFAR10N_SHA256", arrays_digest(labels.values()))
    assert fetch("cifar10n-worse", root).state == "intact"
    assert [path.name for path in (root / "cifar10n").iterdir()] == ["labels.npz"]


def test_tiny_imagenet_is_unpacked_and_only_into_its_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = formats.write_tiny_imagenet(tmp_path / "published", ("n01", "n02"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(published.rglob("*")):
            archive.write(path, path.relative_to(published.parent))
        archive.writestr("../../escaped", "malice")
    server.content["tiny.zip"] = buffer.getvalue()
    monkeypatch.setattr(download, "TINY_IMAGENET_HASH", f"md5:{hashlib.md5(buffer.getvalue()).hexdigest()}")
    monkeypatch.setattr(download, "TINY_IMAGENET_ADDRESS", server.address + "tiny.zip")
    status = fetch("tiny_imagenet", tmp_path / "root")
    assert not (tmp_path / "escaped").exists()
    assert status.message == "train: 6 images, 64x64, 2 classes; test: 2 images, 64x64, 2 classes"
    assert not list((tmp_path / "root").rglob("*.zip"))
