"""A study: the content of a report about one run. It has the run's table and curves, its scores and their analysis.

Table and curves are read from the run folder. Scores are computed from its checkpoint and the features of the data set,
so an old run can have a report too. If the data set cannot be opened, scores and analysis are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wtal.data.predictions import Detection
from wtal.data.video import VideoSet, nothing_to_measure
from wtal.errors import WtalError
from wtal.evaluation.inputs import unused_ambiguous
from wtal.evaluation.table import has_ground_truth
from wtal.inference.saved_model import check_data, load
from wtal.platform.progress import Reporter
from wtal.report.analysis import Analysis, analyse
from wtal.report.curves import Curves, read_curves
from wtal.report.scores import VideoScores, detections, score_videos
from wtal.runs.run import VERSIONS, Run
from wtal.runs.videos import open_again


@dataclass(frozen=True)
class Study:
    """The content of a report about one run.

    Attributes:
        name: name of the run folder.
        run: the run.
        rows: the rows of its table.
        curves: its training losses.
        versions: versions of wtal and other packages in training.
        data: its data set; None if it cannot be opened.
        scored: scores of the test videos; empty without ``data``.
        detections: for each source (``cbp``, ``vlp``, ``ensemble``), the detections by video id.
        analyses: the analysis of each source; empty without temporal ground truth.
        trouble: the reason why parts are missing; empty if none is missing.
        ambiguous: the treatment of detections that overlap an ambiguous interval, see :func:`wtal.evaluate`.
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
        """The sources with detections: the branches, then ``ensemble``."""
        return tuple(self.detections)


def studies(
    folders: Sequence[Path], device: str, reporter: Reporter, root: Path | None = None, ambiguous: str | None = None
) -> list[Study]:
    """Open several runs. If two folders have the same name, the names of all studies are the paths."""
    opened = [study(folder, device, reporter, root, ambiguous) for folder in folders]
    if len({one.name for one in opened}) < len(opened):
        return [replace(one, name=str(folder)) for one, folder in zip(opened, folders, strict=True)]
    return opened


def study(
    folder: Path, device: str, reporter: Reporter, root: Path | None = None, ambiguous: str | None = None
) -> Study:
    """Open a run and score its test videos.

    Args:
        folder: the run folder.
        device: the value of ``--device``.
        reporter: shows progress and notes.
        root: the folder of its data; None: the same folder as in training.
        ambiguous: see :func:`wtal.evaluate`; None: the run's setting.

    Raises:
        WtalError: the folder is no run folder, has no checkpoint or is damaged, or its data set has other classes or
            feature widths than in training.
    """
    run = Run.open(folder)
    facts: dict[str, Any] = {
        "name": folder.resolve().name,
        "run": run,
        "rows": run.rows(),
        "curves": read_curves(folder / "tensorboard"),
        "versions": run.versions() if (folder / VERSIONS).is_file() else {},
    }
    branches, config, where, _ = load(folder, device)
    try:
        data = open_again(run.setup, run.config.schedule, root)
    except WtalError as error:
        reporter.say(f"note: {error}")
        return Study(**facts, data=None, scored=[], detections={}, analyses={}, trouble=str(error))
    test = data.subset("test")
    check_data(folder, branches, data)
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
