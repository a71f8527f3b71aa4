"""Reading pickled dictionaries of arrays with a part of Python's unpickler, whose whole a crafted file can misuse.

Only lists, dictionaries with texts as keys, numbers, texts and NumPy arrays of plain numbers, made by stand-ins for
NumPy's functions, are known. Nothing that a file names is imported.
"""

import pickle
import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import IO, Any, ClassVar

import numpy as np

_INSTRUCTIONS = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT
    BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE
"""


class _Dtype:
    """A type of plain numbers, from its code such as ``u1``; others, such as objects, make pointers of bytes."""

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
    "numpy.ndarray": None,
    "numpy.dtype": _Dtype,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),
}
_MAKERS |= {
    f"{core}.{name}": make
    for core in ("numpy.core", "numpy._core")
    for name, make in (
        ("multiarray._reconstruct", _Array),
        ("multiarray.scalar", lambda dtype, data: _array(data, dtype, ())[()]),
        ("numeric._frombuffer", _array),
    )
}


class _Reader(pickle._Unpickler):
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]]

    def find_class(self, module: str, name: str) -> Any:
        if (wanted := f"{module}.{name}") not in _MAKERS:
            raise UnpicklingError(f"it wants to use {wanted!r}, and a batch of images has no need to")
        return _MAKERS[wanted]

    def set_items(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(self.stack[-1]) is not dict or not isinstance(key, (str, bytes)):  # whose hash may crash
                raise UnpicklingError("it has a dictionary with keys that are not texts")
            self.stack[-1][key] = value

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Dtype, _Array)):
            raise UnpicklingError("it changes what is no part of an array")
        self.stack[-1].build(state)


_CODES = [getattr(pickle, name)[0] for name in _INSTRUCTIONS.split()]
_Reader.dispatch = {code: pickle._Unpickler.dispatch[code] for code in _CODES} | {
    pickle.SETITEM[0]: lambda reader: reader.set_items([reader.stack.pop(-2), reader.stack.pop()]),
    pickle.SETITEMS[0]: lambda reader: reader.set_items(reader.pop_mark()),
    pickle.BUILD[0]: _Reader.build,
    pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],  # which allocates nothing in advance
}


def load(stream: IO[bytes]) -> Any:
    """A pickle of protocol 2 or later, with arrays as values of a dictionary; Python 2's text is read as Latin-1.

    An ``UnpicklingError`` says that it holds, or asks for, anything else; a damaged one may raise any exception.
    """
    try:
        content = _Reader(stream, encoding="latin1").load()
    except KeyError as error:
        raise UnpicklingError(f"it holds the instruction {error}, which no batch of images has") from error
    if isinstance(content, dict):
        content = {key: value.values if isinstance(value, _Array) else value for key, value in content.items()}
    return content
