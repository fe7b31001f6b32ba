"""The one exception that wtal raises for what a user can mend, and how it tells another library's."""

from __future__ import annotations


class WtalError(Exception):
    """A fault in the input or its use: one line that names the file, the value and what was expected.

    The commands print it as ``error: ...`` and exit with :attr:`exit_code`.
    """

    exit_code = 2


def reason(error: object) -> str:
    """What an error of another library says, for the middle of a message: one line that can be printed anywhere.

    At most 160 characters, with a replacement for what UTF-8 cannot hold.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    line = line if len(line) <= 160 else line[:157] + "..."
    return line.encode("utf-8", "backslashreplace").decode()
