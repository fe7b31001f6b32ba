"""Reads ``.npy`` files safely: memory is bounded by the file size, and no code from the file is run.

``np.load(allow_pickle=True)`` runs any code that a pickle contains. Object arrays (W-TALC features and annotations)
are pickles, so they are read here by a restricted unpickler. It can only make NumPy arrays, dtypes and scalars,
text, numbers, lists, tuples and dicts.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from wtal.data.unpickle import PLAIN_KINDS, ArrayUnpickler, Bounded, Refused, check_text
from wtal.errors import WtalError, reason
from wtal.platform.fields import shown

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # NumPy has the same limit
_DIMENSIONS = 64 if int(np.__version__.split(".")[0]) >= 2 else 32  # NumPy has the same limit
_LARGEST = 2**62  # bytes
_LARGEST_EMPTY = 10**6  # product of the non-zero extents: nothing else limits the rows of an array without bytes


def load_npy(path: str | os.PathLike[str], mmap: bool = False) -> np.ndarray:
    """The array in one ``.npy`` file, of any shape: numbers, text, or objects (arrays, lists, text).

    Args:
        path: the file.
        mmap: map numbers and text read-only instead of reading them. Objects are always read.

    Returns:
        The array. Text inside objects is ``bytes`` if Python 2 wrote the file.

    Raises:
        WtalError: there is no such file, it is not a ``.npy`` file, is truncated, is longer than its header says, has
            a structured dtype, or is a pickle that contains anything but NumPy arrays.
    """
    path = Path(path)
    try:
        return _load(path, mmap)
    except OSError as error:
        raise WtalError(f"{path}: cannot be read ({error.strerror or error}), expected a .npy file") from None


class Rows:
    """The rows of a ``.npy`` file of numbers, read on request; :func:`open_rows` returns it.

    The file is not memory-mapped: if a mapped file becomes shorter, SIGBUS ends the process without a message.

    Attributes:
        shape: the shape of the whole array.
        dtype: the dtype in the file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype, offset: int) -> None:
        self.shape = shape
        self.dtype = dtype
        self._path, self._fortran, self._offset = path, fortran, offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows from ``start`` to ``stop``, without a step."""
        start, stop, _ = slice(rows.start, rows.stop).indices(len(self))
        shape = (max(0, stop - start), *self.shape[1:])
        if self._fortran:
            return self._read(self.shape[::-1], 0).T[start : start + shape[0]]
        return self._read(shape, start * math.prod(self.shape[1:]) * self.dtype.itemsize)

    def _read(self, shape: tuple[int, ...], first: int) -> np.ndarray:
        array = np.empty(shape, self.dtype)
        if not array.nbytes:
            return array
        left = memoryview(array.view(np.uint8).reshape(-1).data)
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(self._offset + first)
                while left:
                    count = file.readinto(left)
                    if not count:
                        lost = f"{len(left)} bytes of rows that were there when it was opened"
                        raise WtalError(f"{self._path}: has become shorter: {lost}; files must not change while in use")
                    left = left[count:]
        except OSError as error:
            raise WtalError(f"{self._path}: cannot be read ({error.strerror or error}), expected a .npy file") from None
        return array


def open_rows(path: str | os.PathLike[str]) -> Rows:
    """Open the array in a ``.npy`` file and read only its header; raises like :func:`load_npy`.

    For object arrays only shape and dtype are available.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            shape, fortran, dtype = _read_header(file, size, path)
            if not dtype.hasobject:
                _check_size(path, size - file.tell(), shape, dtype)
            return Rows(path, shape, fortran, dtype, file.tell())
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected a .npy file") from None
    except OSError as error:
        raise WtalError(f"{path}: cannot be read ({error.strerror or error}), expected a .npy file") from None


def _check_size(path: Path, size: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if size != expected:
        fault = "is truncated" if size < expected else "is longer than its header says"
        raise WtalError(f"{path}: {fault}: {size} bytes of data, expected {expected} for {dtype} {list(shape)}")


def stream_npy(path: str | os.PathLike[str], store: Callable[[np.ndarray], Any]) -> list[Any]:
    """Read an object array entry by entry, so that only one entry is in memory at a time.

    Args:
        path: a ``.npy`` file: an object array ``[N]`` of arrays, or an array ``[N, ...]`` of numbers.
        store: called with each array as soon as it is read. Its result replaces the array.

    Returns:
        The ``N`` results of ``store``, in the order of the array; an entry that is not an array is returned unchanged.

    Raises:
        WtalError: as for :func:`load_npy`.
        OSError: raised by ``store``.
    """
    array = _load(Path(path), True, store)
    if array.ndim == 0:
        raise WtalError(f"{path}: a single value, expected an array with an entry a video")
    return array.tolist() if array.dtype == object else [store(entry) for entry in array]


def _load(path: Path, mmap: bool, store: Callable[[np.ndarray], Any] | None = None) -> np.ndarray:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected a .npy file") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        shape, fortran, dtype = _read_header(file, size, path)
        if dtype.hasobject:
            return _read_objects(Bounded(file, size), shape, path, store)
        _check_size(path, size - file.tell(), shape, dtype)
        order: Literal["C", "F"] = "F" if fortran else "C"
        if 0 in shape or not dtype.itemsize:
            return np.empty(shape, dtype, order=order)
        if mmap:
            return np.memmap(file, dtype, "r", file.tell(), shape, order)
        array = np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)
    try:
        check_text(array)
    except ValueError as error:
        raise WtalError(f"{path}: damaged: {error}") from None
    return array


def _read_header(file: BinaryIO, size: int, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    start = file.read(12)
    if start[:6] != _MAGIC:
        raise WtalError(f"{path}: not a .npy file: begins with {start[:6]!r}, expected {_MAGIC!r}")
    version = (start[6], start[7]) if len(start) == 12 else None
    if version not in ((1, 0), (2, 0)):
        raise WtalError(f"{path}: .npy format version {version}, expected 1.0 or 2.0 in a file of 12 bytes or more")
    length = struct.unpack("<H", start[8:10])[0] if version == (1, 0) else struct.unpack("<I", start[8:12])[0]
    if length > min(size, _LONGEST_HEADER):
        raise WtalError(f"{path}: damaged: a header of {length} bytes in a file of {size}")
    file.seek(8)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of Python 2's "(412L,)"
            shape, fortran, dtype = read(file)
    except Exception as error:  # a damaged header can raise almost any error
        raise WtalError(f"{path}: damaged header ({reason(error)}), expected that of a .npy file") from None
    if dtype.kind not in PLAIN_KINDS or dtype.subdtype is not None:
        raise WtalError(f"{path}: holds {reason(dtype)}, expected an array of numbers, text or objects")
    cells = math.prod(extent for extent in shape if extent)
    possible = cells * dtype.itemsize <= _LARGEST if dtype.itemsize and all(shape) else cells <= _LARGEST_EMPTY
    if any(isinstance(extent, bool) or extent < 0 for extent in shape) or not possible or len(shape) > _DIMENSIONS:
        raise WtalError(f"{path}: damaged header: shape {shown(list(shape))}")
    return shape, fortran, dtype


def _read_objects(
    file: Bounded, shape: tuple[int, ...], path: Path, store: Callable[[np.ndarray], Any] | None
) -> np.ndarray:
    unpickler = ArrayUnpickler(file, store)
    try:
        array = unpickler.load()
    except (OSError, WtalError):
        raise
    except Refused as error:
        raise WtalError(f"{path}: refused: {reason(error)}; expected NumPy arrays and nothing else") from None
    except Exception as error:  # a damaged pickle can raise almost any error
        kind = type(error).__name__
        raise WtalError(f"{path}: damaged or truncated pickle ({kind}: {reason(error)}), expected objects") from None
    if not isinstance(array, np.ndarray) or array.dtype != object or array.size != math.prod(shape):
        raise WtalError(f"{path}: its pickle holds {reason(type(array))}, expected an object array of {list(shape)}")
    if file.left:
        raise WtalError(f"{path}: is longer than its pickle by {file.left} bytes")
    if store is not None:
        entries = array.reshape(-1)
        for position, entry in enumerate(entries):
            entries[position] = unpickler.stored(entry)
        array = entries
    return array.reshape(shape)
