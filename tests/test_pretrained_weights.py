"""Weights of others: taken into the store under an id that says what they are, and tuned from there."""

import dataclasses
from pathlib import Path

import pytest
import torch
import toys

from robustness_lib.errors import UserError
from robustness_lib.models.architectures import build
from robustness_lib.models.checkpoint_ids import trained_on
from robustness_lib.models.checkpoints import load_weights
from robustness_lib.runner import pretrained_weights
from robustness_lib.runner.model_cache import Context, find_checkpoint
from robustness_lib.runner.pretrained_weights import import_weights


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return toys.context(tmp_path / "runs")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A file as P1's authors released them: inside DataParallel, without counts of batches."""
    weights = build("wrn-10-1", 1000, seed=3).state_dict()
    path = tmp_path / "imagenet_wrn_baseline_epoch_99.pt"
    torch.save({f"module.{name}": value for name, value in weights.items() if "num_batches" not in name}, path)
    return path


def test_an_authors_file_becomes_a_checkpoint(context: Context, released: Path) -> None:
    name = import_weights(str(released), context, corpus="imagenet32")
    assert name.startswith("wrn-10-1_imagenet32_authors_")
    assert trained_on(name, "imagenet32")
    assert not trained_on(name, "imagenet32-no-cifar10")
    found = find_checkpoint(name, context.store)
    assert found is not None
    weights, about = load_weights(found)
    assert about["id"] == name
    assert torch.equal(weights["fc.weight"], build("wrn-10-1", 1000, seed=3).get_parameter("fc.weight"))
    found.write_bytes(found.read_bytes()[:-9])
    assert import_weights(str(released), context, corpus="imagenet32") == name
    assert torch.equal(load_weights(found)[0]["fc.weight"], weights["fc.weight"])
    against = import_weights(str(released), context, corpus="imagenet32", adversary="targeted")
    assert against == name.replace("_authors_", "_targeted_authors_")


def test_what_cannot_be_imported(context: Context, released: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch_99\.pt does not say what it was trained on; name it, such as --corpus"):
        import_weights(str(released), context)
    with pytest.raises(UserError, match=r"unknown image set 'imagenet23'.*did you mean 'imagenet32'"):
        import_weights(str(released), context, corpus="imagenet23")
    with pytest.raises(UserError, match="unknown adversary 'strong'"):
        import_weights(str(released), context, corpus="imagenet32", adversary="strong")
    with pytest.raises(UserError, match="there is no file resnet19"):
        import_weights("resnet19", context, corpus="imagenet32")
    for changes in ({"corpus": "imagenet32"}, {"adversary": "targeted"}):
        with pytest.raises(UserError, match="torchvision's resnet18 was trained on ImageNet; leave out --corpus"):
            import_weights("resnet18", context, **changes)
    assert not (context.store / "checkpoints").exists()


def test_imagenet_weights_become_a_checkpoint(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no ImageNet weights of alexnet at nowhere/torchvision/"):
        import_weights("alexnet", dataclasses.replace(context, data=Path("nowhere")))
    weights = {"fc.weight": torch.arange(3.0)}
    monkeypatch.setattr(pretrained_weights.checkpoints, "load_imagenet_weights", lambda architecture, folder: weights)
    name = import_weights("resnet18", context)
    assert name == "resnet18_imagenet_1281167x1000_v1"
    found = find_checkpoint(name, context.store)
    assert found is not None
    assert torch.equal(load_weights(found)[0]["fc.weight"], weights["fc.weight"])
