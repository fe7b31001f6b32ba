"""``wtal-report``: one HTML page, or a figure for a paper, about one run or several runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wtal.cli.parsing import parse, run
from wtal.errors import WtalError

PROGRAM = "wtal-report"

FIGURES_OF: dict[str, tuple[str, ...]] = {
    "video": ("timeline",),
    "label": ("timeline", "precision"),
    "branch": ("timeline", "precision", "errors", "missed", "classes"),
    "span": ("timeline",),
    "tiou": ("precision",),
}
"""The options that only figures heed, and the figures that do."""


@dataclass(frozen=True)
class Options:
    """See what a model does: results, errors, curves, and a timeline of every test video.

    ``wtal-report RUN`` writes one HTML file that works without a network. In its timeline, thresholds and suppression
    can be changed, and the detections are updated. ``wtal-report RUN RUN ...`` compares several runs. ``--figure``
    draws a single figure instead, into a PNG, SVG or PDF file.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")] = ()
    """Run folders of wtal-train."""
    out: Path | None = None
    """File to write; default: report.html in the run folder, or in the current folder for several runs. Required for a
    figure."""
    videos: Path | None = None
    """Folder of the source videos <id>.mp4 (.webm, .mkv, .mov, .avi); the timeline links to them."""
    limit: int = 200
    """The timeline has at most this many videos, evenly spaced in the list of all test videos."""
    figure: Literal["timeline", "precision", "errors", "missed", "classes", "training", "results"] | None = None
    """Draw this figure instead of the page."""
    video: str | None = None
    """With --figure timeline: the id of the video; default: the first video."""
    label: str | None = None
    """With --figure timeline or precision: the class."""
    branch: Literal["cbp", "vlp", "ensemble"] | None = None
    """With --figure, except training and results: the branch whose detections are shown; default: the run's setting."""
    span: tuple[float, float] | None = None
    """With --figure timeline: first and last second; default: the whole video."""
    tiou: float | None = None
    """With --figure precision: the tIoU threshold; default: 0.5."""
    root: Path | None = None
    """Folder of the data of the runs, if they have moved since training."""
    ambiguous: Literal["keep", "drop"] | None = None
    """drop leaves out detections that overlap an interval of Ambiguous_test.txt beside the ground truth; default: the
    run's setting."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the path of the file, and the mAP of each branch, as JSON for scripts."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM, alone=True)


def command(arguments: Sequence[str]) -> int:
    """Open the runs, and write the page or the figure."""
    options = parse(Options, PROGRAM, arguments)
    if not options.runs:
        raise WtalError(f"expected the folder of a run (all options: {PROGRAM} --help)")
    if options.limit < 1:
        raise WtalError(f"--limit {options.limit}: expected at least 1")
    if options.videos is not None and not options.videos.is_dir():
        raise WtalError(f"--videos {options.videos}: no such folder")
    if options.figure is not None and options.out is None:
        raise WtalError(f"--figure {options.figure} needs --out FILE.png, .svg or .pdf")
    for name, figures in FIGURES_OF.items():
        if getattr(options, name) is not None and options.figure not in figures:
            raise WtalError(f"--{name} goes with --figure {' or '.join(figures)}")
    out = options.out or (options.runs[0] if len(options.runs) == 1 else Path()) / "report.html"

    from rich.console import Console

    from wtal.platform.as_json import dumps
    from wtal.platform.files import check_writable, write_atomically
    from wtal.platform.progress import Reporter
    from wtal.report.figures import Choice, draw
    from wtal.report.html import html
    from wtal.report.payload import payload
    from wtal.report.study import studies

    check_writable(out)
    reporter = Reporter(Console(), options.quiet or options.json)
    opened = studies(options.runs, options.device, reporter, options.root, options.ambiguous)
    if options.figure is not None:
        choice = Choice(options.branch, options.video, options.label, options.span, options.tiou)
        draw(options.figure, opened, out, choice)
    else:
        title = " · ".join(opened_run.name for opened_run in opened)
        write_atomically(out, html(payload(opened, options.limit, options.videos), f"{title} – wtal").encode())
    if options.json:
        runs = [
            {"run": str(folder), "mean": {source: opened_run.analyses[source].mean for source in opened_run.analyses}}
            for folder, opened_run in zip(options.runs, opened, strict=True)
        ]
        print(dumps({"out": str(out), "runs": runs}, indent=1))
    else:
        reporter.say(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
