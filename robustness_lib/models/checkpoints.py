"""Files of weights: our own (safetensors), and those of P1's authors and torchvision, in which no code is run."""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from robustness_lib.errors import UserError, choose, first_line
from robustness_lib.files import write_atomically
from robustness_lib.models.architectures import StateDict, build, difference
from robustness_lib.training.config import TORCHVISION


def save_weights(path: Path | str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights and metadata to a safetensors file with a SHA-256 sum of everything, all or nothing."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state_dict.items()}  # none shared
    complete = {**metadata, _SUM: weights_checksum(tensors, metadata)}
    write_atomically(Path(path), safetensors.torch.save(tensors, complete))


_SUM = "content_sha256"


def weights_checksum(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 (hexadecimal) of names, types, shapes and bits, whatever the device, layout or order of entries."""
    digest = hashlib.sha256(json.dumps(dict(metadata or {}), sort_keys=True).encode())
    for name in sorted(state_dict):
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(path: Path | str) -> tuple[StateDict, dict[str, str]]:
    """Weights, on the CPU, and metadata of a file of :func:`save_weights`, or any other safetensors file."""
    content = _read(Path(path))
    try:
        state_dict = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        metadata: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    except Exception as error:  # whatever a damaged header makes the reader stumble over
        raise UserError(
            f"{path} is not a whole safetensors file ({first_line(error)}); delete it and make or download it again"
        ) from error
    if expected := metadata.pop(_SUM, None):
        actual = weights_checksum(state_dict, metadata)
        if actual != expected:
            raise UserError(
                f"{path} is damaged: its content has SHA-256 {actual}, but it was saved with {expected}; "
                "delete it and make or download it again"
            )
    return state_dict, metadata


def load_authors_checkpoint(path: Path | str) -> StateDict:
    """Weights under our names of a Wide ResNet's or AllConv's ``.pt`` file by P1's authors; no code in it is run."""
    state_dict = _our_names(_torch_file(Path(path)))
    try:
        architecture, num_classes = architecture_of(state_dict)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with torch.device("meta"):
        expected = build(architecture, num_classes).state_dict()
    bias = [name for name in ("fc.bias", "classifier.bias") if name not in state_dict]  # P1's Forward and GLC
    expected = {name: value for name, value in expected.items() if name not in bias}
    if misfit := difference(expected, state_dict):
        raise UserError(f"{path} looks like weights of {architecture}, but does not fit it: {misfit}")
    zero = torch.zeros((), dtype=torch.int64)
    return {name: state_dict.get(name, zero).clone() for name in expected}


def architecture_of(state_dict: Mapping[str, Tensor]) -> tuple[str, int]:
    """Architecture and number of classes of a Wide ResNet's or AllConv's weights."""
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    blocks = {match[1] for name in shapes if (match := re.match(r"block1\.layer\.(\d+)\.", name))}
    first = shapes.get("block1.layer.0.conv1.weight", ())
    heads = {name: shape[0] for name, shape in shapes.items() if len(shape) == 2 and shape[0] > 0}
    if blocks and "fc.weight" in heads and len(first) == 4 and first[0] >= 16:
        return f"wrn-{4 + 6 * len(blocks)}-{first[0] // 16}", heads["fc.weight"]
    if "features.28.weight" in shapes and "classifier.weight" in heads:
        channels = shapes["features.0.weight"][0]
        return "allconv" if channels == 96 else f"allconv-{channels}", heads["classifier.weight"]
    some = ", ".join(repr(name) for name in list(shapes)[:3])
    raise UserError(
        "these are not the weights of a Wide ResNet ('conv1', 'block1.layer.…', 'fc') or an AllConv "
        f"('features.…', 'classifier'): found {len(shapes)} entries, such as {some or 'none'}"
    )


def load_imagenet_weights(architecture: str, folder: Path | str) -> StateDict:
    """ImageNet weights of a network of torchvision (``IMAGENET1K_V1``, P2 B.6), under its name for them in ``folder``.

    That (``resnet18-f37072fd.pth``) ends with the beginning of the SHA-256 sum.
    """
    address = _imagenet_address(choose(architecture, TORCHVISION, "torchvision network"))
    path = Path(folder) / address.rsplit("/", 1)[-1]
    beginning, hint = path.stem.rsplit("-", 1)[-1], f"download {address} to it"
    if not path.is_file():
        raise UserError(f"no ImageNet weights of {architecture} at {path}; {hint}")
    actual = hashlib.sha256(_read(path)).hexdigest()
    if not actual.startswith(beginning):
        raise UserError(
            f"{path} is damaged: its SHA-256 is {actual}, which should begin with {beginning}; {hint} again"
        )
    return _torch_file(path)


def _imagenet_address(architecture: str) -> str:
    import torchvision

    return str(torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].url)


def _our_names(state_dict: StateDict) -> StateDict:
    """From names inside ``DataParallel`` (``module.…``) or the label corruption scripts' wrapper (``trunk.0`` …)."""
    plain = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if any(name.startswith("trunk.") for name in plain):
        for number, part in enumerate(("conv1", "block1", "block2", "block3", "bn1")):
            plain = {re.sub(rf"^trunk\.{number}\.", f"{part}.", name): value for name, value in plain.items()}
        plain = {re.sub(r"^classifier\.", "fc.", name): value for name, value in plain.items()}
    return plain


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path, or make or download the weights first")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the file's permissions and the disk") from error


def _torch_file(path: Path) -> StateDict:
    """The tensors of a ``torch.save`` file, loaded without running any code in it."""
    content = _read(path)
    if not content.startswith((b"PK", b"\x80")):  # zip since PyTorch 1.6, bare pickle before
        raise UserError(
            f"{path} is not a PyTorch checkpoint: it begins with {content[:15]!r} (perhaps a web page or "
            "an unfinished download); download it again"
        )
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        if isinstance(error, pickle.UnpicklingError) and (match := re.search(r"GLOBAL (\S+)", str(error))):
            raise UserError(
                f"{path} holds more than weights: it asks to run {match[1]!r}, which is refused; "
                "save it again as a state dict (torch.save(network.state_dict(), …)) where you trust it"
            ) from error
        raise UserError(f"{path} is damaged ({first_line(error)}); download it again") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(
            f"{path} does not hold a state dict (names and tensors) but a {type(loaded).__name__}; "
            "save network.state_dict() instead"
        )
    return {str(name): value for name, value in loaded.items()}
