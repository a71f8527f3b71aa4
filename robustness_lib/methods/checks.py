"""Arrays are checked where they enter, in one way: lists, NumPy arrays and tensors of any device and precision.

Each function raises :class:`~robustness_lib.errors.UserError`, in whose message ``what`` names the array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def as_array(values: Any, what: str) -> npt.NDArray[Any]:
    """A list, array or tensor of numbers as a NumPy array, bfloat16 as float32."""
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if "bfloat16" in str(values.dtype) else values
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{what} cannot be read as an array ({error}); give numbers in lists of equal length"
        ) from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{what} holds {array.dtype} values; give numbers")
    return array


def check_numbers(values: Any, what: str, shape: str = "", *, unit: str = "") -> Floats:
    """Finite numbers as float64.

    Args:
        values: A list, array or tensor.
        what: What they are.
        shape: The axes that they must have, none of length 0, such as ``"[N, K]"``; empty for any.
        unit: What fractions are given as, which makes the range [0, 1]; empty for any range.
    """
    array = as_array(values, what).astype(np.float64)
    if shape and (array.ndim != shape.count(",") + 1 or not array.size):
        raise UserError(f"{what} has shape {array.shape}; give {shape}, with at least 1 value")
    if unit and not ((array >= 0) & (array <= 1)).all():
        raise UserError(f"{what} holds a value outside [0, 1]; give {unit}")
    if not np.isfinite(array).all():
        raise UserError(
            f"{what} holds a value that is not a finite number; the network diverged, or the file is damaged"
        )
    return array


def check_labels(values: Any, num_classes: int, what: str = "labels", count: int | None = None) -> Labels:
    """Whole numbers [N] in 0 ... ``num_classes`` - 1, of any integer type, as int64; ``count`` is N, if known."""
    array = as_array(values, what)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise UserError(f"{what} have shape {array.shape}; give [{'N' if count is None else count}], one an example")
    if array.size and (array.dtype.kind not in "iu" or not 0 <= array.min() <= array.max() < num_classes):
        raise UserError(f"{what} must be whole numbers from 0 to {num_classes - 1}; check the classes of the data")
    return array.astype(np.int64)


def label_tensor(labels: Tensor, num_classes: int, count: int, what: str = "labels") -> Tensor:
    """Labels in a tensor as int64 [``count``], on their device.

    On a GPU their range is not checked, since that would halt the host: use operations there that fail outside.
    """
    if labels.device.type == "cpu":
        check_labels(labels, num_classes, what, count)
    elif labels.shape != (count,) or labels.is_floating_point():
        raise UserError(f"{what} are {labels.dtype} of shape {tuple(labels.shape)}; give whole numbers [{count}]")
    return labels.long()


def check_logits(logits: Tensor) -> Tensor:
    """``logits`` [N, ..., K], if all are finite: the largest of values that are not is no prediction."""
    bad = int((~logits.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise UserError(
            f"the network's answers to {bad} of {len(logits)} images are not finite numbers; its training diverged or "
            "its weights are damaged: train it again at a lower learning rate, or replace the file"
        )
    return logits


def check_correctness(values: Any, what: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.bool_]:
    """Whether each prediction was right (1 or True, else 0 or False), as bool; ``shape``, if known."""
    array = as_array(values, what)
    if shape is not None and array.shape != shape:
        raise UserError(f"{what} has shape {array.shape} but must have {shape}; give one answer an example")
    if not np.isin(array, (0, 1)).all():
        raise UserError(f"{what} holds values other than 0 and 1; give whether each answer was right")
    return array.astype(np.bool_)


def check_whole(value: float, what: str, low: int, advice: str) -> None:
    """Refuse a setting that is not a whole number of at least ``low``; ``advice`` ends the sentence."""
    if not value >= low or value != np.floor(value) or value == np.inf:
        raise UserError(f"{what} is {value} but must be at least {low} and a whole number; {advice}")
