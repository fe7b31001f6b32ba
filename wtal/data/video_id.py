"""Checks that a video id can be part of file names."""

from __future__ import annotations

from pathlib import Path

from wtal.errors import WtalError
from wtal.platform import fields

_LONGEST_ID = 240  # bytes; file systems allow 255 with the extension


def check_id(video_id: str, source: Path) -> None:
    """Reject a video id that leads to another folder, or that cannot be a file name."""
    try:
        fields.name(video_id, "id")
    except ValueError as error:
        raise WtalError(f"{source}: video {video_id!r}: {error}") from None
    if "/" in video_id or "\\" in video_id or ".." in video_id:
        raise WtalError(f"{source}: video {video_id!r}: an id is part of file names, expected no '/' or '..' in it")
    if len(video_id.encode()) > _LONGEST_ID:
        raise WtalError(f"{source}: video {video_id[:40]!r}...: {len(video_id)} characters, expected a file name")
