"""Single values out of files that people wrote: each comes out valid or raises a ValueError that says why.

The readers catch the ValueError where they know the file and the video, and make a :class:`WtalError` of it.
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
    """repr() of the beginning of a value: one whose parts are shared may have 2**60 paths through it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = 20
        self.maxstring = self.maxother = self.maxlong = 160

    def repr_ndarray(self, array: np.ndarray, level: int) -> str:
        """Not its objects, of which numpy would show all."""
        return f"<{array.dtype} array of shape {list(array.shape)[:8]}>"

    def repr_bytes(self, data: bytes, level: int) -> str:
        """Without a copy of all of it."""
        return repr(data[: self.maxstring])

    def repr_int(self, number: int, level: int) -> str:
        """Python refuses to print thousands of digits."""
        bits = number.bit_length()
        return repr(number) if bits <= 2000 else f"<a number of {bits} bits>"


_SHORT = _Short()


def shown(value: object) -> str:
    """A value for an error message: its repr on one short line, made in bounded time of whatever it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def meant(name: object, known: Collection[str]) -> str:
    """A name that is not known, as :func:`shown`, and with the known one that is most like it.

    Names that differ by case, or by how Unicode puts an accent on a letter, are most alike.
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
    """The content of a JSON file; ``expected`` says in the error what the file should have been."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors put a byte-order mark first
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
    """The table in a TOML text; ``origin`` names its file in the error."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise WtalError(f"{origin}: not TOML: nested too deeply") from None
    except ValueError as error:  # tomllib's own, and a number of thousands of digits
        raise WtalError(f"{origin}: not TOML: {error}") from None


def take(record: object, key: str, expected: str) -> Any:
    """``record[key]`` where the record is a mapping that has it."""
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object with {key!r}, got {shown(record)}")
    if key not in record:
        raise ValueError(f"no {key!r}, expected {expected}")
    return record[key]


def number(value: object, what: str) -> float:
    """A finite number; text such as ``"18.6"`` counts, as BaSNet's files have it."""
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
    """``[start, end]`` in seconds with start <= end (ActivityNet has a few instances of length zero)."""
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
    """A name: not empty, no control characters, no half of a character; bytes, as Python 2 wrote them, become text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value and min(value) >= " " and not any("\ud800" <= c <= "\udfff" for c in value):
        return str(value)
    raise ValueError(f"{what} is {shown(value)}, expected a name")
