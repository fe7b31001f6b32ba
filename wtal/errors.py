"""The exception for errors that a user can correct, and the text of errors of other libraries."""

from __future__ import annotations


class WtalError(Exception):
    """An error in the input or its use. Its message is one line: the file, the value, and what was expected.

    The commands print it as ``error: ...`` and exit with :attr:`exit_code`.
    """

    exit_code = 2


def reason(error: object) -> str:
    """The message of another library's error, as one line that can be part of a message.

    It has at most 160 characters. Characters that UTF-8 cannot encode are replaced.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    line = line if len(line) <= 160 else line[:157] + "..."
    return line.encode("utf-8", "backslashreplace").decode()
