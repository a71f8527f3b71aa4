"""Networks and their heads: P1's :class:`WideResNet` and :class:`AllConv`, and P2's from torchvision.

From normalised float images [N, 3, H, W] to logits [N, K]. The *head* is the last linear layer, the *trunk* everything
else. Parameter names and shapes are those of P1's released checkpoints.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.errors import UserError
from robustness_lib.randomness import generator
from robustness_lib.training.config import allconv_channels, wrn_depth_and_width

StateDict = dict[str, Tensor]


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


def _group(blocks: int, in_width: int, out_width: int, stride: int, dropout: float) -> nn.Module:
    """Blocks of one width; only the first changes width and resolution."""
    first = _Block(in_width, out_width, stride, dropout)
    rest = (_Block(out_width, out_width, 1, dropout) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *rest)))


class WideResNet(nn.Module):
    """Wide ResNet WRN-depth-width (Zagoruyko and Komodakis 2016), the network of all tables of P1, for any image size.

    Three groups of (depth - 4) / 6 blocks; ``dropout`` is the rate between the two convolutions of a block.
    """

    def __init__(self, depth: int, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _group(blocks, 16, 16 * width, 1, dropout)
        self.block2 = _group(blocks, 16 * width, 32 * width, 2, dropout)
        self.block3 = _group(blocks, 32 * width, 64 * width, 2, dropout)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(64 * width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, H, W]."""
        maps = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(F.relu(self.bn1(maps), inplace=True).mean((2, 3)))
        return logits


class _SigmoidGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of the GELU that P1's code uses."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class AllConv(nn.Module):
    """All-convolutional network (Salimans and Kingma 2016, as P1's code has it; P1 §3.2, No Correction).

    Released checkpoints depend on two quirks: the 1x1 convolutions are padded by 1, and the 8x8 average pooling that
    follows sees only the top left of their 10x10 map. The first three convolutions
    have ``channels``, the others twice as many.
    """

    def __init__(self, num_classes: int, channels: int = 96) -> None:
        super().__init__()
        wide = 2 * channels

        def stage(in_width: int, out_width: int, kernel: int, padding: int) -> list[nn.Module]:
            return [nn.Conv2d(in_width, out_width, kernel, padding=padding), nn.BatchNorm2d(out_width), _SigmoidGELU()]

        narrow = (*stage(3, channels, 3, 1), *stage(channels, channels, 3, 1), *stage(channels, channels, 3, 1))
        self.features = nn.Sequential(
            *(*narrow, nn.MaxPool2d(2), nn.Dropout(0.5)),
            *(*stage(channels, wide, 3, 1), *stage(wide, wide, 3, 1), *stage(wide, wide, 3, 1)),
            *(nn.MaxPool2d(2), nn.Dropout(0.5)),
            *(*stage(wide, wide, 3, 0), *stage(wide, wide, 1, 1), *stage(wide, wide, 1, 1), nn.AvgPool2d(8)),
        )
        self.classifier = nn.Linear(wide, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        if x.shape[2:] != (32, 32):
            size = "x".join(map(str, x.shape[2:]))
            raise UserError(f"AllConv takes 32x32 images, not {size}; use a Wide ResNet, which takes any size")
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _initialise(network: nn.Module) -> None:
    """He initialisation by fan-out for convolutions, zero head bias; the rest stays at PyTorch's defaults."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


@contextlib.contextmanager
def _initialised_from(stream: torch.Generator) -> Iterator[None]:
    """Let PyTorch's own initialisers draw from ``stream``; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream.get_state())
        yield


def build(architecture: str, num_classes: int, dropout: float = 0.0, seed: int | None = None) -> nn.Module:
    """One of :data:`robustness_lib.training.config.ARCHITECTURES` with fresh weights, in training mode.

    Wide ResNets and AllConv are initialised as in P1's code, torchvision's networks as there. ``dropout`` is of Wide
    ResNets alone. ``seed`` alone decides the weights; with None they are from PyTorch's global generator.
    """
    if num_classes < 1:
        raise UserError(f"a network needs at least 1 class, not {num_classes}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, not {dropout}")
    with contextlib.nullcontext() if seed is None else _initialised_from(generator(seed, "init")):
        if size := wrn_depth_and_width(architecture):
            network: nn.Module = WideResNet(*size, num_classes, dropout)
        elif channels := allconv_channels(architecture):
            network = AllConv(num_classes, channels)
        else:
            import torchvision  # takes seconds

            network = torchvision.models.get_model(architecture, weights=None, num_classes=num_classes)
    vars(network)["architecture"] = architecture
    return network


def head_name(network: nn.Module) -> str:
    """The name of the head in ``network``, such as ``fc`` or ``classifier.6``."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return str(names[-1])


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer of ``network``, which turns features into logits."""
    layer = network.get_submodule(head_name(network))
    assert isinstance(layer, nn.Linear)
    return layer


def new_head(network: nn.Module, num_classes: int, seed: int, bias: bool = True) -> nn.Module:
    """Replace the head of ``network``, in place, by a fresh one for fine-tuning (P1 §3), and return the network.

    Equal seeds give equal weights with and without a bias (P1's code for Forward and GLC has none).
    """
    old = head(network)
    with _initialised_from(generator(seed, "head")):
        fresh = nn.Linear(old.in_features, num_classes, bias=bias)
    fresh = fresh.to(device=old.weight.device, dtype=old.weight.dtype)
    network.set_submodule(head_name(network), fresh)
    return network


def freeze_all_but_head(network: nn.Module) -> None:
    """Let only the head train (P1 §3.1, P2 B.2); from then on :func:`train_mode` takes ``network.train()``'s place."""
    network.requires_grad_(False)
    head(network).requires_grad_(True)
    train_mode(network)


def train_mode(network: nn.Module) -> None:
    """Put ``network`` into training mode; a trunk that is frozen stays a fixed function, in evaluation mode."""
    last = head(network)
    own = {id(parameter) for parameter in last.parameters()}
    network.train(any(p.requires_grad for p in network.parameters() if id(p) not in own))
    last.train()


def features(network: nn.Module, x: Tensor) -> Tensor:
    """What the head of ``network`` gets, [N, D], for normalised images [N, 3, H, W]."""
    seen: list[Tensor] = []
    with head(network).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        network(x)
    return seen[0]


def count_parameters(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def load_trunk(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load everything but the head, in place, from weights of the same architecture with or without any head."""
    prefix = head_name(network) + "."
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith(prefix)}
    given = {name: value for name, value in state_dict.items() if not name.startswith(prefix)}
    if misfit := difference(expected, given):
        name = getattr(network, "architecture", type(network).__name__)
        raise UserError(f"these weights do not fit a trunk of {name}: {misfit}")
    network.load_state_dict(given, strict=False)


def difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How ``given`` differs from ``expected`` in names and shapes, in words; empty text if it does not."""
    missing = [name for name in expected if name not in given and not name.endswith(".num_batches_tracked")]
    unknown = [name for name in given if name not in expected]
    shapes = [
        f"{name!r} has shape {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = [f"missing {name!r}" for name in missing] + [f"unexpected {name!r}" for name in unknown] + shapes
    return "".join(problems[:1]) + (f" and {len(problems) - 1} more" if len(problems) > 1 else "")
