"""A restricted unpickler: it only makes NumPy arrays, dtypes and scalars, and the plain values inside them."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np

from wtal.platform.fields import shown

PLAIN_KINDS = "biufcSUO"
"""The dtype kinds of numbers, text and objects."""


class Refused(Exception):
    """The pickle contains something that is not a NumPy array."""


class Bounded:
    """A file that checks the requested size against its end before it allocates memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return self._size - self._file.tell()

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise EOFError(f"{count} bytes wanted, {self.left} left")
        return self._file.read(count)

    def readline(self) -> bytes:
        """The bytes up to and including the next line end."""
        return self._file.readline()


# The functions that a pickle may call. They are wrappers, so that the pickle cannot reach a class or allocate memory
# without a check.


class _ArrayType:
    """Stands for ``numpy.ndarray`` in a pickle; cannot be called."""


_ARRAY_TYPE = _ArrayType()


def _reconstruct(subtype: object, shape: object, typecode: object) -> np.ndarray:
    if subtype is not _ARRAY_TYPE or shape != (0,):
        raise Refused("an array of another type than numpy.ndarray, or of another shape than (0,)")
    return np.empty(0, dtype=np.uint8)


def _dtype(spec: object, align: object = False, copy: object = True) -> np.dtype:
    text = spec.decode("latin1") if isinstance(spec, bytes) else spec
    if not isinstance(text, str) or not re.fullmatch(rf"[{PLAIN_KINDS}][0-9]{{0,9}}", text):
        raise Refused(f"dtype {shown(spec)}")
    # A copy, because setting the state of NumPy's shared dtype would change it for the whole process.
    return np.dtype(text, align=False, copy=True)


def _scalar(dtype: object, data: object = None) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
        raise Refused(f"a scalar of {shown(dtype)}")
    if len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for one {dtype}")
    return np.frombuffer(data, dtype)[0] if data else dtype.type()


def _encode(text: object, encoding: object = None) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise Refused(f"text in encoding {shown(encoding)}")
    return text.encode("latin1")  # Python 3 writes bytes this way in protocol 2


def _empty_bytes() -> bytes:
    return b""  # Python 3 writes empty bytes this way in protocol 2


_CALLABLE: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _dtype,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CALLABLE[_module, "_reconstruct"] = _reconstruct
    _CALLABLE[_module, "scalar"] = _scalar


# This is the unpickler in Python, not the one in C. Its memo is a dict, so a wrong byte in a memo index does not
# allocate gigabytes. It reads only through Bounded, and BUILD can be checked.
class ArrayUnpickler(pickle._Unpickler):
    """Makes NumPy arrays and the plain values inside them; :class:`Refused` for anything else.

    Args:
        file: the file, positioned at the beginning of the pickle.
        store: called with each array of numbers as soon as it is read, or None. The array is then emptied, and
            :meth:`stored` returns the result of ``store``.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Bounded, store: Callable[[np.ndarray], Any] | None = None) -> None:
        # "bytes": Python 2 wrote array data as text.
        super().__init__(file, encoding="bytes")
        self._store = store
        self._stored: dict[int, tuple[np.ndarray, Any]] = {}
        if store is not None:
            self.memo: dict[int, Any] = _SmallMemo()

    def stored(self, entry: object) -> Any:
        """The result of ``store`` for an array of numbers in the pickle; any other entry unchanged."""
        return self._stored[id(entry)][1] if id(entry) in self._stored else entry

    def find_class(self, module: str, name: str) -> Any:
        """A wrapper from ``_CALLABLE``."""
        try:
            return _CALLABLE[module, name]
        except KeyError:
            raise Refused(f"its pickle asks for {module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        """Always refused."""
        raise Refused("its pickle asks for an object outside of the file")

    def _load_build(self) -> None:
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        target = stack[-1]
        if isinstance(target, np.dtype):
            target.__setstate__(_dtype_state(target, state))  # type: ignore[attr-defined]
        elif isinstance(target, np.ndarray):
            target.__setstate__(_array_state(target, state))
            check_text(target)
            if self._store is not None and not target.dtype.hasobject:
                # The array is emptied but kept: the outer array refers to it, and its id must stay unique.
                self._stored[id(target)] = (target, self._store(target))
                target.__setstate__((1, (0,), target.dtype, False, b""))  # type: ignore[arg-type]
        else:
            raise Refused(f"its pickle sets the state of a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = _load_build

    def _load_buffer(self) -> NoReturn:
        """Refused: numpy.save writes no buffer, and the unpickler would allocate any length before reading the data."""
        raise Refused("its pickle holds a buffer of protocol 5")

    for _opcode in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER):
        dispatch[_opcode[0]] = _load_buffer

    # Keys are hashed. For deeply nested tuples that share their parts, hashing takes exponential time.

    def _load_dict(self) -> None:
        entries: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        self.append(_entries(entries))  # type: ignore[attr-defined]

    def _load_setitems(self) -> None:
        entries: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        _into(self.stack[-1], entries)  # type: ignore[attr-defined]

    def _load_setitem(self) -> None:
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        value, key = stack.pop(), stack.pop()
        _into(stack[-1], [key, value])

    def _load_set(self) -> NoReturn:
        raise Refused("its pickle holds a set")

    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.SETITEM[0]] = _load_setitem
    for _opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        dispatch[_opcode[0]] = _load_set


def _entries(entries: list[Any]) -> dict[Any, Any]:
    """A dict from alternating keys and values; keys must be plain values."""
    keys = entries[::2]
    if any(key is not None and not isinstance(key, str | bytes | int | float | np.generic) for key in keys):
        raise Refused("its pickle has a dict whose keys are neither text nor numbers")
    return dict(zip(keys, entries[1::2], strict=True))


def _into(target: object, entries: list[Any]) -> None:
    if not isinstance(target, dict):
        raise Refused(f"its pickle sets items of a {type(target).__name__}")
    target.update(_entries(entries))


class _SmallMemo(dict[int, Any]):
    """A memo without the data of arrays: otherwise the data would stay in memory until the end without any use."""

    def __setitem__(self, key: int, value: Any) -> None:
        parts = value if isinstance(value, tuple) else (value,)
        big = any(isinstance(part, bytes | str) and len(part) > 4096 for part in parts)
        super().__setitem__(key, None if big else value)


# States are built again from checked values, because NumPy does not check them. For example, with wrong dtype flags
# NumPy reads the objects of an array from arbitrary memory.


def _dtype_state(dtype: np.dtype, state: Any) -> tuple[Any, ...]:
    """(version, byte order, subdtype, names, fields, size or -1, alignment or -1, flags)."""
    if not isinstance(state, tuple) or not 7 <= len(state) <= 8 or state[2:5] != (None, None, None):
        raise Refused(f"dtype state {shown(state)}")
    order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
    if order not in ("<", ">", "|", "=") or state[5] not in (-1, dtype.itemsize):
        raise ValueError(f"dtype state {shown(state)} for {dtype}")
    own: tuple[Any, ...] = dtype.__reduce__()[2]  # type: ignore[assignment]
    return own if own[1] == "|" else (own[0], order, *own[2:])


def _array_state(array: np.ndarray, state: Any) -> Any:
    """(version, shape, dtype, fortran, data); NumPy would allocate the shape before it checks a list."""
    if not isinstance(state, tuple) or len(state) != 5 or array.shape != (0,):
        raise Refused("an array's state of an unknown form")
    _, shape, dtype, fortran, data = state
    if not isinstance(shape, tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"shape {shown(shape)}")
    if not isinstance(dtype, np.dtype):
        raise Refused(f"an array of {type(dtype).__name__}")
    if not isinstance(data, list if dtype.hasobject else bytes):
        raise ValueError(f"data of type {type(data).__name__} for {dtype}")
    if len(data) != math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize):
        unit = "objects" if dtype.hasobject else "bytes"
        raise ValueError(f"{len(data)} {unit} for {dtype} of shape {shape}")
    return 1, shape, dtype, bool(fortran), data


def check_text(array: np.ndarray) -> None:
    """Reject text with invalid characters, which NumPy detects only when the text is used."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder.replace("|", "=") + "u4")
        if codes.max() > 0x10FFFF:
            raise ValueError(f"character {codes.max():#x}, expected Unicode text")
