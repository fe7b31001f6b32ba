"""Numbers and lists of names, formatted for messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """A number with its noun, e.g. ``1 video`` or ``2 videos``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def first_few(names: Sequence[object], most: int = 3) -> str:
    """The first ``most`` names, and dots if there are more."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")
