"""The training loop against a plain one, its random streams, its promises when killed, and bad recipes."""

import dataclasses
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import functional as tvf

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.methods.interfaces import Forward
from robustness_lib.models.architectures import build, head
from robustness_lib.models.checkpoints import load_weights
from robustness_lib.randomness import generator, stream_seed
from robustness_lib.training.config import NORMALISATIONS, TrainingConfig, early_steps
from robustness_lib.training.device import Runtime
from robustness_lib.training.trainer import TrainingDiverged, predict, train

BF16 = Runtime(precision="bfloat16", threads=1)


def but(recipe: TrainingConfig = toys.RECIPE, **changes: object) -> TrainingConfig:
    return dataclasses.replace(recipe, **changes)


def linear_training(recipe: TrainingConfig, data: ImageDataset, seed: int = 0, **options: object) -> nn.Module:
    """A training whose network costs nothing, for what happens around it."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(data.images[0].numel(), data.num_classes))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    train(network, data, recipe, seed=seed, runtime=toys.PLAIN, **options)
    return network


class Watch:
    """A loss that notes which images it is given."""

    def __init__(self) -> None:
        self.indices: list[Tensor] = []

    def __call__(self, network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        self.indices.append(indices.clone())
        return F.cross_entropy(network(images), labels)


def test_sampler_says_which_images_and_in_which_order() -> None:
    watch = Watch()
    asked = []

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        chosen = torch.randint(0, 5, (21,), generator=stream)
        asked.append((epoch, chosen))
        return chosen

    linear_training(but(epochs=2, batch_size=8), toys.images(), loss=watch, sampler=sampler)
    assert [len(part) for part in watch.indices] == [8, 8, 5] * 2
    drawn = dict(asked)
    assert torch.equal(torch.cat(watch.indices), torch.cat([drawn[1], drawn[2]]))
    assert not torch.equal(drawn[1], drawn[2])


def test_sampler_that_changes_the_length_of_an_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="epoch 2"):
        linear_training(but(epochs=2), toys.images(), sampler=lambda epoch, stream: torch.arange(40 // epoch))


def textbook(network: nn.Module, data: ImageDataset, recipe: TrainingConfig, seed: int) -> nn.Module:
    """The same training as one would write it after the papers, image by image."""
    options = {"momentum": 0.9, "weight_decay": recipe.weight_decay, "nesterov": recipe.nesterov}
    optimiser = torch.optim.SGD(network.parameters(), recipe.learning_rate, **options)
    count, batch = len(data), recipe.batch_size
    total = recipe.epochs * -(-count // batch)
    update = 0
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        order = torch.randperm(count, generator=generator(seed, "order", epoch)).tolist()
        stream = generator(seed, "augmentation", epoch)
        top, left = torch.randint(0, 9, (2, count), generator=stream).tolist()
        flips = (torch.rand(count, generator=stream) < 0.5).tolist()
        torch.manual_seed(stream_seed(seed, "dropout", epoch))
        for start in range(0, count, batch):
            places = range(start, min(start + batch, count))
            inputs = []
            for place in places:
                image = tvf.crop(
                    tvf.pad(tvf.to_pil_image(data.images[order[place]]), 4), top[place], left[place], 16, 16
                )
                image = tvf.hflip(image) if flips[place] else image
                inputs.append(tvf.normalize(tvf.to_tensor(image), [0.5] * 3, [0.5] * 3))
            labels = data.labels[[order[place] for place in places]]
            update += 1
            low, high = recipe.final_learning_rate, recipe.learning_rate
            for group in optimiser.param_groups:
                group["lr"] = low + 0.5 * (high - low) * (1 + math.cos(math.pi * update / total))
            optimiser.zero_grad()
            F.cross_entropy(network(torch.stack(inputs)), labels).backward()
            optimiser.step()
    return network


@pytest.mark.parametrize(
    ("layout", "dropout", "nesterov", "rate", "tolerance"),
    [
        (torch.channels_last, 0.3, True, 0.05, 1e-5),
        (torch.channels_last, 0.0, False, 0.05, 1e-5),
        # In the other layout convolutions round differently, which training amplifies; so a gentler one.
        (torch.contiguous_format, 0.0, True, 0.01, 2e-3),
    ],
    ids=["dropout", "plain momentum", "other layout"],
)
def test_the_loop_equals_a_textbook_loop(
    layout: torch.memory_format, dropout: float, nesterov: bool, rate: float, tolerance: float
) -> None:
    recipe = but(epochs=2, dropout=dropout, weight_decay=0.01, learning_rate=rate, nesterov=nesterov)
    data = toys.images()
    start = build("wrn-10-1", 4, dropout, 5).state_dict()
    fast = toys.trained(recipe, 5, data).state_dict()
    with torch.random.fork_rng():
        network = build("wrn-10-1", 4, dropout, 5).to(memory_format=layout)
        plain = textbook(network, data, recipe, 5).state_dict()
    assert fast.keys() == plain.keys()
    for name, value in plain.items():
        moved = float((value - start[name]).double().norm())
        assert moved > 0, name
        assert float((value - fast[name]).double().norm()) <= tolerance * moved, name


def test_global_random_numbers_are_untouched() -> None:
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 - the global state is what is tested
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    toys.trained(but(dropout=0.2), observe=lambda network: {"drawn": torch.zeros(1)})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_bfloat16_and_float32_agree_roughly() -> None:
    recipe, data = but(epochs=6), toys.images(size=8)
    _, plain = toys.run_training(recipe, data=data)
    network, brief = toys.run_training(recipe, data=data, runtime=BF16)
    assert plain.losses[-1] < 0.8 * plain.losses[0]  # it learns
    assert brief.losses == pytest.approx(plain.losses, rel=0.05)
    assert brief.losses != plain.losses  # it is another arithmetic
    assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}


def test_a_batch_of_one_image_without_statistics_is_one_sentence() -> None:
    """ResNet-18 ends in one pixel at this size; a Wide ResNet keeps several, of which there are statistics."""
    changes = {"epochs": 1, "batch_size": 4}
    toys.run_training(but(**changes), data=toys.images(5, size=16))
    with pytest.raises(UserError, match="which 5 images in batches of 4 come to; choose another batch_size"):
        toys.run_training(but(architecture="resnet18", **changes), data=toys.images(5, size=16))


def test_head_only_training_leaves_the_trunk_and_its_statistics_alone() -> None:
    recipe = but(trainable="head", dropout=0.3)
    before = {name: value.clone() for name, value in build("wrn-10-1", 4, 0.3, 0).state_dict().items()}
    network = toys.trained(recipe)
    last = {id(parameter) for parameter in head(network).parameters()}
    own = {name for name, parameter in network.named_parameters() if id(parameter) in last}
    assert len(own) == 2
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in own), name


def test_observed_epochs_are_evenly_spread() -> None:
    expected = {(10, 0): [], (10, 5): [2, 4, 6, 8, 10], (10, 3): [3, 7, 10], (2, 5): [1, 2]}
    for (epochs, count), epochs_observed in expected.items():
        assert TrainingConfig(epochs=epochs, observations=count).observed_epochs() == epochs_observed


def test_early_looks_are_after_halves_of_the_first_epoch_and_change_nothing() -> None:
    plain = but(epochs=2, batch_size=5, observations=1, crop_padding=0, flip=False, dropout=0.3, schedule="constant")
    recipe = but(plain, early_looks=5)  # 8 updates an epoch
    assert early_steps(recipe, 8) == [1, 2, 4]
    assert early_steps(plain, 8) == early_steps(recipe, 1) == []
    seen: list[str] = []

    def observe(network: nn.Module) -> dict[str, Tensor]:
        assert not network.training
        torch.rand(3)  # an observer may use random numbers
        seen.append(toys.checksum(network))
        return {}

    network, history = toys.run_training(recipe, observe=observe)
    assert list(history.observed) == [1 / 8, 2 / 8, 4 / 8, 2]
    assert toys.checksum(network) == toys.checksum(toys.trained(plain))
    half = toys.trained(but(plain, epochs=1), sampler=lambda _, stream: torch.randperm(40, generator=stream)[:20])
    assert toys.checksum(half) == seen[2]  # after four of eight updates


def test_killed_by_sigkill_it_reaches_the_same_weights(tmp_path: Path) -> None:
    recipe, result, checkpoint = but(epochs=16, dropout=0.2), tmp_path / "result", tmp_path / "partial.safetensors"
    with toys.child(toys.train_child, recipe, checkpoint, result) as child:
        toys.wait_for(checkpoint.exists)
        child.kill()
        child.join()
    assert checkpoint.exists()
    assert not result.exists()
    calm, history = toys.run_training(recipe, 3)
    checkpoint_of, resumed = load_weights(checkpoint)[1]["epoch"], toys.run_training(recipe, 3, checkpoint=checkpoint)
    assert 1 <= int(checkpoint_of) < 16
    assert (toys.checksum(resumed[0]), resumed[1].losses) == (toys.checksum(calm), history.losses)


class Stop(Exception):
    """Something that ends a training from within."""


def interrupted(checkpoint: Path, recipe: TrainingConfig, after: int, **options: object) -> None:
    """Train until ``observe`` was called so many times, leaving the checkpoint of the epoch before."""
    calls: list[int] = []

    def observe(network: nn.Module) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) > after:
            raise Stop
        return {"number": torch.tensor(float(len(calls)))}

    with pytest.raises(Stop):
        toys.run_training(recipe, checkpoint=checkpoint, checkpoint_every=0.0, observe=observe, **options)
    assert checkpoint.exists()


def test_what_was_observed_before_the_kill_is_kept(tmp_path: Path) -> None:
    recipe, checkpoint = but(epochs=4, observations=4, dropout=0.2), tmp_path / "partial.safetensors"
    interrupted(checkpoint, recipe, after=2)
    network, history = toys.run_training(
        recipe, checkpoint=checkpoint, observe=lambda network: {"number": torch.tensor(-1.0)}
    )
    assert {epoch: float(values["number"]) for epoch, values in history.observed.items()} == {1: 1, 2: 2, 3: -1, 4: -1}
    calm, whole = toys.run_training(recipe)
    assert (toys.checksum(network), history.losses) == (toys.checksum(calm), whole.losses)
    assert history.images == 160


@pytest.mark.parametrize("change", ["seed", "recipe", "data"])
def test_checkpoint_of_another_training_is_refused(tmp_path: Path, change: str) -> None:
    recipe, checkpoint = but(epochs=3, observations=3), tmp_path / "partial.safetensors"
    interrupted(checkpoint, recipe, after=1)
    options: dict[str, dict[str, object]] = {
        "seed": {"seed": 1},
        "recipe": {"recipe": but(recipe, weight_decay=0.0)},
        "data": {"data": toys.images(seed=9)},
    }
    with pytest.raises(UserError, match="belongs to another training") as caught:
        toys.run_training(**({"recipe": recipe} | options[change]), checkpoint=checkpoint)
    assert str(checkpoint) in str(caught.value)


def test_training_with_a_damaged_checkpoint_begins_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, checkpoint = but(epochs=3, observations=3), tmp_path / "partial.safetensors"
    interrupted(checkpoint, recipe, after=1)
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    checkpoint.write_bytes(content)
    assert toys.checksum(toys.trained(recipe, checkpoint=checkpoint)) == toys.checksum(toys.trained(recipe))
    said = capsys.readouterr().err
    assert f"an unfinished training begins again: {checkpoint} is damaged" in said


def test_diverging_training_says_where() -> None:
    recipe = but(epochs=4, batch_size=8, learning_rate=1e6)
    with pytest.raises(TrainingDiverged, match=r"at step \d+ of 20 \(epoch \d, learning rate ") as caught:
        toys.trained(recipe)
    assert json.dumps(recipe.as_dict()) in str(caught.value)


def test_divergence_in_the_last_update_is_not_missed() -> None:
    recipe = but(epochs=1, learning_rate=1e6)  # every loss is finite, the last update's weights are not
    with pytest.raises(TrainingDiverged, match="weights"):
        toys.trained(recipe)


def test_overrides_are_read_by_type() -> None:
    text = {"epochs": "5", "learning_rate": "1e-3", "flip": "False", "normalisation": " cifar ", "dropout": "0"}
    changed = TrainingConfig().with_overrides(text)
    assert changed == TrainingConfig(epochs=5, learning_rate=1e-3, flip=False, normalisation="cifar", dropout=0.0)
    assert type(changed.dropout) is float
    assert TrainingConfig().with_overrides({"flip": "1"}).flip is True
    assert TrainingConfig().with_overrides({}) == TrainingConfig()


def test_prediction_is_that_of_the_network_in_evaluation_mode() -> None:
    data, network = toys.images(23), toys.trained()
    network.train()
    before = toys.checksum(network)
    logits = predict(network, data, "cifar", BF16, batch_size=10)
    assert network.training
    assert toys.checksum(network) == before
    inputs = torch.stack(
        [tvf.normalize(tvf.to_tensor(tvf.to_pil_image(i)), *NORMALISATIONS["cifar"]) for i in data.images]
    )
    with torch.no_grad():
        expected = network.eval()(inputs)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_short_training_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", file)
    toys.trained(progress="a training")
    assert ("a training: 100%" in file.getvalue()) == terminal
    assert file.getvalue().count("\n") == terminal
