"""A run, opened for looking at: its table and curves, and where its data are still there its scores and their analysis.

Tables and curves come from the run folder. Scores come from its checkpoint and the data set's features, so that any run
can be looked at, also one that was trained long ago.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wtal.data.predictions import Detection
from wtal.data.video import VideoSet, nothing_to_measure
from wtal.errors import WtalError
from wtal.evaluation.inputs import unused_ambiguous
from wtal.evaluation.table import has_ground_truth
from wtal.inference.saved_model import load
from wtal.platform.progress import Reporter
from wtal.report.analysis import Analysis, analyse
from wtal.report.curves import Curves, read_curves
from wtal.report.scores import VideoScores, detections, score_videos
from wtal.runs.run import Run
from wtal.runs.videos import open_again


@dataclass(frozen=True)
class Study:
    """What there is to know of a run.

    Attributes:
        name: the run folder's.
        run: the run.
        rows: its table.
        curves: its training losses.
        versions: what it was made with.
        data: its data set, None where that could not be opened; ``trouble`` says why.
        scored: the test videos' scores, empty without data.
        detections: of each source (``cbp``, ``vlp``, ``ensemble``), by video id.
        analyses: of each source; empty without temporal ground truth.
        trouble: why parts are missing, empty if none is.
        ambiguous: what the analyses do with detections that meet an ambiguous interval, as :func:`wtal.evaluate`.
    """

    name: str
    run: Run
    rows: list[dict[str, Any]]
    curves: Curves
    versions: dict[str, str | None]
    data: VideoSet | None
    scored: list[VideoScores]
    detections: dict[str, dict[str, list[Detection]]]
    analyses: dict[str, Analysis]
    trouble: str
    ambiguous: str = "keep"

    @property
    def sources(self) -> tuple[str, ...]:
        """The branches that have detections, the most complete last."""
        return tuple(self.detections)


def studies(
    folders: Sequence[Path], device: str, reporter: Reporter, root: Path | None = None, ambiguous: str | None = None
) -> list[Study]:
    """Open runs; where two folders have the same name, each goes by its whole path."""
    opened = [study(folder, device, reporter, root, ambiguous) for folder in folders]
    if len({one.name for one in opened}) < len(opened):
        return [replace(one, name=str(folder)) for one, folder in zip(opened, folders, strict=True)]
    return opened


def study(
    folder: Path, device: str, reporter: Reporter, root: Path | None = None, ambiguous: str | None = None
) -> Study:
    """Open a run and score its test videos.

    Args:
        folder: of the run.
        device: as ``--device``.
        reporter: shows progress of what takes time.
        root: where its data are now; None where they were in training.
        ambiguous: as :func:`wtal.evaluate`; None: as the run was configured.

    Raises:
        WtalError: not a run folder, or one without a checkpoint.
    """
    run = Run.open(folder)
    versions = folder / "versions.json"
    facts: dict[str, Any] = {
        "name": folder.resolve().name,
        "run": run,
        "rows": run.rows(),
        "curves": read_curves(folder / "tensorboard"),
        "versions": json.loads(versions.read_text()) if versions.is_file() else {},
    }
    branches, config, where, _ = load(folder, device)
    try:
        data = open_again(run.setup, run.config.schedule, root)
    except WtalError as error:
        reporter.say(f"note: {error}")
        return Study(**facts, data=None, scored=[], detections={}, analyses={}, trouble=str(error))
    test = data.subset("test")
    if list(data.classes) != branches.facts["classes"]:
        raise WtalError(f"{folder}: was trained on other classes than data set {data.name} has now")
    reporter.say(f"{facts['name']}: scoring {len(test)} test videos of {data.name}")
    scored = score_videos(branches, data, test, config, where)
    by_source = {
        source: detections(scored, source, data.classes, config.localize)
        for source in (scored[0].sources if scored else ())
    }
    analyses, trouble = {}, ""
    asked = ambiguous or config.evaluate.ambiguous
    if has_ground_truth(data):
        for note in unused_ambiguous(test) if asked == "keep" else []:
            reporter.say(f"note: {note}")
        analyses = {
            source: analyse(listed, test, config.evaluate.protocol, config.evaluate.tiou, asked)
            for source, listed in by_source.items()
        }
    else:
        fault = nothing_to_measure(test) or "the test videos have no temporal ground truth"
        trouble = f"{fault}: nothing here measures localization"
    facts |= {"analyses": analyses, "trouble": trouble, "ambiguous": asked}
    return Study(**facts, data=data, scored=scored, detections=by_source)
