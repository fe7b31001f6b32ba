"""``wtal-extract``: extract I3D and CLIP features from video files, for training and prediction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from wtal.cli.parsing import parse, run
from wtal.errors import WtalError
from wtal.features.options import Extraction

PROGRAM = "wtal-extract"


@dataclass(frozen=True)
class Options(Extraction):
    """Extract I3D (RGB and TV-L1 flow) and CLIP features from videos, one row per snippet of 16 frames at 25 fps.

    wtal-extract VIDEOS --out ROOT --i3d-rgb rgb.pt --i3d-flow flow.pt writes ROOT/i3d and ROOT/clip. It also writes
    ROOT/dataset.toml, for wtal-train --dataset ROOT/dataset.toml, if it knows which actions occur: give --labels, or
    fill in ROOT/labels.csv and run the command again. Complete features are not computed twice. Videos that cannot be
    read are listed at the end, and the exit code is 1 then. Under torchrun every process extracts a part of the videos.
    """

    shard: str | None = None
    """i/n: only the i-th of n parts of the list, i from 1."""
    threads: int | None = None
    """CPU threads of the networks; default: torch's choice."""
    quiet: bool = False
    """Print nothing but errors."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Extract the features; returns 1 if a video failed."""
    options = parse(Options, PROGRAM, arguments)
    if options.threads is not None and options.threads < 1:
        raise WtalError(f"--threads {options.threads}: expected 1 or more")

    from wtal.features.shard import this_shard

    shard = this_shard(options.shard)

    import torch
    from rich.console import Console

    from wtal.features.extract import extract
    from wtal.platform.messages import counted
    from wtal.platform.progress import Reporter

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    elif shard.local_count > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // shard.local_count))
    reporter = Reporter(Console(), options.quiet)
    summary = extract(options, shard, reporter)
    reporter.say(
        f"{options.folder}: {counted(summary.extracted, 'video')} extracted"
        f"{f' ({summary.damaged} of them damaged)' if summary.damaged else ''}, {summary.skipped} done before, "
        f"{len(summary.failed)} failed"
        f"{f'; {len(summary.misfits)} with I3D features of another length' if summary.misfits else ''}"
    )
    if summary.form is not None:
        without = " (videos that failed need no label)" if summary.failed else ""
        reporter.say(
            f"Now fill in {summary.form}{without} and run this command again: "
            f"it writes {options.folder / 'dataset.toml'} then"
        )
    for misfit in summary.misfits:  # again, because the first time may be a thousand lines up
        print(f"{PROGRAM}: {misfit}", file=sys.stderr)
    for path, reason in summary.failed:
        print(f"{PROGRAM}: failed: {path}: {reason}", file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
