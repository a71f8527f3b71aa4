"""Networks, heads and weight files."""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from robustness_lib.errors import UserError
from robustness_lib.models import architectures, checkpoints
from robustness_lib.models.architectures import StateDict


def on_meta(architecture: str, num_classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return architectures.build(architecture, num_classes)


def lively(architecture: str, num_classes: int = 10, dropout: float = 0.0) -> nn.Module:
    """A network in which every entry of the state dict matters."""
    network = architectures.build(architecture, num_classes, dropout, seed=3)
    stream = torch.Generator().manual_seed(4)
    for name, value in network.state_dict().items():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=stream) * 0.8 + (0.6 if "var" in name else -0.2))
    return network.eval()


def images(count: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("depth", "width", "parameters"), [(10, 1, None), (40, 2, 2_243_546), (28, 10, 36_479_194)])
def test_wide_resnets_have_the_authors_names_shapes_and_sizes(depth: int, width: int, parameters: int | None) -> None:
    expected: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.{entry}"] = (channels,)
        expected[f"{name}.num_batches_tracked"] = ()

    expected["conv1.weight"] = (16, 3, 3, 3)
    previous = 16
    for group in (1, 2, 3):
        out = 16 * width * 2 ** (group - 1)
        for index in range((depth - 4) // 6):
            block = f"block{group}.layer.{index}"
            norm(f"{block}.bn1", previous)
            expected[f"{block}.conv1.weight"] = (out, previous, 3, 3)
            norm(f"{block}.bn2", out)
            expected[f"{block}.conv2.weight"] = (out, out, 3, 3)
            if index == 0 and previous != out:
                expected[f"{block}.convShortcut.weight"] = (out, previous, 1, 1)
            previous = out
    norm("bn1", previous)
    expected |= {"fc.weight": (10, previous), "fc.bias": (10,)}

    network = on_meta(f"wrn-{depth}-{width}")
    assert parameters in (None, architectures.count_parameters(network))
    assert [(name, tuple(value.shape)) for name, value in network.state_dict().items()] == list(expected.items())
    children = [name for name, _ in network.named_children()]
    assert children == ["conv1", "block1", "block2", "block3", "bn1", "relu", "fc"]


def plain_wide_resnet(state: StateDict, x: Tensor, training: bool = False, dropout: float = 0.0) -> Tensor:
    """The network once more, from the description alone."""
    state = {name: value.clone() for name, value in state.items()}

    def activated(name: str, x: Tensor) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-5)
        return (x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]).clamp(min=0)

    out = F.conv2d(x, state["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for index in range(len({name.split(".")[2] for name in state if name.startswith("block1.")})):
            block = f"block{group}.layer.{index}"
            stride = 2 if group > 1 and index == 0 else 1
            first = activated(f"{block}.bn1", out)
            inner = F.conv2d(first, state[f"{block}.conv1.weight"], stride=stride, padding=1)
            inner = F.dropout(activated(f"{block}.bn2", inner), dropout, training)
            inner = F.conv2d(inner, state[f"{block}.conv2.weight"], padding=1)
            projection = state.get(f"{block}.convShortcut.weight")
            out = inner + (out if projection is None else F.conv2d(first, projection, stride=stride))
    out = F.avg_pool2d(activated("bn1", out), out.shape[-1]).flatten(1)
    return out @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("size", [16, 64])
def test_wide_resnet_computes_what_the_description_says(size: int) -> None:
    """Dropout is before the second convolution, and in training only."""
    network, x = lively("wrn-16-2", 7, dropout=0.3), images(size=size)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain_wide_resnet(state, x), rtol=1e-4, atol=1e-5)
        assert torch.equal(architectures.head(network)(architectures.features(network, x)), network(x))
        torch.manual_seed(5)
        expected = plain_wide_resnet(state, x, training=True, dropout=0.3)
        torch.manual_seed(5)
        torch.testing.assert_close(network.train()(x), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(network(x), expected, atol=1e-3)  # other draws, other values


@pytest.mark.parametrize(("name", "parameters"), [("allconv", 1_409_674), ("allconv-24", 89_770)])  # the authors'; ours
def test_allconv_computes_what_the_description_says(name: str, parameters: int) -> None:
    network, x = lively(name), images(2, 32)
    state = network.state_dict()
    assert (architectures.count_parameters(network), len(state)) == (parameters, 65)
    assert checkpoints.architecture_of(state) == (name, 10)

    def stage(x: Tensor, index: int, padding: int = 1) -> Tensor:
        entries = ("running_mean", "running_var", "weight", "bias")
        norm = {name: state[f"features.{index + 1}.{name}"] for name in entries}
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=padding)
        x = F.batch_norm(x, **norm)
        return x / (1 + torch.exp(-1.702 * x))

    with torch.no_grad():
        out = F.max_pool2d(stage(stage(stage(x, 0), 3), 6), 2)
        out = F.max_pool2d(stage(stage(stage(out, 11), 14), 17), 2)
        out = stage(stage(stage(out, 22, padding=0), 25), 28)[:, :, :8, :8].mean((2, 3))  # of 10x10
        expected = out @ state["classifier.weight"].T + state["classifier.bias"]
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(architectures.features(network, x), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "features"), [("resnet18", 512), ("wide_resnet50_2", 2048), ("alexnet", 4096), ("vgg11_bn", 4096)]
)
def test_torchvision_networks_come_through_the_same_door(architecture: str, features: int) -> None:
    network = on_meta(architecture, 1000).eval()
    published = torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].meta["num_params"]
    assert architectures.count_parameters(network) == published
    assert architectures.head(network).in_features == features
    seen = architectures.features(network, torch.empty(2, 3, 224, 224, device="meta"))
    assert architectures.head(network)(seen).shape == (2, 1000)
    if architecture == "resnet18":
        network, x = architectures.build(architecture, 6).eval(), images(2)
        assert torch.equal(architectures.head(network)(architectures.features(network, x)), network(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wrn-41-2", 10), "architecture is 'wrn-41-2', .* a depth 4 more than a .*"),
        (("allconv-0", 10), r"unknown architecture 'allconv-0' .*did you mean 'allconv.*wrn-<depth>-<width>"),
        (("wrn-10-1", 0), "at least 1 class, not 0"),
        (("wrn-10-1", 10, math.nan), "dropout must be at least 0 and below 1"),
    ],
)
def test_bad_requests_are_refused(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        architectures.build(*arguments)


@pytest.mark.parametrize("architecture", ["wrn-16-4", "allconv"])
def test_initialisation_is_that_of_the_authors(architecture: str) -> None:
    network = architectures.build(architecture, 1000, seed=0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            sigma = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            spread = 5 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(sigma, rel=spread)
            assert abs(module.weight.mean().item()) < 5 * sigma / math.sqrt(module.weight.numel())
            assert module.weight.abs().max() > 2.5 * sigma  # a normal distribution, not a uniform one
            assert module.bias is None or 0 < module.bias.abs().max() <= module.weight[0].numel() ** -0.5
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()
    head = architectures.head(network)
    bound = head.in_features**-0.5
    assert 0.999 * bound < head.weight.abs().max() <= bound
    assert head.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not head.bias.any()


@pytest.mark.parametrize("architecture", ["wrn-10-1", "resnet18"])
def test_weights_are_a_function_of_the_seed_alone(architecture: str) -> None:
    def checksum(seed: int | None, dropout: float = 0.0) -> str:
        return checkpoints.weights_checksum(architectures.build(architecture, 10, dropout, seed).state_dict())

    before = torch.get_rng_state()
    first = checksum(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert checksum(7, dropout=0.3) == first
    assert len({first, checksum(8), checksum(None), checksum(None)}) == 4


def test_a_new_head_is_drawn_from_its_own_stream_bias_included() -> None:
    network = architectures.build("wrn-10-2", 1000, seed=0)
    trunk = {name: value.clone() for name, value in network.state_dict().items() if not name.startswith("fc.")}
    before = torch.get_rng_state()
    head = architectures.head(architectures.new_head(network, 100, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in trunk.items())
    bound = 128**-0.5
    for values in (head.weight, head.bias):
        assert 0.95 * bound < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    bare = architectures.head(architectures.new_head(network, 100, seed=5, bias=False))
    assert bare.bias is None
    assert torch.equal(bare.weight, head.weight)
    assert not torch.equal(architectures.head(architectures.new_head(network, 100, seed=6)).weight, head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), r"trunk of wrn-10-1.*: missing 'conv1\.weight'$"),
        (lambda s: s.update(extra=torch.zeros(1), more=torch.zeros(1)), "unexpected 'extra' and 1 more$"),
        (lambda s: s.update({"bn1.bias": torch.zeros(9)}), r"'bn1.bias' has shape \(9,\) instead of \(64,\)"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused(change: Callable[[StateDict], object], message: str) -> None:
    weights = dict(lively("wrn-10-1").state_dict())
    change(weights)
    with pytest.raises(UserError, match=message):
        architectures.load_trunk(architectures.build("wrn-10-1", 10, seed=9), weights)


def test_weights_survive_the_round_trip(tmp_path: Path) -> None:
    state = dict(lively("wrn-10-1").to(memory_format=torch.channels_last).state_dict())
    whole = torch.arange(6.0)
    state |= {"half": torch.randn(3).bfloat16(), "none": torch.empty(0, 2), "whole": whole, "part": whole[3:]}  # shared
    path, metadata = tmp_path / "new" / "folder" / "a.safetensors", {"seed": "1", "corpus": "zażółć"}
    checkpoints.save_weights(path, state, metadata)
    loaded, read = checkpoints.load_weights(str(path))
    assert (read, set(loaded)) == (metadata, set(state))
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)
    assert checkpoints.weights_checksum(loaded) == checkpoints.weights_checksum(state)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save_weights(path, {"w": torch.arange(50.0), "v": torch.ones(3)}, {"note": "x"})
    content = path.read_bytes()
    for length in range(0, len(content), 17):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.safetensors"):
            checkpoints.load_weights(path)
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            loaded, metadata = checkpoints.load_weights(path)
        except UserError:
            continue
        # Only the name of the sum itself can change unseen by it, and it is seen by its absence.
        assert metadata.keys() - {"note"}, position
        assert torch.equal(loaded["w"], torch.arange(50.0))


def wrapped(state: StateDict, classes: int, bias: bool) -> StateDict:
    """A state dict of the wrapper of the label corruption scripts around the children of a network."""
    network = architectures.build("wrn-10-1", checkpoints.architecture_of(state)[1])
    network.load_state_dict(state)
    wrapper = nn.Module()
    wrapper.trunk = nn.Sequential(*list(network.children())[:-1])
    wrapper.classifier = nn.Linear(64, classes, bias=bias)
    return dict(wrapper.state_dict())


def prefixed(state: StateDict) -> StateDict:
    return {f"module.{name}": value for name, value in state.items()}


def untracked(state: StateDict) -> StateDict:
    return {name: value for name, value in state.items() if "num_batches_tracked" not in name}


@pytest.mark.parametrize(
    ("form", "classes"),
    [
        (lambda s: s, 10),
        (lambda s: prefixed(untracked(s)), 1000),
        (lambda s: {"state_dict": prefixed(s)}, 10),
        (lambda s: wrapped(s, 100, bias=True), 100),
        (lambda s: prefixed(wrapped(s, 10, bias=True)), 10),
        (lambda s: wrapped(s, 10, bias=False), 10),
    ],
)
def test_the_authors_files_are_read(form: Callable[[StateDict], object], classes: int, tmp_path: Path) -> None:
    source = lively("wrn-10-1", classes)
    path = tmp_path / "imagenet_wrn_baseline_epoch_99.pt"
    torch.save(form(dict(source.state_dict())), path, _use_new_zipfile_serialization=classes > 10)
    weights = checkpoints.load_authors_checkpoint(path)
    assert checkpoints.architecture_of(weights) == ("wrn-10-1", classes)
    assert set(source.state_dict()) - set(weights) <= {"fc.bias"}
    network = architectures.build("wrn-10-1", 3)
    architectures.load_trunk(network, weights)
    x = images()
    with torch.no_grad():
        assert torch.equal(architectures.features(network.eval(), x), architectures.features(source, x))


def test_the_authors_allconv_is_read(tmp_path: Path) -> None:
    source = lively("allconv").state_dict()
    torch.save(prefixed(untracked(dict(source))), tmp_path / "a.pt")
    weights = checkpoints.load_authors_checkpoint(tmp_path / "a.pt")
    assert checkpoints.architecture_of(weights) == ("allconv", 10)
    assert all(torch.equal(weights[name], value) for name, value in source.items())


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path, content = tmp_path / "a.pt", {"conv1.weight": Bomb(tmp_path / "exploded")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"holds more than weights: it asks to run 'posix\.mkdir', which is refused"):
        checkpoints.load_authors_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match="there is no file"):
        checkpoints.load_authors_checkpoint(path)
    for zipped in (True, False):
        torch.save(lively("wrn-10-1").state_dict(), path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for part in (b"", b"<html>Not found</html>", content[:50], content[: len(content) // 2], content[:-30]):
            path.write_bytes(part)
            with pytest.raises(UserError, match=r"a\.pt (is damaged|does not hold|is not a PyTorch checkpoint)"):
                checkpoints.load_authors_checkpoint(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [torch.zeros(1)], "does not hold a state dict .* but a list"),
        (lambda: {}, "found 0 entries, such as none"),
        (lambda: architectures.build("resnet18", 2).state_dict(), r"not the weights of a Wide ResNet .*122 entries"),
        (
            lambda: {**lively("wrn-10-1").state_dict(), "bn1.bias": torch.zeros(9)},
            r"does not fit it: 'bn1\.bias' has shape \(9,\) instead",
        ),
    ],
)
def test_other_weights_are_refused(make: Callable[[], object], message: str, tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as caught:
        checkpoints.load_authors_checkpoint(tmp_path / "a.pt")
    assert "a.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no ImageNet weights of alexnet at .*/alexnet-owt-7be5be79\.pth; download"):
        checkpoints.load_imagenet_weights("alexnet", tmp_path)
    with pytest.raises(UserError, match="unknown torchvision network 'wrn-40-2'"):
        checkpoints.load_imagenet_weights("wrn-40-2", tmp_path)
    source = architectures.build("resnet18", 1000).state_dict()
    torch.save(source, tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    path = (tmp_path / "weights").rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setattr(checkpoints, "_imagenet_address", lambda _: f"https://example.org/models/{path.name}")
    weights = checkpoints.load_imagenet_weights("resnet18", tmp_path)
    assert all(torch.equal(weights[name], value) for name, value in source.items())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"is damaged: its SHA-256 is [0-9a-f]{{64}}, .* begin with {digest[:8]}"):
        checkpoints.load_imagenet_weights("resnet18", tmp_path)
