"""Networks, their heads, and the two formats of their weights.

The networks of P1 are :class:`WideResNet` (WRN-40-2 and WRN-28-10) and :class:`AllConv`; those of P2 come
from torchvision. Parameter names and shapes are those of P1's released checkpoints, so that
:func:`load_authors_checkpoint` reads these. Our own weights are safetensors files (:func:`save_weights`).

Every network takes normalised float images [N, 3, H, W] and returns logits [N, K]. Its *head* is its last
linear layer, its *trunk* is everything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from robustness_lib.errors import UserError, choose
from robustness_lib.randomness import generator

StateDict = dict[str, Tensor]

TORCHVISION = ("resnet18", "resnet50", "resnet152", "alexnet", "vgg11_bn", "wide_resnet50_2")
"""The networks of P2 that torchvision provides (P2 B.6)."""

ARCHITECTURES = ("wrn-40-2", "wrn-28-10", "wrn-<depth>-<width>", "allconv", "allconv-64", *TORCHVISION)
"""What :func:`build` can build."""


class _Block(nn.Module):
    """Pre-activation basic block; a projection shortcut starts from the activated input."""

    def __init__(self, in_width: int, out_width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.convShortcut = None if in_width == out_width else nn.Conv2d(in_width, out_width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        if self.dropout > 0:
            out = F.dropout(out, self.dropout, self.training)
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(activated)
        residual: Tensor = self.conv2(out)
        return shortcut + residual


class _Group(nn.Module):
    """Blocks of one width; only the first changes width and resolution."""

    def __init__(self, blocks: int, in_width: int, out_width: int, stride: int, dropout: float) -> None:
        super().__init__()
        first = _Block(in_width, out_width, stride, dropout)
        self.layer = nn.Sequential(first, *(_Block(out_width, out_width, 1, dropout) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Wide ResNet WRN-depth-width (Zagoruyko and Komodakis 2016), the network of all tables of P1.

    Three groups of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times ``width`` channels, then
    global average pooling, so that images may have any size (P1: 32 and 64 pixels). Where a block widens, its
    shortcut is a 1x1 convolution of the activated input.

    Args:
        depth: Number of layers; depth - 4 is a positive multiple of 6.
        width: Widening factor, at least 1.
        num_classes: Number of logits K.
        dropout: Drop rate in [0, 1) between the two convolutions of every block, active in training mode only
            (P1: 0.3 when trained from scratch, 0 for pre-training and tuning).
    """

    def __init__(self, depth: int, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _Group(blocks, 16, 16 * width, 1, dropout)
        self.block2 = _Group(blocks, 16 * width, 32 * width, 2, dropout)
        self.block3 = _Group(blocks, 32 * width, 64 * width, 2, dropout)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(64 * width, num_classes)
        _initialise(self)

    def penultimate(self, x: Tensor) -> Tensor:
        """The pooled features [N, 64 * width] of images [N, 3, H, W]."""
        maps: Tensor = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(maps), inplace=True).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, H, W]."""
        logits: Tensor = self.fc(self.penultimate(x))
        return logits


class _SigmoidGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of the GELU that P1's code uses."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class AllConv(nn.Module):
    """All-convolutional network (Salimans and Kingma 2016, as P1's code has it; P1 §3.2, No Correction).

    Two quirks are kept, since released checkpoints depend on them: the 1x1 convolutions are padded by 1, and
    the 8x8 average pooling that follows sees only the top left of their 10x10 map. Dropout of 0.5 after each
    of the two max-poolings is part of the network.

    Args:
        num_classes: Number of logits K.
        image_size: 32, or 64 for the Tiny ImageNet variant (ReLU in place of GELU, and one more 2x2 average
            pooling).
    """

    def __init__(self, num_classes: int, image_size: int = 32) -> None:
        super().__init__()
        self.image_size = image_size

        def stage(in_width: int, out_width: int, kernel: int, padding: int) -> list[nn.Module]:
            activation = _SigmoidGELU() if image_size == 32 else nn.ReLU(inplace=True)
            return [
                nn.Conv2d(in_width, out_width, kernel, padding=padding),
                nn.BatchNorm2d(out_width),
                activation,
            ]

        self.features = nn.Sequential(
            *(
                *stage(3, 96, 3, 1),
                *stage(96, 96, 3, 1),
                *stage(96, 96, 3, 1),
                nn.MaxPool2d(2),
                nn.Dropout(0.5),
            ),
            *(
                *stage(96, 192, 3, 1),
                *stage(192, 192, 3, 1),
                *stage(192, 192, 3, 1),
                nn.MaxPool2d(2),
                nn.Dropout(0.5),
            ),
            *(*stage(192, 192, 3, 0), *stage(192, 192, 1, 1), *stage(192, 192, 1, 1), nn.AvgPool2d(8)),
        )
        self.classifier = nn.Linear(192, num_classes)
        _initialise(self)

    def penultimate(self, x: Tensor) -> Tensor:
        """The pooled features [N, 192] of images [N, 3, S, S], S the ``image_size``.

        Raises:
            UserError: The images have another size.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise UserError(
                f"this AllConv takes {self.image_size}-pixel images, not {'x'.join(map(str, x.shape[2:]))}; "
                "use 'allconv' for 32 and 'allconv-64' for 64 pixels, or a Wide ResNet for any size"
            )
        x = self.features(x)
        return (x if self.image_size == 32 else F.avg_pool2d(x, 2)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, S, S]."""
        logits: Tensor = self.classifier(self.penultimate(x))
        return logits


def _initialise(network: nn.Module) -> None:
    """He initialisation by fan-out for convolutions, zero head bias; the rest stays at PyTorch's defaults."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


@contextlib.contextmanager
def _drawing_from(stream: torch.Generator) -> Iterator[None]:
    """Let PyTorch's own initialisers draw from ``stream``; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream.get_state())
        yield


def build(architecture: str, num_classes: int, dropout: float = 0.0, seed: int | None = None) -> nn.Module:
    """A network with fresh weights.

    k x k convolutions of Wide ResNets and AllConv are drawn with variance 2 / (k k out_channels), the head's
    weight from U(-1/sqrt(d), 1/sqrt(d)) for d features; the head's bias is 0 (P1's code). torchvision's
    networks initialise themselves in their own way.

    Args:
        architecture: ``wrn-<depth>-<width>``, ``allconv`` (32 pixels), ``allconv-64``, or one of
            :data:`TORCHVISION`.
        num_classes: Number of logits K, at least 1.
        dropout: Drop rate in [0, 1) of a Wide ResNet; the other networks have their own, fixed rates.
        seed: The job's seed. The weights are a function of it, and the global random state is left alone;
            with None they are drawn from PyTorch's global generator.

    Returns:
        The network in training mode, float32, on the CPU.

    Raises:
        UserError: There is no such architecture, or a value is out of its range.
    """
    _check_classes(num_classes)
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, not {dropout}")
    with contextlib.nullcontext() if seed is None else _drawing_from(generator(seed, "init")):
        if architecture.startswith("wrn"):
            network: nn.Module = WideResNet(*_depth_and_width(architecture), num_classes, dropout)
        elif choose(architecture, ARCHITECTURES, "architecture") in ("allconv", "allconv-64"):
            network = AllConv(num_classes, 64 if architecture == "allconv-64" else 32)
        else:
            network = torchvision.models.get_model(architecture, weights=None, num_classes=num_classes)
    vars(network)["architecture"] = architecture
    return network


def _depth_and_width(architecture: str) -> tuple[int, int]:
    match = re.fullmatch(r"wrn-([0-9]+)-([0-9]+)", architecture)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if depth < 10 or (depth - 4) % 6 or width < 1:
        raise UserError(
            f"there is no {architecture!r}: a Wide ResNet is wrn-<depth>-<width>, with a depth 4 more than a "
            "multiple of 6 (10, 16, 22, 28, 34, 40, …) and a width of at least 1, for example wrn-40-2"
        )
    return depth, width


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise UserError(f"a network needs at least 1 class, not {num_classes}")


def head_name(network: nn.Module) -> str:
    """The name of the head in ``network``: its last linear layer, such as ``fc`` or ``classifier.6``."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return str(names[-1])


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer of ``network``, which turns features into logits."""
    layer = network.get_submodule(head_name(network))
    assert isinstance(layer, nn.Linear)
    return layer


def new_head(network: nn.Module, num_classes: int, seed: int, bias: bool = True) -> nn.Module:
    """Replace the head of ``network``, in place, by a fresh one for fine-tuning (P1 §3).

    Weight and bias are drawn from U(-1/sqrt(d), 1/sqrt(d)): unlike in a network built for training from
    scratch, the bias is not zero (P1's code).

    Args:
        network: Any network of :func:`build`; the new head is on the same device, of the same type.
        num_classes: Number of logits K.
        seed: The job's seed; equal seeds give equal weights with and without bias.
        bias: Whether there is a bias (P1's Forward and GLC code has none).

    Returns:
        ``network`` itself.

    Raises:
        UserError: ``num_classes`` is not positive.
    """
    _check_classes(num_classes)
    old = head(network)
    with _drawing_from(generator(seed, "head")):
        fresh = nn.Linear(old.in_features, num_classes, bias=bias)
    fresh = fresh.to(device=old.weight.device, dtype=old.weight.dtype)
    network.set_submodule(head_name(network), fresh)
    return network


def freeze_all_but_head(network: nn.Module) -> None:
    """Let only the head train (P1 §3.1, P2 B.2: last layer only).

    Call :func:`train_mode` instead of ``network.train()`` from then on, so that batch normalisation keeps its
    statistics.
    """
    network.requires_grad_(False)
    head(network).requires_grad_(True)
    train_mode(network)


def train_mode(network: nn.Module) -> None:
    """Put ``network`` into training mode; a trunk that is frozen stays in evaluation mode.

    In evaluation mode a trunk is a fixed function: its batch normalisation uses and keeps the statistics of
    pre-training, and it does not drop out.
    """
    last = head(network)
    own = {id(parameter) for parameter in last.parameters()}
    network.train(any(p.requires_grad for p in network.parameters() if id(p) not in own))
    last.train()


def features(network: nn.Module, x: Tensor) -> Tensor:
    """What the head sees.

    Args:
        network: Any network of :func:`build`; ``head(network)(features(network, x))`` is ``network(x)``.
        x: Normalised images [N, 3, H, W].

    Returns:
        Features [N, :func:`feature_dimension`].
    """
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    if isinstance(network, WideResNet | AllConv):
        return network.penultimate(x)
    if isinstance(network, torchvision.models.ResNet):
        out: Tensor = nn.Sequential(*list(network.children())[:-1])(x)
        return out.flatten(1)
    if isinstance(network, torchvision.models.AlexNet | torchvision.models.VGG):
        last: Tensor = network.classifier[:-1](network.avgpool(network.features(x)).flatten(1))
        return last
    raise UserError(f"the features of a {type(network).__name__} are not known; use a network of models.build")


def feature_dimension(network: nn.Module) -> int:
    """The number d of features that the head takes (128 for WRN-40-2)."""
    return head(network).in_features


def count_parameters(network: nn.Module, trainable_only: bool = False) -> int:
    """The number of parameters, or only of those that train."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable_only)


def describe(network: nn.Module) -> str:
    """One line about ``network``: its name, parameters, features and classes."""
    total, training = count_parameters(network), count_parameters(network, trainable_only=True)
    frozen = "" if training == total else f" ({training:,} train)"
    return (
        f"{getattr(network, 'architecture', type(network).__name__)}: {total:,} parameters{frozen}, "
        f"{feature_dimension(network)} features, {head(network).out_features} classes"
    )


def load_trunk(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load everything but the head, in place, strictly.

    Args:
        network: The network; its head stays as it is.
        state_dict: Weights of the same architecture, whatever the number of classes and whether or not they
            include a head; ``num_batches_tracked`` may be missing (PyTorch before 0.4.1).

    Raises:
        UserError: Names or shapes differ; the message says which, and the network is unchanged.
    """
    prefix = head_name(network) + "."
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith(prefix)}
    given = {name: value for name, value in state_dict.items() if not name.startswith(prefix)}
    if difference := _difference(expected, given):
        raise UserError(f"these weights do not fit a trunk of {describe(network)}: {difference}")
    network.load_state_dict(given, strict=False)


def _difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How ``given`` differs from ``expected`` in names and shapes, in words; empty if it does not."""
    optional = ".num_batches_tracked"
    missing = [name for name in expected if name not in given and not name.endswith(optional)]
    unknown = [name for name in given if name not in expected]
    parts = [
        f"{what} {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for what, names in (("missing", missing), ("unexpected", unknown))
        if names
    ]
    for name, value in given.items():
        if name in expected and value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(expected[name].shape)}"
            return "; ".join([*parts, f"{name!r} has shape {shapes}"])
    return "; ".join(parts)


def save_weights(path: Path | str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights to a safetensors file, all or nothing.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed: at any
    moment ``path`` is absent, the old file, or the new one. A SHA-256 sum of everything is kept in the file.

    Args:
        path: The file; its folder is made if need be.
        state_dict: The weights, of any device and memory layout.
        metadata: What to know about them; text only.

    Raises:
        UserError: The file cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    complete = {**metadata, _SUM: weights_checksum(tensors, metadata)}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(safetensors.torch.save(tensors, complete))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(
            f"cannot write weights to {path}: {error.strerror or error}; make room or choose another folder "
            "and run again (nothing half-written is left behind)"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_SUM = "content_sha256"


def weights_checksum(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256, in hexadecimal, of names, types, shapes and bits of weights (and of ``metadata``).

    Equal sums mean bit-identical weights, whatever the device, memory layout or order of entries.
    """
    digest = hashlib.sha256(json.dumps(dict(metadata or {}), sort_keys=True).encode())
    for name in sorted(state_dict):
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(path: Path | str) -> tuple[StateDict, dict[str, str]]:
    """Read a file of :func:`save_weights`, or any other safetensors file.

    Args:
        path: The file.

    Returns:
        The weights, on the CPU, and the metadata they were saved with.

    Raises:
        UserError: The file is missing, cut short or otherwise damaged; nothing of it is used.
    """
    content = _read(Path(path))
    try:
        state_dict = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        metadata: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    except Exception as error:  # whatever a damaged header makes the reader stumble over
        raise UserError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); delete it and make or download it again"
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
    """Read a ``.pt`` file of P1's authors, or one that follows their naming, without running any code in it.

    Understood are networks saved inside ``DataParallel`` (``module.…``) and inside the wrapper of the label
    corruption scripts (``trunk.0`` … ``trunk.4`` and ``classifier``), heads of any number of classes with or
    without bias, and files so old that they lack ``num_batches_tracked`` (0 is filled in).

    Args:
        path: The checkpoint of a Wide ResNet or an AllConv.

    Returns:
        The weights under our names; see :func:`architecture_of` for what network they belong to, and
        :func:`load_trunk` to use them with another head.

    Raises:
        UserError: There is no such file, it is no checkpoint, it contains more than weights, or the weights
            are not those of a Wide ResNet or an AllConv.
    """
    state_dict = _our_names(_torch_file(Path(path)))
    try:
        architecture, num_classes = architecture_of(state_dict)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with torch.device("meta"):
        expected = build(architecture, num_classes).state_dict()
    bias = [name for name in ("fc.bias", "classifier.bias") if name not in state_dict]  # P1's Forward and GLC
    expected = {name: value for name, value in expected.items() if name not in bias}
    if difference := _difference(expected, state_dict):
        raise UserError(f"{path} looks like weights of {architecture}, but does not fit it: {difference}")
    zero = torch.zeros((), dtype=torch.int64)
    return {name: state_dict.get(name, zero).clone() for name in expected}


def architecture_of(state_dict: Mapping[str, Tensor]) -> tuple[str, int]:
    """The architecture (for :func:`build`) and number of classes of a Wide ResNet's or AllConv's weights.

    ``allconv`` and ``allconv-64`` have the same names and shapes; the answer is ``allconv``.

    Raises:
        UserError: The names are those of another network, or there is no head.
    """
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    blocks = {match[1] for name in shapes if (match := re.match(r"block1\.layer\.(\d+)\.", name))}
    first = shapes.get("block1.layer.0.conv1.weight", ())
    heads = {name: shape[0] for name, shape in shapes.items() if len(shape) == 2 and shape[0] > 0}
    if blocks and "fc.weight" in heads and len(first) == 4 and first[0] >= 16:
        return f"wrn-{4 + 6 * len(blocks)}-{first[0] // 16}", heads["fc.weight"]
    if "features.28.weight" in shapes and "classifier.weight" in heads:
        return "allconv", heads["classifier.weight"]
    some = ", ".join(repr(name) for name in list(shapes)[:3])
    raise UserError(
        "these are not the weights of a Wide ResNet ('conv1', 'block1.layer.…', 'fc') or an AllConv "
        f"('features.…', 'classifier'): found {len(shapes)} entries, such as {some or 'none'}"
    )


def load_imagenet_weights(architecture: str, folder: Path | str) -> StateDict:
    """ImageNet weights of a torchvision network from a local file (``IMAGENET1K_V1``, those of P2 B.6).

    Args:
        architecture: One of :data:`TORCHVISION`.
        folder: Where the file lies, under the name that torchvision's download gives it
            (``resnet18-f37072fd.pth``); the name's last part begins its SHA-256 sum, which is checked.

    Returns:
        The weights, with a head of 1000 classes; see :func:`load_trunk`.

    Raises:
        UserError: There is no such architecture, or the file is missing or damaged; the message says where to
            get it.
    """
    address = _imagenet_address(choose(architecture, TORCHVISION, "torchvision network"))
    path = Path(folder) / address.rsplit("/", 1)[-1]
    hint = f"download {address} to it"
    if not path.is_file():
        raise UserError(f"no ImageNet weights of {architecture} at {path}; {hint}")
    beginning = path.stem.rsplit("-", 1)[-1]
    actual = hashlib.sha256(_read(path)).hexdigest()
    if not actual.startswith(beginning):
        raise UserError(
            f"{path} is damaged: its SHA-256 is {actual}, which should begin with {beginning}; {hint} again"
        )
    state_dict = _torch_file(path)
    with torch.device("meta"):
        expected = build(architecture, 1000).state_dict()
    if difference := _difference(expected, state_dict):
        raise UserError(f"{path} does not hold the weights of {architecture}: {difference}; {hint} again")
    return state_dict


def _imagenet_address(architecture: str) -> str:
    weights = torchvision.models.get_model_weights(architecture)
    return str(weights["IMAGENET1K_V1"].url)


def _our_names(state_dict: StateDict) -> StateDict:
    """The authors' names, without ``module.`` and with the label corruption wrapper's names mapped back."""
    plain = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if not any(name.startswith("trunk.") for name in plain):
        return plain
    parts = {f"trunk.{i}": part for i, part in enumerate(("conv1", "block1", "block2", "block3", "bn1"))}
    parts["classifier"] = "fc"
    pattern = re.compile(r"(trunk\.[0-4]|classifier)(?=\.)")
    return {pattern.sub(lambda match: parts[match[1]], name, count=1): value for name, value in plain.items()}


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
    except pickle.UnpicklingError as error:
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds more than weights: it asks to run {match[1]!r}, which is refused; "
                "save it again as a state dict (torch.save(network.state_dict(), …)) where you trust it"
            ) from error
        raise UserError(f"{path} is damaged ({_first_line(error)}); download it again") from error
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise UserError(f"{path} is damaged ({_first_line(error)}); download it again") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(
            f"{path} does not hold a state dict (names and tensors) but a {type(loaded).__name__}; "
            "save network.state_dict() instead"
        )
    return {str(name): value for name, value in loaded.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
