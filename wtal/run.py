"""A run folder: everything that one training leaves behind, and nothing outside of it.

::

    runs/<name>/
      config.toml             every setting with its source, and what the command line said
      versions.json           versions of all that the numbers depend on
      log.txt                 one line an epoch, one line a result
      metrics.json            the table, row by row
      checkpoints/            checkpoint-<number>.safetensors, the last few
      predictions/<row>.json  detections behind each row, official ActivityNet format
      tensorboard/            loss curves
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wtal.checkpoints import Checkpoints
from wtal.config import RunConfig
from wtal.data.fields import load_json, shown
from wtal.data.synthetic.layouts import Layout
from wtal.errors import WtalError
from wtal.files import WriteError, remove_temporaries, write_atomically
from wtal.recipe import Sources, from_table, to_toml

CONFIG = "config.toml"


@dataclass(frozen=True)
class Setup:
    """What a run is about: the command line's part of the configuration, kept for ``--resume``.

    Attributes:
        dataset: name of a data set, or path of a ``dataset.toml``.
        root: where its files lie; None looks in the usual places.
        features: ``"disk"`` reads features, ``"synthetic"`` generates them for real annotations.
        layout: layout in which generated data are written.
        shapes: ``small`` or ``true``, for the embedded benchmark.
        world: seed of generated data.
        seed: seed of initial weights, order, crops and dropout.
        recipe: name of the recipe that the settings started from.
        clip_model: open_clip architecture.
        clip_weights: file with CLIP's weights; None lets open_clip fetch OpenAI's.
        allow_missing: train without videos whose features are not there.
        keep_checkpoints: how many checkpoints to keep.
        skip_bad_batches: how many batches whose loss is not finite to leave out before giving up.
    """

    dataset: str = "synthetic"
    root: str | None = None
    features: str = "disk"
    layout: Layout = "basnet"
    shapes: str = "small"
    world: int = 0
    seed: int = 0
    recipe: str = "synthetic"
    clip_model: str = "ViT-B-16-quickgelu"
    clip_weights: str | None = None
    allow_missing: bool = False
    keep_checkpoints: int = 3
    skip_bad_batches: int = 0


class Run:
    """An open run folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, setup: Setup, config: RunConfig) -> None:
        self.folder = folder
        self.setup = setup
        self.config = config
        self.checkpoints = Checkpoints(folder / "checkpoints", setup.keep_checkpoints)
        self.log = logging.getLogger(f"wtal.run.{folder.resolve()}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        if not self.log.handlers:
            handler = _LogFile(folder / "log.txt", encoding="utf-8", delay=True)
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self.log.addHandler(handler)

    @classmethod
    def create(
        cls, folder: Path, setup: Setup, config: RunConfig, source: Sources, versions: Mapping[str, str | None]
    ) -> Run:
        """Make the folder and write down what the run is.

        Raises:
            WtalError: the folder already holds something.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WtalError(f"{folder}: already exists; choose another --out, or go on with --resume {folder}")
        for part in ("checkpoints", "predictions"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        said = "".join(f"{name} = {json.dumps(value)}\n" for name, value in asdict(setup).items() if value is not None)
        text = f"# A run of wtal-train.\n[run]\n{said}\n{to_toml(config, source)}"
        write_atomically(folder / CONFIG, text.encode())
        write_atomically(folder / "versions.json", json.dumps(dict(versions), indent=1).encode())
        return cls(folder, setup, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open the folder of an earlier run.

        Raises:
            WtalError: not a run folder, or a damaged configuration.
        """
        import tomllib

        path = folder / CONFIG
        if not path.is_file():
            raise WtalError(f"{folder}: not a run folder of wtal-train: it has no {CONFIG}")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WtalError(f"{path}: not valid TOML: {error}") from error
        return cls(folder, _setup(table.pop("run", {}), path), from_table(table, RunConfig(), str(path)))

    def hold(self) -> None:
        """Keep other processes from training this run until this one ends, however it ends.

        Also removes what a killed process left half written.

        Raises:
            WtalError: another process is at it.
        """
        import fcntl

        self._lock = (self.folder / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WtalError(f"{self.folder}: another process is training this run") from None
        except OSError:
            return  # a file system without locks
        for part in (self.folder, self.checkpoints.folder, self.folder / "predictions"):
            remove_temporaries(part)

    def release(self) -> None:
        """Let other processes train this run again."""
        self._lock.close()

    @property
    def metrics(self) -> Path:
        """The table as JSON."""
        return self.folder / "metrics.json"

    def rows(self) -> list[dict[str, Any]]:
        """The rows written so far.

        Raises:
            WtalError: the table is damaged.
        """
        if not self.metrics.is_file():
            return []
        content = load_json(self.metrics, "the table that wtal-train wrote")
        rows = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise WtalError(f"{self.metrics}: unknown structure, expected the table that wtal-train wrote")
        return rows

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replace the table."""
        write_atomically(self.metrics, json.dumps({"rows": rows}, indent=1).encode())


def default_folder(dataset: str) -> Path:
    """``runs/<data set>-<date>-<time>``, with a number behind it where that is taken."""
    stem = f"{Path(dataset).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / stem, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{stem}-{number}"
    return folder


class _LogFile(logging.FileHandler):
    """Where logging would print a traceback and go on (a full disk), the run ends with one error."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise WriteError(f"{self.baseFilename}: cannot be written ({error.strerror})") from None
        super().handleError(record)


def _setup(said: object, path: Path) -> Setup:
    """The ``[run]`` table of a run's configuration, every key and type checked."""
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
