"""What names of corpora and ids of checkpoints say: the one place that reads them.

A corpus of pre-training is named with what it holds, for example ``imagenet32_160000x275``. A checkpoint's id goes on
from there, for example ``wrn-16-1_imagenet32_160000x275_untargeted_e10_s1_f8e138``
(:func:`robustness_lib.runner.records.checkpoint_id`); that of published weights ends otherwise
(:func:`robustness_lib.runner.pretrained_weights.import_weights`).
"""

from __future__ import annotations

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

STAND_INS = {"places365": "miniplaces"}
"""What a method that asks for a corpus takes too: MiniPlaces has photographs of 100 of Places2's scenes."""

_SAFE = re.compile(r"(timm/)?[\w+][\w.+-]{0,199}")


def is_checkpoint_id(text: object) -> bool:
    """Whether this can be a checkpoint's id: letters, digits and ``._+-``, perhaps after ``timm/``; it names a file."""
    return isinstance(text, str) and _SAFE.fullmatch(text) is not None


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
    """How a checkpoint came to be, by its id.

    Attributes:
        architecture: Its network.
        corpus: The image set that it was trained on.
        holds: The same with its counts, where the id has them.
        images: On how many images of it; 0 for all.
        adversary: Against what, one of :data:`robustness_lib.training.config.ADVERSARIES`.
        epochs: For how long; None of published weights.
        seed: Its seed; None of published weights.
    """

    architecture: str
    corpus: str
    holds: str
    images: int
    adversary: str
    epochs: int | None
    seed: int | None


def origin(checkpoint: str) -> Origin | None:
    """What a checkpoint's id says; None where it is no such id."""
    match = _ID.fullmatch(checkpoint)
    if match is None:
        return None
    epochs, seed = (None if match[name] is None else int(match[name]) for name in ("epochs", "seed"))
    return Origin(
        architecture=match["architecture"],
        corpus=match["corpus"],
        holds="_".join(filter(None, (match["corpus"], match["counts"]))),
        images=int(match["images"] or 0),
        adversary=match["adversary"] or ADVERSARIES[0],
        epochs=epochs,
        seed=seed,
    )


def trained_on(checkpoint: str, corpus: str) -> bool:
    """Whether a checkpoint was pre-trained on this image set, or on its stand-in (:data:`STAND_INS`), by its id."""
    made = origin(checkpoint)
    return made is not None and made.corpus in (corpus, STAND_INS.get(corpus))
