"""What is read from names of corpora (``imagenet32_160000x275``) and from ids of checkpoints, which hold these."""

import re
from dataclasses import dataclass

from robustness_lib.errors import UserError
from robustness_lib.training.config import ADVERSARIES, TORCHVISION

_COUNTS = re.compile(r"(.+)_(\d+)x(\d+)")
_ID = re.compile(
    rf"(?P<architecture>{'|'.join(TORCHVISION)}|[^_]+)_"
    r"(?P<corpus>.+?)(_(?P<counts>\d+x\d+))?(_n(?P<images>\d+))?"
    rf"(_(?P<adversary>{'|'.join(ADVERSARIES[1:])}))?"
    r"(_e(?P<epochs>\d+)_s(?P<seed>\d+)_\w+|_authors_\w+|_v\d+)"
)

OWN = "own"
"""In place of an id, so that each seed tunes the pre-training of the same seed."""

PUBLIC = "timm/"
"""What an initialisation begins with whose weights another library downloads; no checkpoint has this name."""

STAND_INS = {"places365": "miniplaces"}
"""What a method that asks for a corpus takes too; MiniPlaces has photographs of 100 of Places2's scenes."""


def is_checkpoint_id(text: object) -> bool:
    """Whether this can be a checkpoint's id, which names a file."""
    return isinstance(text, str) and re.fullmatch(rf"({PUBLIC})?[\w+][\w.+-]{{0,199}}", text) is not None


def check_id(checkpoint: str, given: str = "the checkpoint's id") -> str:
    """The id that a user gave, if it can be one (:func:`is_checkpoint_id`)."""
    if not is_checkpoint_id(checkpoint):
        raise UserError(
            f"{given} is {checkpoint[:60]!r}, but an id has at most 200 letters, digits and ._+-; give what "
            "'robustness pretrain' or 'robustness import' printed"
        )
    return checkpoint


def corpus_name(holds: str) -> str:
    """The image set's name without its counts: ``imagenet32_160000x275`` is of ``imagenet32``."""
    return match[1] if (match := _COUNTS.fullmatch(holds)) else holds


def corpus_counts(holds: str) -> tuple[int, int] | None:
    """How many images and classes a corpus holds, by its name; None where that does not say it."""
    return (int(match[2]), int(match[3])) if (match := _COUNTS.fullmatch(holds)) else None


@dataclass(frozen=True)
class Origin:
    """How a checkpoint came to be, by its id; epochs and seed are None of published weights."""

    architecture: str
    corpus: str
    holds: str  # the corpus with its counts, where the id has them
    images: int  # on how many images of it; 0 for all
    adversary: str
    epochs: int | None
    seed: int | None


def origin(checkpoint: str) -> Origin | None:
    """What a checkpoint's id says; None where it is no such id."""
    match = _ID.fullmatch(checkpoint)
    if match is None:
        return None
    epochs, seed = (int(text) if (text := match[name]) else None for name in ("epochs", "seed"))
    holds = "_".join(filter(None, (match["corpus"], match["counts"])))
    images, adversary = int(match["images"] or 0), match["adversary"] or ADVERSARIES[0]
    return Origin(match["architecture"], match["corpus"], holds, images, adversary, epochs, seed)


def trained_on(checkpoint: str, corpus: str) -> bool:
    """Whether a checkpoint was pre-trained on this image set, or on its stand-in (:data:`STAND_INS`), by its id."""
    made = origin(checkpoint)
    return made is not None and made.corpus in (corpus, STAND_INS.get(corpus))
