"""The one exception that wtal raises for what a user can mend, and how it tells another library's."""

from __future__ import annotations


class WtalError(Exception):
    """A fault in the input or its use: one line that names the file, the value and what was expected.

    The commands print it as ``error: ...`` and exit with :attr:`exit_code`.
    """

    exit_code = 2


def reason(error: BaseException) -> str:
    """What an error of another library says, for the middle of a message: its first line, at most 160 characters."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 160 else line[:157] + "..."
