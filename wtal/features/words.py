"""Numbers and names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def few(names: Sequence[object], most: int = 3) -> str:
    """The first names of many, and dots where there are more."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")
