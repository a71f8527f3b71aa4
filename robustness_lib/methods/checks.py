"""Arrays are checked where they enter: lists, NumPy arrays and tensors of any device and precision.

In messages ``what`` names the array. A ``shape`` is that of another array or text, such as ``"[N, K]"``, where no axis
has length 0 and axes of one name have one length; empty for any shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from robustness_lib.data import ImageDataset

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
Shape = str | tuple[int, ...]


def as_array(values: Any, what: str, shape: Shape = "") -> npt.NDArray[Any]:
    """A list, array or tensor of numbers as a NumPy array, bfloat16 as float32."""
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if "bfloat16" in str(values.dtype) else values
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{what} cannot be read ({error}); give numbers, in lists of equal length") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{what} holds {array.dtype} values; give numbers")
    if shape != "":
        expected = shape if isinstance(shape, str) else str(list(shape))
        axes = [axis for axis in expected[1:-1].split(", ") if axis]
        lengths = {axis: int(axis) for axis in axes if axis.isdigit()}
        if array.ndim != len(axes) or any(
            length != lengths.setdefault(axis, max(length, 1)) for axis, length in zip(axes, array.shape, strict=True)
        ):
            raise UserError(f"the shape of {what} is {list(array.shape)}; give {expected}, at least 1 value")
    return array


def check_numbers(values: Any, what: str, shape: Shape = "", *, unit: str = "", finite: bool = True) -> Floats:
    """Numbers as float64: in [0, 1] if ``unit`` says of what they are fractions, and not infinite if ``finite``."""
    array = as_array(values, what, shape).astype(np.float64)
    if unit and not ((array >= 0) & (array <= 1)).all():
        raise UserError(f"{what} holds a value outside [0, 1]; give {unit}")
    if not (np.isfinite(array) if finite else ~np.isnan(array)).all():
        raise UserError(
            f"{what} holds a value that is not a{' finite' * finite} number; the network diverged, or the file is "
            "damaged"
        )
    return array


def check_distributions(values: Any, what: str, shape: Shape) -> Floats:
    """Rows of probabilities as float64, which may sum to 1 within 1e-4, as float32 makes them."""
    array = check_numbers(values, what, shape, unit="probabilities")
    sums = array.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-4):
        row = int(np.abs(sums - 1).argmax())
        raise UserError(
            f"row {row} of {what} sums to {sums[row]:.4g} instead of 1; give a distribution a row (transpose what has "
            "one a column)"
        )
    return array


def check_labels(values: Any, num_classes: int, what: str = "labels", count: int | None = None) -> Labels:
    """Whole numbers [N] in 0 ... ``num_classes`` - 1, of any integer type, as int64; ``count`` is N, if known."""
    array = as_array(values, what, "[N]" if count is None else (count,))
    if array.size and (array.dtype.kind not in "iu" or not 0 <= array.min() <= array.max() < num_classes):
        raise UserError(f"{what} must be whole numbers from 0 to {num_classes - 1}; check the classes of the data")
    return array.astype(np.int64)


def check_logits(logits: Tensor) -> Tensor:
    """``logits`` [N, ..., K], if all are finite."""
    if bad := int((~logits.isfinite()).flatten(1).any(1).sum()):
        raise UserError(
            f"the network's answers to {bad} of {len(logits)} images are not finite numbers; its training diverged or "
            "its weights are damaged: train it again at a lower learning rate, or replace the file"
        )
    return logits


def check_correctness(values: Any, what: str, shape: Shape) -> Bools:
    """Whether each prediction was right (1 or True, else 0 or False), as bool."""
    array = as_array(values, what, shape)
    if not np.isin(array, (0, 1)).all():
        raise UserError(f"{what} holds values other than 0 and 1; give whether each answer was right")
    return array.astype(np.bool_)


def check_whole(value: float, what: str, low: int, advice: str) -> None:
    """Refuse a setting that is not a whole number of at least ``low``; ``advice`` ends the sentence."""
    if not value >= low or value != np.floor(value) or value == np.inf:
        raise UserError(f"{what} is {value} but must be at least {low} and a whole number; {advice}")


def check_same_size(
    images: ImageDataset, target: ImageDataset, advice: str = "give a set of that size, or leave it out"
) -> None:
    """Refuse images of another size than the target's."""
    (height, width), (rows, columns) = images.images.shape[2:], target.images.shape[2:]
    if (height, width) != (rows, columns):
        raise UserError(
            f"{images.name} has images of {height}x{width} pixels but {target.name} of {rows}x{columns}; {advice}"
        )
