"""``wtal-predict``: detect actions in the features of videos; writes official ActivityNet JSON or CSV."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wtal.cli.parsing import parse, run
from wtal.errors import WtalError

PROGRAM = "wtal-predict"


@dataclass(frozen=True)
class Options:
    """Find the actions in videos whose features are in a folder, with a trained model.

    Each FEATURES/<video>.npy has I3D features [T, D], one row per snippet, in temporal order. --fps, --stride and
    --window determine the time of each snippet; their defaults are the values of the training videos. Files that cannot
    be used are listed at the end, and the exit code is 1 then.
    """

    model: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT")] = None
    """Run folder, or checkpoint (.safetensors)."""
    features: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FEATURES")] = None
    """Folder of <video>.npy, or one such file."""
    out: Path = Path("predictions.json")
    """File to write: .json (official ActivityNet format) or .csv (video,start,end,label,score); seconds."""
    clip: Path | None = None
    """Folder of CLIP features <video>.npy, needed by --branch vlp and ensemble."""
    fps: str | None = None
    """Frame rate at which the features were extracted, in frames a second: a number, or the path of a CSV file
    (video,fps) with the rate of each video; default: as in training."""
    stride: float | None = None
    """Frames from one snippet to the next; default: as in training."""
    window: float | None = None
    """Frames in one snippet; default: as in training."""
    clip_fps: float | None = None
    """Rows of the CLIP features a second; default: as in training."""
    branch: Literal["cbp", "vlp", "ensemble"] | None = None
    """The branch whose scores are used; default: the run's setting."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print a summary as JSON for scripts."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM, alone=True)


def command(arguments: Sequence[str]) -> int:
    """Detect the actions and write them; returns 1 if a file could not be used."""
    options = parse(Options, PROGRAM, arguments)
    if options.model is None or options.features is None:
        raise WtalError(
            f"expected a run folder or checkpoint, and a folder of features (all options: {PROGRAM} --help)"
        )

    import json

    from rich.console import Console

    from wtal.data.predictions import write_predictions
    from wtal.inference.saved_model import detect_in_folder, read_rates
    from wtal.platform.files import check_writable

    fps, rates = _number(options.fps), None
    if options.fps is not None and fps is None:
        rates = read_rates(Path(options.fps))
    grid = {"fps": fps, **{name: getattr(options, name) for name in ("stride", "window", "clip_fps")}}
    if options.out.suffix not in (".json", ".csv"):
        raise WtalError(f"--out {options.out}: expected a file called .json or .csv")
    check_writable(options.out)
    result = detect_in_folder(
        options.model, options.features, options.clip, grid, options.branch, options.device, rates
    )
    detections, failed = result.detections, result.failed
    for note in result.notes:
        print(f"{PROGRAM}: note: {note}", file=sys.stderr)
    for path, reason in failed.items():
        print(f"{PROGRAM}: failed: {reason if str(path) in reason else f'{path}: {reason}'}", file=sys.stderr)
    if not detections:
        raise WtalError(f"{options.features}: none of its {len(failed)} feature files can be used")
    write_predictions(options.out, detections)
    count = sum(map(len, detections.values()))
    if options.json:
        summary = {"out": str(options.out), "videos": len(detections), "detections": count, "failed": len(failed)}
        print(json.dumps(summary))
    elif not options.quiet:
        line = f"{options.out}: {count} detections in {len(detections)} videos" + (
            f", {len(failed)} failed" if failed else ""
        )
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
    return int(bool(failed))


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
