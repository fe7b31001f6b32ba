"""``wtal-predict``: detections in features, as official ActivityNet JSON or CSV."""

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
    """Find the actions in videos whose features lie in a folder, with a trained model.

    Each FEATURES/<video>.npy holds I3D features [T, D], one row a snippet, in video order. Where snippets lie in time
    follows from --fps, --stride and --window, which are those of the training videos unless given.
    """

    model: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT")] = None
    """Run folder, or checkpoint (.safetensors)."""
    features: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FEATURES")] = None
    """Folder of <video>.npy, or one such file."""
    out: Path = Path("predictions.json")
    """File to write: .json (official ActivityNet format) or .csv (video,start,end,label,score); seconds."""
    clip: Path | None = None
    """Folder of CLIP features <video>.npy, needed by --branch vlp and ensemble."""
    fps: float | None = None
    """Frames a second of the frames that the features were made from; else as in training."""
    stride: float | None = None
    """Frames from one snippet to the next; else as in training."""
    window: float | None = None
    """Frames that one snippet sees; else as in training."""
    clip_fps: float | None = None
    """Rows of the CLIP features a second; else as in training."""
    branch: Literal["cbp", "vlp", "ensemble"] | None = None
    """Whose scores; else as the run was configured."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print what was written as JSON for scripts."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM, alone=True)


def command(arguments: Sequence[str]) -> int:
    """Predict and write."""
    options = parse(Options, PROGRAM, arguments)
    if options.model is None or options.features is None:
        raise WtalError(
            f"expected a run folder or checkpoint, and a folder of features (all options: {PROGRAM} --help)"
        )

    import json

    from rich.console import Console

    from wtal.data.predictions import write_predictions
    from wtal.inference.saved_model import detect_in_folder
    from wtal.platform.files import check_writable

    grid = {name: getattr(options, name) for name in ("fps", "stride", "window", "clip_fps")}
    if options.out.suffix not in (".json", ".csv"):
        raise WtalError(f"--out {options.out}: expected a file called .json or .csv")
    check_writable(options.out)
    found = detect_in_folder(options.model, options.features, options.clip, grid, options.branch, options.device)
    write_predictions(options.out, found)
    count = sum(map(len, found.values()))
    if options.json:
        print(json.dumps({"out": str(options.out), "videos": len(found), "detections": count}))
    elif not options.quiet:
        told = f"{options.out}: {count} detections in {len(found)} videos"
        Console().print(told, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
