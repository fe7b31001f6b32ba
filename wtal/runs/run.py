"""The run folder, which holds all files that one training writes.

::

    runs/<name>/
      config.toml             the setup, and every setting with its source
      versions.json           the versions of wtal, Python, torch and other packages
      log.txt                 one line for each epoch and for each result
      metrics.json            the table, row by row
      checkpoints/            the newest ones, checkpoint-<number>.safetensors
      predictions/<row>.json  the detections of each row, in the official ActivityNet format
      tensorboard/            loss curves
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from wtal.data.predictions import Detection, write_predictions
from wtal.errors import WtalError
from wtal.platform.as_json import dumps
from wtal.platform.as_toml import toml_value
from wtal.platform.fields import load_json, parse_toml, shown
from wtal.platform.files import WriteError, is_temporary, remove_temporaries, write_atomically
from wtal.platform.text import read_text
from wtal.runs.checkpoint_folder import CheckpointFolder
from wtal.runs.lock import LOCK, locked
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import Sources, from_table, to_toml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG = "config.toml"
VERSIONS = "versions.json"


class Run:
    """An open run folder. :meth:`create` makes a new one, and :meth:`open` opens an existing one."""

    def __init__(self, folder: Path, setup: Setup, config: RunConfig) -> None:
        self.folder = folder
        self.setup = setup
        self.config = config
        self.checkpoints = CheckpointFolder(folder / "checkpoints", setup.keep_checkpoints)
        self._lock: IO[str] | None = None
        self.log = logging.getLogger(f"wtal.runs.run.{folder.resolve()}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        if not self.log.handlers:
            handler = _LogFile(folder / "log.txt", encoding="utf-8", errors="backslashreplace", delay=True)
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self.log.addHandler(handler)

    @classmethod
    def create(
        cls,
        folder: Path,
        setup: Setup,
        config: RunConfig,
        source: Sources,
        versions: Mapping[str, str | None],
        replace: bool = False,
    ) -> Run:
        """Make the folder, and write the settings and the versions. The folder is locked meanwhile.

        Args:
            folder: the new run folder. It may be empty, or have what an earlier call left that was killed.
            setup: the setup.
            config: the settings.
            source: the origin of each setting.
            versions: the versions of packages.
            replace: whether a run in this folder is removed first.

        Raises:
            WtalError: the folder is not empty, cannot be written, or is used by another process.
        """
        text = f"# A run of wtal-train.\n{_run_table(setup)}\n{to_toml(config, source)}"
        try:
            settings = text.encode()
        except UnicodeEncodeError:
            raise WtalError(
                f"{folder}: a path of this run is not UTF-8, expected one that can be written down"
            ) from None
        try:
            if not replace:
                _check_free(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                if replace:
                    _clear(folder)
                _check_free(folder)  # another process may have been faster
                for part in ("checkpoints", "predictions"):
                    (folder / part).mkdir(exist_ok=True)
                write_atomically(folder / VERSIONS, json.dumps(dict(versions), indent=1).encode())
                write_atomically(folder / CONFIG, settings)  # last: a folder with this file is a complete run folder
                remove_temporaries(folder)
        except OSError as error:
            raise WriteError.of(folder, error) from None
        return cls(folder, setup, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open the folder of an earlier run.

        Raises:
            WtalError: it is not a run folder, or its configuration is damaged.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise WtalError(f"{folder}: not a run folder of wtal-train: it has no {CONFIG}")
        table = parse_toml(read_text(path, "the settings of a run"), path)
        return cls(folder, _setup(table.pop("run", {}), path), from_table(table, RunConfig(), str(path)))

    def discard(self) -> None:
        """Remove the folder of a run that could not start, so that the next attempt can use the same name."""
        for handler in self.log.handlers[:]:
            handler.close()
            self.log.removeHandler(handler)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remember(self) -> None:
        """Write the setup of a resumed run to the file of settings; the rest of that file does not change."""
        path = self.folder / CONFIG
        text = path.read_text(encoding="utf-8")
        now = re.sub(r"^\[run\]\n(?:[^\[\n].*\n)*", lambda _: _run_table(self.setup), text, count=1, flags=re.MULTILINE)
        if now != text:
            write_atomically(path, now.encode())

    def lock(self) -> None:
        """Lock the run, so that no other process trains it. The lock ends with this process, also if it is killed.

        Temporary files of a killed process are removed.

        Raises:
            WtalError: another process is training this run.
        """
        self._lock = locked(self.folder)
        for part in (self.folder, self.checkpoints.folder, self.folder / "predictions"):
            remove_temporaries(part)

    def unlock(self) -> None:
        """Release the lock of :meth:`lock`."""
        if self._lock is not None:
            self._lock.close()

    @property
    def metrics(self) -> Path:
        """The path of the table, a JSON file."""
        return self.folder / "metrics.json"

    def versions(self) -> dict[str, str | None]:
        """What the run was made by: the versions of packages, in an ablation also commit, generator and machine.

        Raises:
            WtalError: the file is missing or damaged.
        """
        path, expected = self.folder / VERSIONS, "the versions that a run was made by"
        content = load_json(path, expected)
        if not isinstance(content, dict) or not all(isinstance(value, str | None) for value in content.values()):
            raise WtalError(f"{path}: unknown structure, expected {expected}")
        return content

    def rows(self) -> list[dict[str, Any]]:
        """The rows written so far. A mean that is null in the file becomes NaN.

        Raises:
            WtalError: the table is damaged.
        """
        if not self.metrics.is_file():
            return []
        content = load_json(self.metrics, "the table that wtal-train wrote")
        rows = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise WtalError(f"{self.metrics}: unknown structure, expected the table that wtal-train wrote")
        return [{**row, "mean": math.nan} if row.get("mean", 0) is None else row for row in rows]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write the table; it replaces the old one."""
        write_atomically(self.metrics, dumps({"rows": rows}, indent=1).encode())

    def write_detections(self, row: str, detections: Mapping[str, Sequence[Detection]]) -> None:
        """Write the detections of a row; ``detections`` is by video id."""
        write_predictions(self.folder / "predictions" / f"{slug(row)}.json", detections)

    def curves(self) -> SummaryWriter:
        """The writer of the loss curves; the caller closes it."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.folder / "tensorboard")


def slug(title: str) -> str:
    """A file name without extension, from the title of a row."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def default_folder(dataset: str) -> Path:
    """Make the folder ``runs/<data set>-<date>-<time>``, with a number at the end if that exists.

    Raises:
        WriteError: it cannot be made.
    """
    stem = f"{Path(dataset).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / stem, 1
    while True:
        try:
            folder.mkdir(parents=True)  # fails if another process has made it in the same second
            return folder
        except FileExistsError:
            number += 1
            folder = Path("runs") / f"{stem}-{number}"
        except OSError as error:
            raise WriteError.of(folder, error) from None


def _run_table(setup: Setup) -> str:
    lines = (f"{name} = {toml_value(value)}\n" for name, value in asdict(setup).items() if value is not None)
    return "".join(("[run]\n", *lines))


def _check_free(folder: Path) -> None:
    """Raise WtalError unless a run can be made in a folder: it is not there, or no run was finished in it."""
    if folder.exists() and (not folder.is_dir() or not _unfinished(folder)):
        raise WtalError(f"{folder}: already exists; choose another --out, or go on with --resume {folder}")


def _clear(folder: Path) -> None:
    """Remove what a folder has, but for its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _unfinished(folder: Path) -> bool:
    """Whether a folder has only what :meth:`Run.create` has written before it was killed."""
    return (
        all(
            path.name in (VERSIONS, LOCK) or is_temporary(path) or (path.is_dir() and not any(path.iterdir()))
            for path in folder.iterdir()
        )
        and not (folder / CONFIG).exists()
    )


class _LogFile(logging.FileHandler):
    """A log file whose write errors, such as a full disk, end the run; logging would print a traceback and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise WriteError.of(self.baseFilename, error) from None
        super().handleError(record)


def _setup(said: object, path: Path) -> Setup:
    """The setup from the ``[run]`` table of a run's configuration; every key and type is checked."""
    if not isinstance(said, dict):
        raise WtalError(f"{path}: run = {shown(said)}, expected a table [run]")
    known = get_type_hints(Setup)
    for key, value in said.items():
        if key not in known:
            raise WtalError(f"{path}: unknown key run.{key}; known are {', '.join(sorted(known))}")
        kinds = get_args(known[key]) or (known[key],)
        literal = get_origin(known[key]) is Literal
        if value not in kinds if literal else type(value) not in kinds:
            names = ", ".join(map(str, kinds)) if literal else kinds[0].__name__
            raise WtalError(f"{path}: run.{key} = {shown(value)}, expected {names}")
    return Setup(**said)
