"""Reads ``.npy`` files without trusting them: bounded by their size, running nothing that they ask for.

``np.load(allow_pickle=True)`` runs any program that somebody put into the file. Object arrays (the features and
annotations of W-TALC) need a pickle, so they are read here by an unpickler that can make NumPy arrays, dtypes
and scalars, text, numbers, lists, tuples and dicts, and has nothing else to call.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NoReturn

import numpy as np

from wtal.errors import WtalError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # numpy's own bound
_KINDS = "biufcSUO"


def load_npy(path: str | os.PathLike[str], mmap: bool = False) -> np.ndarray:
    """The array in one ``.npy`` file, of any shape: numbers, text, or objects (arrays, lists, text).

    Args:
        path: the file.
        mmap: map numbers and text read-only instead of reading them. Objects are always read.

    Returns:
        The array. Text inside objects that Python 2 wrote comes as ``bytes``.

    Raises:
        WtalError: no such file, not a ``.npy`` file, truncated, longer than its header says, of a structured
            dtype, or a pickle with anything but NumPy arrays in it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            shape, fortran, dtype = _read_header(file, size, path)
            if dtype.hasobject:
                return _read_objects(_Bounded(file, size), shape, path)
            expected = math.prod(shape) * dtype.itemsize
            found = size - file.tell()
            if found != expected:
                fault = "is truncated" if found < expected else "is longer than its header says"
                raise WtalError(
                    f"{path}: {fault}: {found} bytes of data, expected {expected} for {dtype} {list(shape)}"
                )
            order: Literal["C", "F"] = "F" if fortran else "C"
            if expected == 0:
                return np.empty(shape, dtype, order=order)
            if mmap:
                return np.memmap(file, dtype, "r", file.tell(), shape, order)
            return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected a .npy file") from None
    except OSError as error:
        raise WtalError(f"{path}: cannot be read ({error.strerror or error}), expected a .npy file") from None


def _read_header(file: BinaryIO, size: int, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    start = file.read(12)
    if start[:6] != _MAGIC:
        raise WtalError(f"{path}: not a .npy file: begins with {start[:6]!r}, expected {_MAGIC!r}")
    version = (start[6], start[7]) if len(start) == 12 else None
    if version not in ((1, 0), (2, 0)):
        raise WtalError(
            f"{path}: .npy format version {version}, expected 1.0 or 2.0 in a file of 12 bytes or more"
        )
    length = struct.unpack("<H", start[8:10])[0] if version == (1, 0) else struct.unpack("<I", start[8:12])[0]
    if length > min(size, _LONGEST_HEADER):
        raise WtalError(f"{path}: damaged: a header of {length} bytes in a file of {size}")
    file.seek(8)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of Python 2's "(412L,)"
            shape, fortran, dtype = read(file)
    except Exception as error:  # a damaged header surfaces as almost anything
        raise WtalError(f"{path}: damaged header ({_line(error)}), expected that of a .npy file") from None
    if dtype.kind not in _KINDS or dtype.subdtype is not None:
        raise WtalError(f"{path}: holds {_line(dtype)}, expected an array of numbers, text or objects")
    if any(isinstance(extent, bool) or extent < 0 for extent in shape) or math.prod(shape) > 2**62:
        raise WtalError(f"{path}: damaged header: shape {list(shape)}")
    return shape, fortran, dtype


def _read_objects(file: _Bounded, shape: tuple[int, ...], path: Path) -> np.ndarray:
    try:
        array = _ArrayUnpickler(file).load()
    except _Refused as error:
        raise WtalError(f"{path}: refused: {_line(error)}; expected NumPy arrays and nothing else") from None
    except Exception as error:  # a damaged pickle surfaces as almost anything
        kind = type(error).__name__
        raise WtalError(
            f"{path}: damaged or truncated pickle ({kind}: {_line(error)}), expected objects"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype != object or array.size != math.prod(shape):
        raise WtalError(
            f"{path}: its pickle holds {_line(type(array))}, expected an object array of {list(shape)}"
        )
    if file.left:
        raise WtalError(f"{path}: is longer than its pickle by {file.left} bytes")
    return array.reshape(shape)


def _line(thing: object) -> str:
    """Text of anything on one short line."""
    text = " ".join(str(thing).split())
    return text if len(text) <= 160 else text[:157] + "..."


class _Refused(Exception):
    """The pickle asks for something that is no NumPy array."""


class _Bounded:
    """A file that refuses to read past its end before it allocates the memory."""

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
        """Up to and with the next line end."""
        return self._file.readline()


# What a pickle may call. Wrappers, so that it gets hold of no class and cannot allocate at will.


class _ArrayType:
    """Stands for ``numpy.ndarray`` in a pickle; cannot be called."""


_ARRAY_TYPE = _ArrayType()


def _reconstruct(subtype: object, shape: object, typecode: object) -> np.ndarray:
    if subtype is not _ARRAY_TYPE or shape != (0,):
        raise _Refused(f"an array of type {subtype!r} and shape {shape!r}")
    return np.empty(0, dtype=np.uint8)


def _dtype(spec: object, align: object = False, copy: object = True) -> np.dtype:
    text = spec.decode("latin1") if isinstance(spec, bytes) else spec
    if not isinstance(text, str) or not re.fullmatch(rf"[{_KINDS}][0-9]{{0,9}}", text):
        raise _Refused(f"dtype {spec!r}")
    # A copy of its own: setting the state of the shared one would change it for everybody.
    return np.dtype(text, align=False, copy=True)


def _scalar(dtype: object, data: object = None) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
        raise _Refused(f"a scalar of {dtype!r}")
    if len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for one {dtype}")
    return np.frombuffer(data, dtype)[0] if data else dtype.type()


def _encode(text: object, encoding: object = None) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise _Refused(f"text in encoding {encoding!r}")
    return text.encode("latin1")  # how Python 3 writes bytes into a pickle of protocol 2


_CALLABLE: dict[tuple[str, str], Any] = {("_codecs", "encode"): _encode}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CALLABLE[_module, "_reconstruct"] = _reconstruct
    _CALLABLE[_module, "scalar"] = _scalar
_CALLABLE["numpy", "ndarray"] = _ARRAY_TYPE
_CALLABLE["numpy", "dtype"] = _dtype


# The unpickler in Python, not the one in C: its memo is a dict, so that a flipped byte in a memo index does
# not allocate gigabytes, it reads through _Bounded alone, and BUILD can be checked.
class _ArrayUnpickler(pickle._Unpickler):
    """Makes NumPy arrays and the plain values inside them; :class:`_Refused` for anything else."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: _Bounded) -> None:
        # "bytes": Python 2 wrote array data as text.
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """A wrapper from the list above."""
        try:
            return _CALLABLE[module, name]
        except KeyError:
            raise _Refused(f"its pickle asks for {module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        """Never."""
        raise _Refused("its pickle asks for an object outside of the file")

    def _load_build(self) -> None:
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        target = stack[-1]
        if isinstance(target, np.dtype):
            _check_dtype_state(target, state)
        elif isinstance(target, np.ndarray):
            _check_array_state(target, state)
        else:
            raise _Refused(f"its pickle sets the state of a {type(target).__name__}")
        target.__setstate__(state)

    dispatch[pickle.BUILD[0]] = _load_build


def _check_dtype_state(dtype: np.dtype, state: Any) -> None:
    """(version, byte order, subdtype, names, fields, size or -1, alignment or -1, flags)."""
    plain = isinstance(state, tuple) and 7 <= len(state) <= 8 and state[2:5] == (None, None, None)
    if not plain or state[1] not in ("<", ">", "|", "=", b"<", b">", b"|", b"="):
        raise _Refused(f"dtype state {state!r}")
    if state[5] not in (-1, dtype.itemsize):
        raise ValueError(f"{state[5]!r} bytes for one {dtype}")


def _check_array_state(array: np.ndarray, state: Any) -> None:
    """(version, shape, dtype, fortran, data); numpy would allocate the shape before it looks at a list."""
    if not isinstance(state, tuple) or len(state) != 5 or array.shape != (0,):
        raise _Refused("an array's state of an unknown form")
    _, shape, dtype, _, data = state
    if not isinstance(shape, tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"shape {shape!r}")
    if not isinstance(dtype, np.dtype):
        raise _Refused(f"an array of {type(dtype).__name__}")
    if not isinstance(data, list if dtype.hasobject else bytes):
        raise ValueError(f"data of type {type(data).__name__} for {dtype}")
    if len(data) != math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize):
        raise ValueError(
            f"{len(data)} {'objects' if dtype.hasobject else 'bytes'} for {dtype} of shape {shape}"
        )
