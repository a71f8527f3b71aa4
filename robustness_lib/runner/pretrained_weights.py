"""Weights that others published, taken into the store as checkpoints that trainings start from."""

from robustness_lib.data import SOURCES, data_root
from robustness_lib.errors import UserError, choose
from robustness_lib.models import checkpoints
from robustness_lib.runner.model_cache import Context
from robustness_lib.training.config import ADVERSARIES, TORCHVISION


def import_weights(weights: str, context: Context, *, corpus: str | None = None, adversary: str = "none") -> str:
    """Take published weights into the store; gives the checkpoint's id, the same for a file imported again.

    Args:
        weights: Path of a ``.pt`` file of P1's authors, or the name of a torchvision network, whose ImageNet weights
            (P2 B.6) a person has downloaded into the folder ``torchvision`` of the data root.
        corpus: The image set that the authors' network was trained on, which a file does not say.
        adversary: What it was trained against, one of ``training.config.ADVERSARIES``.
    """
    if weights in TORCHVISION:
        if corpus is not None or adversary != ADVERSARIES[0]:
            raise UserError(f"torchvision's {weights} was trained on ImageNet; leave out --corpus and --adversary")
        name = f"{weights}_imagenet_1281167x1000_v1"
        state_dict = checkpoints.load_imagenet_weights(weights, data_root(context.data) / "torchvision")
    else:
        state_dict = checkpoints.load_authors_checkpoint(weights)
        if corpus is None:
            raise UserError(f"{weights} does not say what it was trained on; name it, such as --corpus imagenet32")
        choose(corpus, SOURCES, "image set")
        choose(adversary, ADVERSARIES, "adversary")
        architecture = checkpoints.architecture_of(state_dict)[0]
        parts = [architecture, corpus, *([adversary] if adversary != ADVERSARIES[0] else [])]
        name = "_".join([*parts, "authors", checkpoints.weights_checksum(state_dict)[:6]])
    checkpoints.save_weights(context.store / "checkpoints" / f"{name}.safetensors", state_dict, {"id": name})
    return name
