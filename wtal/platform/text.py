"""Reads text files of users: UTF-8 with or without a byte-order mark, and CSV with spaces around values."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from wtal.errors import WtalError
from wtal.platform.fields import shown


def read_text(path: str | os.PathLike[str], expected: str = "a text file") -> str:
    """The content of a UTF-8 text file, without a byte-order mark.

    Args:
        path: the file.
        expected: the expected content, for the error message.

    Raises:
        WtalError: the file does not exist, cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected {expected}") from None
    except OSError as error:
        raise WtalError(f"{path}: cannot be read ({error.strerror or error}), expected {expected}") from None
    except UnicodeDecodeError:
        raise WtalError(f"{path}: cannot be read (not UTF-8 text), expected {expected}") from None


def read_lines(path: str | os.PathLike[str], expected: str = "a text file") -> list[str]:
    """The lines of a text file that are not blank, without outer spaces; raises as :func:`read_text`."""
    # str.splitlines would also split at U+2028 and similar characters, which a name may contain.
    return [line.strip() for line in read_text(path, expected).split("\n") if line.strip()]


def csv_rows(
    path: str | os.PathLike[str], columns: Sequence[str], expected: str, only: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The line number and the values of each row of a CSV file. Outer spaces are removed, and blank rows are left out.

    Args:
        path: the file; its first line names the columns.
        columns: the columns to return, in this order. Values that a short row lacks are empty.
        expected: the expected content, for the error message.
        only: the file must have exactly these columns in this order, and every row must have all of them.

    Raises:
        WtalError: as for :func:`read_text`; or a column is missing, or the file is not CSV.
    """
    rows = csv.reader(io.StringIO(read_text(path, expected), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if only and header != list(columns):
            raise WtalError(f"{path}: first line {','.join(header)!r}, expected {expected!r}")
        if missing := [column for column in columns if column not in header]:
            raise WtalError(f"{path}: no column {', '.join(missing)}, expected {expected}")
        places = [header.index(column) for column in columns]
        for row in rows:
            values = [value.strip() for value in row]
            if not any(values):
                continue
            if only and (len(row) != len(columns) or not values[0]):
                raise WtalError(f"{path}: line {rows.line_num}: {shown(row)}, expected {expected}")
            yield rows.line_num, [values[place] if place < len(values) else "" for place in places]
    except csv.Error as error:
        raise WtalError(f"{path}: line {rows.line_num}: cannot be read ({error}), expected {expected}") from None
