"""A run folder: everything that one training leaves behind, and nothing outside of it.

::

    runs/<name>/
      config.toml             every setting with its source, and what the command line said
      versions.json           versions of all that the numbers depend on
      log.txt                 one line an epoch, one line a result
      metrics.json            the table, row by row
      checkpoints/last.safetensors
      predictions/<row>.json  detections behind each row, official ActivityNet format
      tensorboard/            loss curves
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from wtal.config import RunConfig
from wtal.data.synthetic.layouts import Layout
from wtal.errors import WtalError
from wtal.files import write_atomically
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


class Run:
    """An open run folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, setup: Setup, config: RunConfig) -> None:
        self.folder = folder
        self.setup = setup
        self.config = config
        self.log = logging.getLogger(f"wtal.run.{folder.resolve()}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        if not self.log.handlers:
            handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
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
        said = table.pop("run", {})
        known = {field.name for field in fields(Setup)}
        if unknown := set(said) - known:
            raise WtalError(f"{path}: unknown key run.{min(unknown)}; known are {', '.join(sorted(known))}")
        return cls(folder, Setup(**said), from_table(table, RunConfig(), str(path)))

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def metrics(self) -> Path:
        """The table as JSON."""
        return self.folder / "metrics.json"

    def rows(self) -> list[dict[str, Any]]:
        """The rows written so far."""
        return json.loads(self.metrics.read_text())["rows"] if self.metrics.is_file() else []

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
