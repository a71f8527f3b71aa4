"""Reading pickled dictionaries of arrays without Python's unpickler, which a crafted file can make run code or crash.

The few instructions that batches of images hold are interpreted here, as lists, dictionaries, numbers, texts and NumPy
arrays of plain numbers; everything else is refused. Nothing that a file names is imported or called.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np

_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXTS = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS = _NUMBERS | _TEXTS | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Dtype:
    """A type of plain numbers, from its code such as ``u1``."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch("[iuf][1248]", code):
            raise UnpicklingError(f"it holds an array of type {code!r}, not of plain numbers")
        self.kind = np.dtype(code)

    def build(self, state: tuple[Any, ...]) -> None:
        if state[0] != 3 or state[1] not in ("<", ">", "|", "=") or state[2:] != (None, None, None, -1, -1, 0):
            raise UnpicklingError("it holds an array whose type is not one of plain numbers")
        self.kind = self.kind.newbyteorder(state[1])


class _Array:
    """An array, empty until it is built."""

    def __init__(self, *how: object) -> None:
        self.values = np.empty(0)

    def build(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, data = state
        self.values = _array(data, dtype, shape, "F" if by_column else "C")


def _array(data: Any, dtype: _Dtype, shape: Any, order: Any = "C") -> np.ndarray:
    content = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(content, dtype.kind).reshape(shape, order=order)


_MAKERS: dict[str, Any] = {
    "numpy ndarray": None,
    "numpy dtype": _Dtype,
    "_codecs encode": lambda text, encoding: text.encode("latin1"),
}
for _core in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_core}.multiarray _reconstruct"] = _Array
    _MAKERS[f"{_core}.multiarray scalar"] = lambda dtype, data: _array(data, dtype, ())[()]
    _MAKERS[f"{_core}.numeric _frombuffer"] = _array


def load(stream: IO[bytes]) -> Any:
    """A pickle of protocol 2 or later, with arrays as values of dictionaries; Python 2's text is read as Latin-1.

    The stream is left behind the pickle.

    Raises:
        UnpicklingError: It holds, or asks for, anything else; a damaged one may raise any other exception too.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def after_mark() -> list[Any]:
        place = marks.pop()
        items = stack[place:]
        del stack[place:]
        return items

    operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(stream)
    for opcode, argument, _ in operations:
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            place = len(stack) - _TUPLES[name]
            stack[place:] = [tuple(stack[place:])]
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(after_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else after_mark()
            _only(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else after_mark()
            for key, value in zip(items[::2], items[1::2], strict=True):
                if not isinstance(key, (str, bytes)):
                    raise UnpicklingError("it has a dictionary with keys that are not texts")
                _only(stack[-1], dict)[key] = value.values if isinstance(value, _Array) else value
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = argument if name == "GLOBAL" else " ".join([stack.pop(-2), stack.pop()])
            if wanted not in _MAKERS:
                raise UnpicklingError(f"it wants to use {wanted!r}, and a batch of images has no need to")
            stack.append(_MAKERS[wanted])
        elif name == "REDUCE":
            arguments = stack.pop()
            maker = stack.pop()
            if not callable(maker):  # as nothing but a maker is
                raise UnpicklingError("it calls what is no part of an array")
            stack.append(maker(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], (_Dtype, _Array)):
                raise UnpicklingError("it changes what is no part of an array")
            stack[-1].build(state)
        elif name == "STOP":
            [content] = stack
            return content
        elif name not in ("PROTO", "FRAME"):
            raise UnpicklingError(f"it holds the instruction {name}, which no batch of images has")
    raise EOFError("it ends early")


def _only(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise UnpicklingError(f"it adds items to a {type(value).__name__}")
    return value
