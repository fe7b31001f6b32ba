"""One trial of a comparison of recipes: a training with one recipe and one seed, perhaps with a held-out part."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from wtal.ablation.results import brief
from wtal.ablation.worlds import also_made_on, made_on
from wtal.data.predictions import Detection, read_predictions
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.evaluation.table import Row
from wtal.platform.device import choose_device
from wtal.platform.fields import load_json
from wtal.platform.files import write_atomically
from wtal.platform.progress import Reporter
from wtal.report.analysis import analyse
from wtal.report.detection_errors import KINDS
from wtal.runs.checkpoint_folder import CheckpointFolder
from wtal.runs.run import Run, slug
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare

RECORD = "trial.json"
"""The file with the record of a finished trial, in its run folder."""

SECONDS = "cpu_seconds.json"
"""The file with the CPU seconds up to each checkpoint. With it, a resumed run counts no CPU time twice."""


@dataclass(frozen=True)
class Trial:
    """One run of a comparison.

    Attributes:
        recipe: name or path of the recipe.
        seed: seed of weights, order, crops and dropout.
        dataset: see :class:`wtal.runs.setup.Setup`.
        root: see :class:`wtal.runs.setup.Setup`.
        allow_missing: see :class:`wtal.runs.setup.Setup`.
        fold: see :class:`wtal.runs.setup.Setup`.
    """

    recipe: str
    seed: int
    dataset: str
    root: str | None = None
    allow_missing: bool = False
    fold: str | None = None

    @property
    def name(self) -> str:
        """The name of the recipe."""
        return Path(self.recipe).name.removesuffix(".toml")

    @property
    def label(self) -> str:
        """The trial as text for messages."""
        return f"{self.name} seed {self.seed}" + (f" part {self.fold}" if self.fold else "")

    @property
    def setup(self) -> Setup:
        """The setup of the run, the same as with ``wtal-train --threads 1 --device cpu``."""
        return Setup(
            dataset=self.dataset,
            root=self.root,
            allow_missing=self.allow_missing,
            seed=self.seed,
            fold=self.fold,
            recipe=self.name,
            device="cpu",
            precision="float32",
            threads=1,
        )

    def folder(self, root: Path) -> Path:
        """The folder of the trial's run; ``root`` is the folder of all runs."""
        part = f"-part{self.fold.replace('/', 'of')}" if self.fold else ""
        return root / self.name / f"seed{self.seed}{part}"


class _Timed(CheckpointFolder):
    """A checkpoint folder that also records the CPU time up to each checkpoint."""

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder, keep)
        self._file = folder.parent / SECONDS
        self._known: dict[str, float] = {}
        if self._file.is_file():
            with suppress(ValueError, WtalError):
                self._known = dict(load_json(self._file, "CPU seconds by checkpoint"))
        self._before, self._began = 0.0, time.process_time()

    def go_on_from(self, number: int) -> None:
        """Continue to count from the CPU time of a checkpoint; 0 is the start of the run."""
        self._before = float(self._known.get(str(number), 0.0))

    @property
    def seconds(self) -> float:
        """The CPU seconds of the run so far, with those before an interruption."""
        return self._before + time.process_time() - self._began

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], number: int) -> Path:
        # The time is written first: a checkpoint without a recorded time would count as 0 seconds.
        self._known = {key: s for key, s in self._known.items() if number - self.keep <= int(key) < number}
        self._known[str(number)] = round(self.seconds, 3)
        write_atomically(self._file, json.dumps(self._known).encode())
        return super().save(tensors, facts, number)


def run_trial(root: Path, trial: Trial) -> dict[str, Any]:
    """Train and measure, or resume an interrupted trial; returns its record.

    Args:
        root: folder of all runs.
        trial: the trial to run.

    Raises:
        WtalError: the folder has a run with another recipe or data set, or training failed.
    """
    torch.set_num_threads(1)
    if (done := recorded(root, trial)) is not None:
        return done
    folder, recipe = trial.folder(root), load_recipe(trial.recipe)
    if (folder / "config.toml").is_file() and Run.open(folder).checkpoints.newest() is not None:
        run = Run.open(folder)
    else:  # there is no checkpoint, so nothing is lost
        run = Run.create(folder, trial.setup, recipe.config, recipe.source, made_on(), replace=True)
    run.lock()
    try:
        run.checkpoints = timed = _Timed(run.checkpoints.folder, run.setup.keep_checkpoints)
        trainer = prepare(run, choose_device("cpu", "float32"), Reporter(Console(), True, run.log))
        timed.go_on_from(trainer.saved)
        if trainer.stage_index < len(trainer.stages):
            also_made_on(run, made_on())
        record = _record(trial, trainer.fit(), trainer.data, run)
        record |= {"cpu_seconds": round(timed.seconds, 1), "peak_memory_mb": _peak_memory()}
        write_atomically(folder / RECORD, json.dumps(record, indent=1).encode())
        return record
    finally:
        run.unlock()


def recorded(root: Path, trial: Trial) -> dict[str, Any] | None:
    """The record of a finished trial; None if it is not finished.

    Raises:
        WtalError: the folder has a run with another recipe or data set, or the record is damaged.
    """
    folder = trial.folder(root)
    if not (folder / "config.toml").is_file():
        return None
    run = Run.open(folder)
    begun = run.checkpoints.newest() is not None or (folder / RECORD).is_file()
    if begun and run.config != load_recipe(trial.recipe).config:
        raise WtalError(f"{folder}: was trained by another {trial.recipe} than today's; choose another --runs")
    if begun and (run.setup.dataset, run.setup.root) != (trial.dataset, trial.root):
        raise WtalError(f"{folder}: was trained on {run.setup.dataset}, not {trial.dataset}; choose another --runs")
    if not (folder / RECORD).is_file():
        return None
    record: Any = load_json(folder / RECORD, "what a trial of wtal-ablate found")
    if not isinstance(record, dict) or not {"rows", "result", "errors", "cpu_seconds"} <= record.keys():
        raise WtalError(f"{folder / RECORD}: unknown structure, expected what a trial of wtal-ablate found")
    return record


def result_row(rows: list[Row], config: RunConfig) -> Row:
    """The result row of a run: the last row of the branch that the recipe localises with."""
    return next(row for row in reversed(rows) if row["branch"] == config.localize.branch)


def detections(folder: Path, title: str) -> dict[str, list[Detection]]:
    """The detections of a row of a run by video id, from the run's folder.

    Raises:
        WtalError: the file is missing or damaged.
    """
    return read_predictions(folder / "predictions" / f"{slug(title)}.json")


def _record(trial: Trial, rows: list[Row], data: VideoSet, run: Run) -> dict[str, Any]:
    result = result_row(rows, run.config)
    predictions = detections(run.folder, result["name"])
    return {
        "recipe": trial.name,
        "seed": trial.seed,
        "fold": trial.fold,
        "videos": [len(data.subset("train")), len(data.subset("test"))],
        "result": result["name"],
        "rows": {row["name"]: brief(row) for row in rows},
        "errors": errors(predictions, data, run.config),
    }


def errors(predictions: dict[str, Any], data: VideoSet, config: RunConfig) -> dict[str, Any]:
    """The error analysis of the report as numbers.

    Returns:
        ``alpha``: the tIoU of the analysis. ``first``: the share of each kind of error among the first G detections of
        each class, where G is its number of instances. ``gains``: the gain in mAP, in percent points, if a kind of
        error is removed. ``missed``: the share of instances without a matched detection, in total (``all``) and by
        length.
    """
    asked = config.evaluate
    analysis = analyse(predictions, data.subset("test"), asked.protocol, asked.tiou, asked.ambiguous)
    first = analysis.by_rank[0]
    missed = {item.name: item.missed / item.instances for item in analysis.by_length if item.instances}
    instances = sum(item.instances for item in analysis.by_length)
    everywhere = sum(item.missed for item in analysis.by_length) / max(instances, 1)
    return {
        "alpha": analysis.alpha,
        "first": {
            kind: round(float(share), 4) for kind, share in zip(KINDS, first / np.maximum(first.sum(), 1), strict=True)
        },
        "gains": {kind: round(gain, 4) for kind, gain in analysis.gains.items()},
        "missed": {"all": round(everywhere, 4), **{name: round(share, 4) for name, share in missed.items()}},
    }


def _peak_memory() -> float:
    """The peak memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
