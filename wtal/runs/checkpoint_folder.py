"""The numbered checkpoints of a run: the last few are kept, and the newest sound one is found."""

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
        folder: need not be there yet.
        keep: how many to keep, at least 1; older ones are removed after a newer one is safely on the disk.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise WtalError(f"keep-checkpoints is {keep}; expected at least 1")
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """All of them, oldest first."""
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("checkpoint-*"))
        return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]

    def newest(self) -> Path | None:
        """The newest one, sound or not; None before the first."""
        return next(reversed(self.paths()), None)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], number: int) -> Path:
        """Write checkpoint ``number`` and remove those that are no longer kept.

        Raises:
            WtalError: it cannot be written; all earlier ones are still there then.
        """
        path = self.folder / f"checkpoint-{number:06d}.safetensors"
        save_checkpoint(path, tensors, facts)
        # Only older ones count: where a damaged newer one was passed over, the numbers begin again below it.
        older = [other for other in self.paths() if _number(other) < number]
        for other in older[: max(0, len(older) + 1 - self.keep)]:
            with contextlib.suppress(OSError):
                other.unlink()
        return path

    def load(self, warn: Callable[[str], None]) -> tuple[Checkpoint, int] | None:
        """The newest sound checkpoint and its number; None where there has never been one.

        Args:
            warn: called with a message for each damaged checkpoint that is skipped.

        Raises:
            WtalError: there are some, and every one is damaged, or the newest is of another format and none will do.
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
