"""Figures for a paper: PNG, SVG or PDF, drawn with matplotlib; no display is needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wtal.data.predictions import Detection
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.report.analysis import ALPHA, RECALLS
from wtal.report.detection_errors import KINDS
from wtal.report.scores import VideoScores
from wtal.report.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("timeline", "precision", "errors", "missed", "classes", "training", "results")
"""The figures that :func:`draw` knows."""

SUFFIXES = (".png", ".svg", ".pdf")

_COLOR = {"truth": "#1d8a5f", "cbp": "#1f6fc4", "vlp": "#c9640c", "ensemble": "#7b4bb3", "miss": "#b3402f"}
_KIND_COLOR = ("#1d8a5f", "#7b4bb3", "#c2478a", "#1f6fc4", "#c98a0c", "#8a94a3")
_NAME = {"cbp": "CBP", "vlp": "VLP", "ensemble": "Ensemble"}
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text is stored as text, not as outlines
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a "$" in a name from the data is no formula
}


@dataclass(frozen=True)
class Choice:
    """The options of a figure.

    Attributes:
        source: ``cbp``, ``vlp`` or ``ensemble``; None: the branch of the run's settings.
        video: id of the video; None: the first test video.
        label: the class; None: the first label of the video in a timeline, else the mean over classes.
        span: first and last second of a timeline; None: the whole video.
        tiou: tIoU threshold of precision and recall; None: that of the error analysis.
    """

    source: str | None = None
    video: str | None = None
    label: str | None = None
    span: tuple[float, float] | None = None
    tiou: float | None = None


def draw(figure: str, studies: Sequence[Study], out: Path, choice: Choice) -> None:
    """Draw one figure into a file.

    Args:
        figure: one of :data:`FIGURES`.
        studies: one run; for ``precision``, ``training`` and ``results`` also several runs, overlaid.
        out: the file to write. Its extension, one of :data:`SUFFIXES`, determines the format.
        choice: the options of the figure.

    Raises:
        WtalError: the figure, format, video or class is unknown, or the run lacks the data of the figure.
    """
    if figure not in FIGURES:
        raise WtalError(f"figure {figure!r}, expected one of {', '.join(FIGURES)}")
    if out.suffix not in SUFFIXES:
        raise WtalError(f"{out}: expected a file called {', '.join(SUFFIXES)}")
    if len(studies) > 1 and figure not in ("precision", "training", "results"):
        raise WtalError(f"figure {figure!r} is of one run, got {len(studies)}")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from wtal.platform.files import check_writable, write_atomically

    check_writable(out)
    drawing: Callable[[Figure], None] = {
        "timeline": lambda figure: _timeline(figure, studies[0], choice),
        "precision": lambda figure: _precision(figure, studies, choice),
        "errors": lambda figure: _errors(figure, studies[0], choice),
        "missed": lambda figure: _missed(figure, studies[0], choice),
        "classes": lambda figure: _classes(figure, studies[0], choice),
        "training": lambda figure: _training(figure, studies),
        "results": lambda figure: _results(figure, studies),
    }[figure]
    with rc_context(_STYLE):
        canvas = Figure(layout="constrained", dpi=200)
        drawing(canvas)
        image = io.BytesIO()
        canvas.savefig(image, format=out.suffix[1:], metadata={"Date": None} if out.suffix == ".svg" else None)
    write_atomically(out, image.getvalue())


def _short(name: str, most: int = 40) -> str:
    """A name, shortened to at most ``most`` characters so that it leaves room for the figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _source(study: Study, choice: Choice) -> str:
    source = choice.source or study.run.config.localize.branch
    if source not in study.sources:
        raise WtalError(f"{study.name}: no scores of {source!r}, it has {', '.join(study.sources) or study.trouble}")
    return source


def _analysed(study: Study, choice: Choice) -> str:
    source = _source(study, choice)
    if not study.analyses:
        raise WtalError(f"{study.name}: {study.trouble}")
    return source


def _timeline(figure: Figure, study: Study, choice: Choice) -> None:
    source = _source(study, choice)
    assert study.data is not None
    item, label = chosen(study, choice)
    index = study.data.classes.index(label)
    drawn = [detection for detection in study.detections[source][item.video.id] if detection.label == label]
    truth = [instance for instance in item.video.instances or () if instance.label == label]
    lanes = item.sources
    figure.set_size_inches(6.5, 1.1 + 0.62 * len(lanes))
    axes = figure.subplots(len(lanes) + 2, 1, sharex=True, height_ratios=[0.45, *([1] * len(lanes)), 1])
    axes[0].broken_barh([(i.start, i.end - i.start) for i in truth], (0, 1), color=_COLOR["truth"])
    _lane(axes[0], "truth", _COLOR["truth"])
    centers = item.video.timebase.center(np.arange(len(item.of(source)[0]), dtype=float))
    thresholds = study.run.config.localize.theta_loc
    for lane, name in zip(axes[1:], lanes, strict=False):
        frames = item.of(name)[0][:, index].numpy()
        spread = np.ptp(frames)
        scaled = (frames - frames.min()) / spread if spread > 0 else 0 * frames
        lane.fill_between(centers, scaled, color=_COLOR[name], alpha=0.18, linewidth=0)
        lane.plot(centers, scaled, color=_COLOR[name])
        if name == source:
            for level in (min(thresholds), max(thresholds)):
                lane.axhline(level, color="0.3", linewidth=0.6, dashes=(4, 3))
        lane.set_ylim(0, 1.08)
        _lane(lane, _NAME[name], _COLOR[name])
    _bars(axes[-1], drawn, matches(drawn, truth))
    _lane(axes[-1], "detections", "0.3")
    axes[-1].set_xlabel(f"seconds of {_short(item.video.id)}, {_short(label)}, detections of {_NAME[source]}")
    axes[-1].spines["bottom"].set_visible(True)
    end = max([item.video.timebase.edge(len(centers)), *(i.end for i in truth)])
    axes[-1].set_xlim(choice.span or (0, end))


def chosen(study: Study, choice: Choice) -> tuple[VideoScores, str]:
    """The video and the class of a timeline.

    Raises:
        WtalError: the video or the class does not exist.
    """
    assert study.data is not None
    by_id = {item.video.id: item for item in study.scored}
    video = choice.video if choice.video is not None else next(iter(by_id))
    if video not in by_id:
        raise WtalError(f"--video {video}: not a test video of {study.data.name}; the first is {next(iter(by_id))}")
    item = by_id[video]
    label = choice.label
    if label is None:
        level = item.of(item.sources[-1])[1]
        label = item.video.labels[0] if item.video.labels else study.data.classes[int(level.argmax())]
    if label not in study.data.classes:
        raise WtalError(f"--label {label}: not a class of {study.data.name}; it has {', '.join(study.data.classes)}")
    return item, label


def _lane(axes: Axes, name: str, color: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", color=color)
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(bottom=False)


def matches(detections: Sequence[Detection], truth: Sequence[Instance], alpha: float = ALPHA) -> list[bool]:
    """For each detection of one video and class, whether the evaluation matches it to an instance."""
    from wtal.ops.matching import match_detections

    if not detections or not truth:
        return [False] * len(detections)
    zeros, none = [0] * len(detections), [0] * len(truth)
    segments, spans = [(d.start, d.end) for d in detections], [(i.start, i.end) for i in truth]
    taken = match_detections(segments, [d.score for d in detections], zeros, zeros, spans, none, none, [alpha])
    return [index >= 0 for index in taken[0].tolist()]


def _bars(axes: Axes, detections: Sequence[Detection], hits: Sequence[bool]) -> None:
    """Draw detections as bars in rows, the best on top. A bar is filled if its detection matches an instance."""
    rows: list[list[Detection]] = []
    best = detections[0].score if detections else 1.0
    for detection, hit in zip(detections, hits, strict=True):
        row = next((r for r in rows if all(detection.start >= o.end or detection.end <= o.start for o in r)), None)
        if row is None:
            if len(rows) == 5:
                continue
            rows.append(row := [])
        row.append(detection)
        color = _COLOR["truth" if hit else "miss"]
        place = -float([r is row for r in rows].index(True))
        axes.broken_barh(
            [(detection.start, detection.end - detection.start)],
            (place - 0.8, 0.7),
            facecolor=color if hit else "none",
            edgecolor=color,
            linewidth=0.7,
            alpha=0.35 + 0.65 * min(detection.score / best, 1.0) if best > 0 else 1.0,
        )
    axes.set_ylim(-max(len(rows), 1) - 0.1, 0.1)


def _precision(figure: Figure, studies: Sequence[Study], choice: Choice) -> None:
    figure.set_size_inches(3.3, 2.5)
    axes = figure.subplots()
    lines = (
        [(_short(study.name, 24), study, _analysed(study, choice), None) for study in studies]
        if len(studies) > 1
        else [(_NAME[source], studies[0], source, _COLOR[source]) for source in studies[0].analyses]
    )
    if not lines:
        raise WtalError(f"{studies[0].name}: {studies[0].trouble}")
    for name, study, source, color in lines:
        analysis = study.analyses[source]
        tiou = choice.tiou or analysis.alpha
        if tiou not in analysis.tiou:
            raise WtalError(f"--tiou {tiou:g}: the run was evaluated at {', '.join(f'{t:g}' for t in analysis.tiou)}")
        rows = analysis.precision[:, analysis.tiou.index(tiou)]
        if choice.label is not None:
            if choice.label not in analysis.classes:
                raise WtalError(f"--label {choice.label}: no instance of it; there are {', '.join(analysis.classes)}")
            rows = rows[[analysis.classes.index(choice.label)]]
        axes.plot(RECALLS, rows.mean(0), label=name, color=color)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=f"recall at tIoU {tiou:g}", ylabel="precision")
    axes.legend()


def _errors(figure: Figure, study: Study, choice: Choice) -> None:
    analysis = study.analyses[_analysed(study, choice)]
    figure.set_size_inches(5.6, 2.4)
    columns, gains = figure.subplots(1, 2, width_ratios=[1.5, 1])
    totals = np.maximum(analysis.by_rank.sum(1), 1)
    bottom = np.zeros(len(totals))
    names = [f"{rank + 1}G" for rank in range(len(totals))]
    for index, kind in enumerate(KINDS):
        share = 100 * analysis.by_rank[:, index] / totals
        columns.bar(names, share, 0.76, bottom=bottom, color=_KIND_COLOR[index], label=kind)
        bottom += share
    columns.set(ylim=(0, 100), ylabel="detections (%)", xlabel="rank, in units of G instances")
    kinds = KINDS[:0:-1]
    gains.barh(kinds, [analysis.gains[kind] for kind in kinds], color=[_KIND_COLOR[KINDS.index(k)] for k in kinds])
    gains.set_xlabel(f"mAP at {analysis.alpha:g} gained without it")
    handles, labels = columns.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, handlelength=0.8, columnspacing=1.0, fontsize=7)


def _missed(figure: Figure, study: Study, choice: Choice) -> None:
    analysis = study.analyses[_analysed(study, choice)]
    figure.set_size_inches(5.6, 1.9)
    titles = ("length of the instance", "instances of the class in the video")
    for axes, bins, title in zip(figure.subplots(1, 2), (analysis.by_length, analysis.by_count), titles, strict=True):
        shares = [100 * item.missed / item.instances if item.instances else 0.0 for item in bins]
        bars = axes.bar([item.name for item in bins], shares, 0.7, color=_COLOR["miss"])
        axes.bar_label(bars, [f"of {item.instances}" for item in bins], fontsize=6, color="0.3")
        axes.set(xlabel=title, ylabel=f"missed at {analysis.alpha:g} (%)")
        axes.margins(y=0.15)


def _classes(figure: Figure, study: Study, choice: Choice) -> None:
    source = _analysed(study, choice)
    analysis = study.analyses[source]
    means = analysis.ap.mean(1)
    order = np.argsort(means)
    figure.set_size_inches(3.6, 0.6 + 0.17 * len(order))
    axes = figure.subplots()
    axes.barh(range(len(order)), means[order], 0.7, color=_COLOR[source])
    axes.set_yticks(range(len(order)), [_short(analysis.classes[index]) for index in order])
    axes.set(xlabel=f"average precision (%), mean over tIoU, {_NAME[source]}", ylim=(-0.6, len(order) - 0.4))


def _training(figure: Figure, studies: Sequence[Study]) -> None:
    figure.set_size_inches(4.5, 2.2)
    axes = figure.subplots()
    for number, study in enumerate(studies):
        epoch = 0
        for stage, terms in study.curves.items():
            values = terms.get("loss", [])
            if stage == "control" or not values:
                continue
            epochs = np.arange(epoch + 1, epoch + len(values) + 1)
            axes.plot(epochs, values, color=f"C{number}", label=_short(study.name, 24) if epoch == 0 else None)
            if number == 0:
                middle = epoch + (len(values) + 1) / 2
                name = "warm-up" if stage == "warmup" else stage
                axes.text(middle, 1.0, name, ha="center", va="bottom", transform=axes.get_xaxis_transform())
                axes.axvline(epoch + 0.5, color="0.8", linewidth=0.6)
            epoch += len(values)
    if not axes.lines:
        raise WtalError(f"{studies[0].name}: no training curves in its tensorboard folder")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.set_ylim(bottom=0)
    if len(studies) > 1:
        axes.legend()


def _results(figure: Figure, studies: Sequence[Study]) -> None:
    names = list(dict.fromkeys(row["name"] for study in studies for row in study.rows))[::-1]
    if not names:
        raise WtalError(f"{studies[0].name}: no result yet")
    figure.set_size_inches(4.2, 0.9 + 0.2 * len(names) * max(1, len(studies) / 2))
    axes = figure.subplots()
    width = 0.76 / len(studies)
    for number, study in enumerate(studies):
        means = {row["name"]: np.nan if row["mean"] is None else row["mean"] for row in study.rows}
        places = np.arange(len(names)) + (len(studies) - 1 - 2 * number) * width / 2
        branch = {row["name"]: row["branch"] for row in study.rows}
        colors = [_COLOR.get(branch.get(name, ""), _COLOR["cbp"]) for name in names]
        bars = axes.barh(
            places,
            [means.get(name, np.nan) for name in names],
            width,
            color=colors if len(studies) == 1 else f"C{number}",
            label=_short(study.name, 24),
        )
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_xlabel("mAP (%)")
    if len(studies) > 1:
        axes.legend()
