"""Checks and converts single values from files of users. A value that is not valid raises a ValueError with the reason.

The readers catch the ValueError and raise a :class:`WtalError` that names the file and the video.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import reprlib
import tomllib
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from wtal.errors import WtalError


class _Short(reprlib.Repr):
    """repr() of the beginning of a value. A nested value with shared parts could have a text of exponential length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = 20
        self.maxstring = self.maxother = self.maxlong = 160

    def repr_ndarray(self, array: np.ndarray, level: int) -> str:
        """Type and shape only: NumPy would call repr() of every object."""
        return f"<{array.dtype} array of shape {list(array.shape)[:8]}>"

    def repr_bytes(self, data: bytes, level: int) -> str:
        """The beginning only, to avoid a copy of all bytes."""
        return repr(data[: self.maxstring])

    def repr_int(self, number: int, level: int) -> str:
        """The number of bits for large numbers, because Python refuses to print thousands of digits."""
        bits = number.bit_length()
        return repr(number) if bits <= 2000 else f"<a number of {bits} bits>"


_SHORT = _Short()


def shown(value: object) -> str:
    """A short repr of any value on one line, for error messages; it takes bounded time."""
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def meant(name: object, known: Collection[str]) -> str:
    """An unknown name for an error message, with the most similar known name.

    Names are compared without case, and in one form of the several that Unicode has for accents.
    """

    def plain(text: str) -> str:
        return unicodedata.normalize("NFKC", text).casefold().strip()

    alike = {plain(one): one for one in known}
    close = difflib.get_close_matches(plain(str(name)), alike, 1, 0.6)
    if not close:
        return shown(name)
    proposal = alike[close[0]]
    quoted = ascii if unicodedata.normalize("NFC", str(name)) == unicodedata.normalize("NFC", proposal) else repr
    return f"{quoted(name) if quoted is ascii else shown(name)} (did you mean {quoted(proposal)}?)"


def load_json(path: str | os.PathLike[str], expected: str) -> Any:
    """The content of a JSON file; ``expected`` describes the expected content in the error message."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors write a byte-order mark
            return json.load(file)
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected {expected}") from None
    except OSError as error:
        raise WtalError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    except json.JSONDecodeError as error:
        fault = f"damaged or truncated JSON ({error.msg}, line {error.lineno}, column {error.colno})"
        raise WtalError(f"{path}: {fault}, expected {expected}") from None
    except (UnicodeDecodeError, RecursionError):
        raise WtalError(f"{path}: not JSON text, expected {expected}") from None
    except ValueError as error:  # a number of thousands of digits
        raise WtalError(f"{path}: not JSON that can be read ({error}), expected {expected}") from None


def parse_toml(text: str, origin: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a TOML text; ``origin`` is the file that the error message names."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise WtalError(f"{origin}: not TOML: nested too deeply") from None
    except ValueError as error:  # an error of tomllib, or a number of thousands of digits
        raise WtalError(f"{origin}: not TOML: {error}") from None


def take(record: object, key: str, expected: str) -> Any:
    """``record[key]``; a ValueError if the record is not a mapping or lacks the key."""
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object with {key!r}, got {shown(record)}")
    if key not in record:
        raise ValueError(f"no {key!r}, expected {expected}")
    return record[key]


def number(value: object, what: str) -> float:
    """A finite number. Text such as ``"18.6"`` is accepted, because BaSNet's files have it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, bool):
        try:
            parsed = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            parsed = math.nan
        if math.isfinite(parsed):
            return parsed
    raise ValueError(f"{what} is {shown(value)}, expected a finite number")


def segment(value: object) -> tuple[float, float]:
    """``[start, end]`` in seconds. start = end is accepted, because ActivityNet has a few instances of length zero."""
    if isinstance(value, str | bytes | Mapping):
        pair = []
    else:
        try:
            pair = list(value)  # type: ignore[call-overload]
        except TypeError:
            pair = []
    if len(pair) != 2:
        raise ValueError(f"segment is {shown(value)}, expected [start, end] in seconds")
    start, end = number(pair[0], "segment start"), number(pair[1], "segment end")
    if end < start:
        raise ValueError(f"segment [{start:g}, {end:g}] ends before it starts, expected start <= end")
    return start, end


def name(value: object, what: str) -> str:
    """A name: text that is not empty, without control characters and unpaired surrogates. Bytes are decoded."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value and min(value) >= " " and not any("\ud800" <= c <= "\udfff" for c in value):
        return str(value)
    raise ValueError(f"{what} is {shown(value)}, expected a name")
