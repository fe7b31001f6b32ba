"""The one exception that wtal raises for what a user can mend."""

from __future__ import annotations


class WtalError(Exception):
    """A fault in the input or its use: one line that names the file, the value and what was expected.

    The commands print it as ``error: ...`` and exit with :attr:`exit_code`.
    """

    exit_code = 2
