"""The numbered checkpoints of a run: keeps the newest ones, and finds the newest one that is not damaged."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wtal.errors import WtalError
from wtal.runs.checkpoint import Checkpoint, FormatError, load_checkpoint, save_checkpoint

_NAME = re.compile(r"checkpoint-(\d{6,})\.safetensors")


class CheckpointFolder:
    """A folder of ``checkpoint-<number>.safetensors``.

    Args:
        folder: the folder; it need not exist yet.
        keep: how many checkpoints to keep, at least 1. Older ones are removed after the new one is on the disk.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise WtalError(f"keep-checkpoints is {keep}; expected at least 1")
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """The paths of all checkpoints, oldest first."""
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("checkpoint-*"))
        return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]

    def newest(self) -> Path | None:
        """The path of the newest checkpoint, damaged or not; None if there is none."""
        return next(reversed(self.paths()), None)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], number: int) -> Path:
        """Write checkpoint ``number``, then remove the oldest ones.

        Raises:
            WtalError: the checkpoint cannot be written. No earlier one is removed then.
        """
        path = self.folder / f"checkpoint-{number:06d}.safetensors"
        save_checkpoint(path, tensors, facts)
        # A run that skipped damaged newer checkpoints continues with lower numbers, so only lower numbers count here.
        older = [other for other in self.paths() if _number(other) < number]
        for other in older[: max(0, len(older) + 1 - self.keep)]:
            with contextlib.suppress(OSError):
                other.unlink()
        return path

    def load(self, warn: Callable[[str], None]) -> tuple[Checkpoint, int] | None:
        """The newest checkpoint that is not damaged, and its number; None if the folder has no checkpoint.

        Args:
            warn: called with a message for each damaged checkpoint that is skipped.

        Raises:
            WtalError: there are checkpoints, but none can be used.
        """
        faults: list[WtalError] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = load_checkpoint(path)
            except WtalError as error:
                faults.append(error)
                continue
            for fault in faults:
                warn(f"warning: {fault}; using the one before, {path.name}")
            return checkpoint, _number(path)
        if faults and isinstance(faults[0], FormatError):
            raise faults[0]
        if faults:
            raise WtalError(f"every checkpoint is damaged ({len(faults)} of them); the newest: {faults[0]}")
        return None


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
