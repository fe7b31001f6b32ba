"""The whole job: from a list of video files to a folder of features that training and prediction read."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from wtal.data.timebase import Timebase
from wtal.device import Device, choose_device, describe
from wtal.errors import WtalError
from wtal.features.decode import VideoReader, probe_seconds
from wtal.features.describe import place_labels, write_description
from wtal.features.flow_pool import FlowPool, Pending
from wtal.features.manifest import claim, is_complete, sha256
from wtal.features.networks import Network, clip_network, flow_network, rgb_network
from wtal.features.options import Extraction, Stream, check
from wtal.features.pipeline import Finished, run
from wtal.features.shard import Shard, wait_for_all
from wtal.features.snippets import Cut, Piece, SubmitFlow, cut
from wtal.features.targets import Target, check_there, find_videos, layout_targets, own_targets
from wtal.features.write import remove_leftovers, write_features, write_joint
from wtal.progress import Reporter, Work

SHARED_FILES = ("manifest.json", "dataset.toml", "labels.csv", "labels.json")
"""Files of the folder that every shard writes, with the same bytes."""

_PACKAGES = ("wtal", "torch", "numpy", "av", "opencv-contrib-python-headless", "open_clip_torch")


@dataclass
class Summary:
    """What became of this shard's videos."""

    extracted: int = 0
    skipped: int = 0
    damaged: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


def extract(job: Extraction, shard: Shard, reporter: Reporter) -> Summary:
    """Extract the features of every video that is not done yet.

    Raises:
        WtalError: the options, weights or annotations are wrong. What is wrong with one video is in the summary.
    """
    check(job)
    videos = find_videos(job.videos)
    check_there(videos)
    grid = Timebase(job.fps, job.stride, job.window)
    if job.layout == "own":
        targets = own_targets(videos, job.folder, grid)
    else:
        targets, absent = layout_targets(videos, job.folder, job.layout, job.dataset)
        if absent:
            reporter.say(f"{len(absent)} annotated videos have no file here: {', '.join(absent[:3])}, ...")
    device = _device(job, shard)
    for name in SHARED_FILES:  # other shards may be writing them this moment
        remove_leftovers(job.folder / name, older_than=60)
    claim(job.folder, _settings(job, device))
    if job.layout == "own":
        labels = place_labels(job.folder, job.labels, videos)
        _, changed = write_description(
            job.folder, job.name or job.folder.resolve().name, labels, grid, job.clip, job.clip_fps
        )
        if changed:
            reporter.say(f"{job.folder / 'dataset.toml'} was changed by hand and stays as it is")
    mine = shard.of(targets)
    left = [target for target in mine if not is_complete(job.folder, target, job.verify)]
    summary = Summary(skipped=len(mine) - len(left))
    if left:
        _extract(job, shard, device, left, summary, reporter)
    wait_for_all(shard)
    if job.layout == "wtalc":
        path, missing = write_joint(job.folder, job.dataset)
        if missing:
            reporter.say(f"{path} is written once the {missing} annotated videos without features have them")
    return summary


def _device(job: Extraction, shard: Shard) -> Device:
    name = job.device
    if shard.launched and name in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            name = f"cuda:{shard.local_rank % torch.cuda.device_count()}"
    return choose_device(name, job.precision)


def _settings(job: Extraction, device: Device) -> dict[str, Any]:
    """All that features in one folder have in common."""
    own = job.layout == "own"
    given = {"rgb": job.i3d_rgb, "flow": job.i3d_flow, "clip": job.clip_weights}
    options = {"rgb": "--i3d-rgb", "flow": "--i3d-flow", "clip": "--clip-weights"}
    weights = {stream: given[stream] for stream in job.streams}
    for stream, path in weights.items():
        if path is not None and not path.is_file():
            raise WtalError(f"{options[stream]} {path}: no such file")
    return {
        "layout": job.layout if own else f"{job.layout} of {job.dataset}",
        "modality": job.modality,
        "fps": job.fps if own else None,
        "stride": job.stride if own else None,
        "window": job.window if own else None,
        "short_side": job.short_side,
        "crop": job.crop,
        "flow": "tvl1" if "flow" in job.streams else None,
        "i3d": "Inception-v1 I3D",
        "clip_model": job.clip_model if job.clip else None,
        "clip_fps": job.clip_fps,
        "dtype": job.dtype,
        "precision": "bf16 autocast" if device.bf16 else "float32",
        "weights": {stream: sha256(path) if path else "openai, by open_clip" for stream, path in weights.items()},
    }


def _networks(job: Extraction, device: Device) -> dict[Stream, Network]:
    on_gpu = device.name.type == "cuda"
    networks: dict[Stream, Network] = {}
    if "rgb" in job.streams and job.i3d_rgb:
        networks["rgb"] = rgb_network(job.i3d_rgb, device, job.batch or (16 if on_gpu else 1))
    if "flow" in job.streams and job.i3d_flow:
        networks["flow"] = flow_network(job.i3d_flow, device, job.batch or (16 if on_gpu else 1))
    if job.clip:
        networks["clip"] = clip_network(job.clip_model, job.clip_weights, device, job.batch or (64 if on_gpu else 1))
    return networks


def _extract(
    job: Extraction, shard: Shard, device: Device, targets: list[Target], summary: Summary, reporter: Reporter
) -> None:
    workers = job.workers or max(1, len(os.sched_getaffinity(0)) // shard.local_count)
    reporter.say(f"{len(targets)} videos to extract, {summary.skipped} done already; {describe(device)}")
    with ExitStack() as stack:
        pool = stack.enter_context(FlowPool("tvl1", workers)) if "flow" in job.streams else None
        networks = _networks(job, device)
        common = {"device": describe(device), "flow": pool.identity if pool else None, "versions": _versions()}
        seconds = {target.id: probe_seconds(target.source) or 0.0 for target in targets}
        total = sum(round(seconds[target.id] * target.timebase.fps) for target in targets)
        meter = _Meter(stack.enter_context(reporter.work("extracting", total, "frames")), targets, seconds, job)

        def finished(target: Target, done: Finished[dict[str, Any]]) -> None:
            write_features(job.folder, target, done.features, job.dtype, {"video": target.id, **done.facts, **common})
            summary.extracted += 1
            source = done.facts["source"]
            if source["damaged_packets"] or source["filled_frames"]:
                summary.damaged += 1
                reporter.say(
                    f"{target.source}: damaged: {source['damaged_packets']} packets could not be decoded as they should, "
                    f"{source['filled_frames']} of {done.facts['frames']} frames are the frame before again"
                )
            meter.settle(target)

        def failed(target: Target, error: Exception) -> None:
            reason = " ".join(str(error).split())
            summary.failed.append((target.source, reason))
            reporter.say(f"{target.source}: {reason}")
            meter.settle(target)

        def pieces(target: Target) -> tuple[Iterator[Piece], Callable[[], dict[str, Any]]]:
            return _open(job, target, pool)

        depth = len(networks) * (2 * workers + 2)
        run(targets, pieces, networks, depth, finished, failed, meter.piece)


def _open(
    job: Extraction, target: Target, pool: FlowPool | None
) -> tuple[Iterator[Piece], Callable[[], dict[str, Any]]]:
    """Pieces of one video, and what its entry in the manifest says of it."""
    digest = sha256(target.source)
    grid = target.timebase
    fps = Fraction(grid.fps).limit_denominator(100_000)
    reader = VideoReader(target.source, fps, job.short_side, job.allow_truncated)
    what = Cut(
        stride=int(grid.stride),
        window=int(grid.window),
        crop=job.crop,
        rgb="rgb" in job.streams,
        flow=_submitter(job, pool, digest, fps) if pool else None,
        clip=job.clip,
        clip_step=None if job.clip_fps is None else fps / Fraction(job.clip_fps).limit_denominator(100_000),
    )

    def facts() -> dict[str, Any]:
        found = reader.facts
        source = {"name": target.source.name, "bytes": target.source.stat().st_size, "sha256": digest}
        for name in ("codec", "width", "height", "fps", "source_frames", "seconds", "damaged_packets", "filled_frames"):
            source[name] = getattr(found, name)
        return {
            "source": source,
            "frames": found.frames,
            "grid": {"fps": grid.fps, "stride": int(grid.stride), "window": int(grid.window)},
        }

    return cut(reader, what), facts


def _submitter(job: Extraction, pool: FlowPool, digest: str, fps: Fraction) -> SubmitFlow:
    folder = None
    if job.flow_cache is not None:
        key = json.dumps([digest, str(fps), job.short_side, job.crop, pool.identity])
        folder = job.flow_cache / hashlib.sha256(key.encode()).hexdigest()[:32]

    def submit(block: int, frames: Any, repeat: bool) -> Pending:
        return pool.submit(frames, job.crop, repeat, folder / f"{block:06d}.npy" if folder else None)

    return submit


class _Meter:
    """Frames done, of all that the containers promise, and videos a second."""

    def __init__(self, work: Work, targets: list[Target], seconds: Mapping[str, float], job: Extraction) -> None:
        self._work = work
        self._left = {target.id: round(seconds[target.id] * target.timebase.fps) for target in targets}
        self._stream = job.streams[0]
        self._started = time.monotonic()
        self._videos = 0

    def piece(self, target: Target, piece: Piece) -> None:
        """A network took a piece; frames count once, by the first stream."""
        if piece.stream == self._stream:
            self._advance(target, min(int(target.timebase.stride), self._left[target.id]))

    def settle(self, target: Target) -> None:
        """A video is done, whatever its container promised."""
        self._videos += 1
        self._advance(target, self._left[target.id])

    def _advance(self, target: Target, frames: int) -> None:
        self._left[target.id] -= frames
        rate = self._videos / max(time.monotonic() - self._started, 1e-9)
        self._work.advance(frames, {"videos": self._videos, "videos/s": rate})


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
