"""A run folder that is never written. If several processes train one run, all except the first use it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from wtal.data.predictions import Detection
from wtal.runs.checkpoint_folder import CheckpointFolder
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig


class ReadOnlyRun(Run):
    """The run of a process that trains but writes no file."""

    def __init__(self, folder: Path, setup: Setup, config: RunConfig) -> None:
        self.folder = folder
        self.setup = setup
        self.config = config
        self.checkpoints = _Unwritten(folder / "checkpoints")
        self.log = logging.getLogger("wtal.runs.run.follower")
        self.log.propagate = False
        self.log.addHandler(logging.NullHandler())

    def discard(self) -> None:
        """Does nothing."""

    def remember(self) -> None:
        """Does nothing."""

    def lock(self) -> None:
        """Does nothing."""

    def unlock(self) -> None:
        """Does nothing."""

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Does nothing."""

    def write_detections(self, row: str, detections: Mapping[str, Sequence[Detection]]) -> None:
        """Does nothing."""

    def curves(self) -> Any:
        """A writer of curves that writes nothing."""
        return _NoCurves()


class _Unwritten(CheckpointFolder):
    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], number: int) -> Path:
        return self.folder / str(number)


class _NoCurves(contextlib.nullcontext[Any]):
    def __enter__(self) -> _NoCurves:
        return self

    def add_scalar(self, *values: object) -> None:
        """Does nothing."""
