"""The job behind ``wtal-extract``: from a list of video files to a folder of features for training and prediction."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from wtal.data.own_files import read_labels
from wtal.data.timebase import Timebase
from wtal.features.decode import VideoReader, import_av, probe_seconds
from wtal.features.describe import coverage, place_labels, write_description
from wtal.features.extraction_progress import ExtractionProgress
from wtal.features.flow_pool import FlowPool, Pending
from wtal.features.manifest import check_own, check_settings, claim, forget, hash_of, is_complete, sha256
from wtal.features.networks import Network, clip_network, flow_network, rgb_network
from wtal.features.options import Extraction, Stream, check, unused
from wtal.features.pipeline import Finished, queue_depth, run
from wtal.features.provenance import feature_settings, versions
from wtal.features.shard import Shard, wait_for_other_shards
from wtal.features.snippet_centres import Grid, centre_pieces
from wtal.features.snippets import Cut, Piece, SubmitFlow, cut
from wtal.features.sparse_reader import SparseReader
from wtal.features.video_list import Target, check_there, find_videos, layout_targets, own_targets
from wtal.features.write import joint_path, write_features, write_joint
from wtal.platform.device import Device, choose_device, describe
from wtal.platform.files import remove_temporaries
from wtal.platform.messages import counted, first_few
from wtal.platform.progress import Reporter

SHARED_FILES = ("manifest.json", "dataset.toml", "labels.csv", "labels.json", "labels.sha256")
"""Files in the folder of features that every shard writes, all with the same content."""

_TOLERATED_ROWS, _TOLERATED_SHARE = 2, 0.02
"""Existing I3D features may have another number of rows than the video's frames give. If the difference is larger than
both this number of rows and this share of the rows, the user is told."""


@dataclass
class Summary:
    """The outcome of this shard's videos: their numbers, and a message for each that failed or does not fit."""

    extracted: int = 0
    skipped: int = 0
    damaged: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)  # videos whose I3D features have another number of rows
    form: Path | None = field(default=None, compare=False)  # the file in which the user has to fill in the labels


def extract(job: Extraction, shard: Shard, reporter: Reporter) -> Summary:
    """Extract the features of all videos of this shard that are not complete yet.

    Raises:
        WtalError: the options, weights or annotations are wrong, or a file cannot be written. An error of a single
            video is not raised; the summary has it.
    """
    check(job)
    videos, targets, notes = _plan(job)
    device = choose_device(job.device, job.precision, shard.local_rank if shard.launched else None, cpu_bf16=True)
    settings = feature_settings(job, device)
    check_settings(job.folder, settings)
    made_with = hash_of(settings)
    mine = shard.of(targets)
    left = [target for target in mine if not is_complete(job.folder, target, job.clip, made_with, job.verify)]
    joint = joint_path(job.folder, job.dataset) if job.layout == "wtalc" and job.modality != "none" else None
    check_own(job.folder, left, job.clip, joint)
    summary = Summary(skipped=len(mine) - len(left))
    with ExitStack() as stack:
        pool = None
        if left and "flow" in job.streams:
            pool = stack.enter_context(FlowPool(job.flow_backend, _workers(job, shard)))
        networks = _networks(job, device) if left else {}  # before the first file is written, as weights may be wrong
        for name in SHARED_FILES:  # only old temporary files, as other shards may be writing now
            remove_temporaries(job.folder, name, older_than=60)
        claim(job.folder, settings)
        if job.layout == "own":
            notes += _describe(job, videos, summary)
        for note in notes if shard.index == 0 else ():
            reporter.say(note)
        if left:
            common = {
                "settings": made_with,
                "device": describe(device),
                "batch": {stream: network.batch for stream, network in networks.items()},
                "flow": pool.identity if pool else None,
                "versions": versions(job),
            }
            _extract(_Work(job, left, networks, pool, _workers(job, shard), common), summary, reporter)
    wait_for_other_shards(shard)
    if joint is not None and not (shard.launched and shard.index > 0):
        alone = shard.launched or shard.count == 1
        path, missing = write_joint(job.folder, job.dataset, older_than=0 if alone else 60)
        if missing:
            reporter.say(f"{path} is written once {counted(missing, 'annotated video')} more have features")
    return summary


def _plan(job: Extraction) -> tuple[dict[str, Path], list[Target], list[str]]:
    """All videos by id, the targets to extract, and notes for the user."""
    notes = unused(job)
    if job.modality == "rgb":
        notes.append(
            "--modality rgb: features are 1024 wide instead of 2048 and know nothing of motion; a model trained on "
            "RGB and flow does not take them"
        )
    if job.labels is not None:
        read_labels(job.labels)  # raises an error, if any, before the networks are loaded
    files = find_videos(job.videos)
    check_there(files.videos)
    if files.others:
        notes.append(f"{counted(len(files.others), 'file')} with other endings than a video's, e.g. {files.others[0]}")
    if job.layout == "own":
        return files.videos, own_targets(files.videos, job.folder, _grid(job)), notes
    planned = layout_targets(files.videos, job.folder, job.layout, job.dataset, only_clip=job.modality == "none")
    if planned.absent:
        notes.append(
            f"{counted(len(planned.absent), 'annotated video')} without a file here: {first_few(planned.absent)}"
        )
    if planned.unnamed:
        unnamed = counted(len(planned.unnamed), "video")
        notes.append(
            f"{unnamed} passed over, which the annotations do not train or test on: {first_few(planned.unnamed)}"
        )
    if planned.featureless:
        without = counted(len(planned.featureless), "video")
        notes.append(
            f"{without} without I3D features here, whose frames alone say how many CLIP rows: "
            f"{first_few(planned.featureless)}"
        )
    return files.videos, planned.targets, notes


def _grid(job: Extraction) -> Timebase:
    return Timebase(job.fps, job.stride, job.window)


def _workers(job: Extraction, shard: Shard) -> int:
    return job.workers or max(1, len(os.sched_getaffinity(0)) // shard.local_count)


def _describe(job: Extraction, videos: Mapping[str, Path], summary: Summary) -> list[str]:
    """Write the labels and ``dataset.toml``; returns notes for the user."""
    notes = []
    labels, kept = place_labels(job.folder, job.labels, videos)
    if kept:
        notes.append(f"{labels} was changed by hand and stays as it is; remove it to have {job.labels} there")
    known = coverage(labels, videos)
    if len(known.unlabelled) == len(videos) and not known.strangers:
        summary.form = labels
    elif known.unlabelled:
        number = f"{len(known.unlabelled)} of {counted(len(videos), 'video')}"
        notes.append(f"{labels}: no label for {number}: {first_few(known.unlabelled)}")
    if known.strangers:
        strangers = counted(len(known.strangers), "video")
        notes.append(f"{labels}: labels of {strangers} not among these: {first_few(known.strangers)}")
    name = job.name or job.folder.resolve().name
    if write_description(job.folder, name, labels, _grid(job), job.clip, job.clip_fps):
        notes.append(f"{job.folder / 'dataset.toml'} was changed by hand and stays as it is")
    return notes


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


@dataclass(frozen=True)
class _Work:
    """Targets and the means to extract them; ``common`` has the facts that the manifest entries of all videos share."""

    job: Extraction
    targets: list[Target]
    networks: dict[Stream, Network]
    pool: FlowPool | None
    workers: int
    common: dict[str, Any]


def _extract(work: _Work, summary: Summary, reporter: Reporter) -> None:
    job, targets = work.job, work.targets
    left, device = counted(len(targets), "video"), work.common["device"]
    reporter.say(f"{left} to extract, {summary.skipped} done already; {device}")
    seconds = {target.id: probe_seconds(target.source) or 0.0 for target in targets}
    total = sum(round(seconds[target.id] * target.timebase.fps) for target in targets)
    with reporter.work("extracting", total, "frames") as bar:
        progress = ExtractionProgress(bar, targets, seconds, job.streams[0])

        def finished(target: Target, done: Finished[dict[str, Any]]) -> None:
            facts = {"video": target.id, **done.facts, **work.common}
            write_features(job.folder, target, done.features, job.dtype, facts)
            summary.extracted += 1
            source, grid = done.facts["source"], done.facts["grid"]
            fitting = Grid(grid["stride"], grid["window"]).count(done.facts["frames"])
            if abs(grid.get("rows", fitting) - fitting) > max(_TOLERATED_ROWS, _TOLERATED_SHARE * fitting):
                summary.misfits.append(
                    f"{target.source}: its I3D features have {grid['rows']} rows, its {done.facts['frames']} frames "
                    f"make {fitting}; is it the same video, at the same rate?"
                )
                reporter.say(summary.misfits[-1])
            if source["missing_seconds"]:
                reporter.say(f"{target.source}: truncated, {source['missing_seconds']:.1f} s are missing at its end")
            if source["damaged_packets"] or source["filled_frames"]:
                summary.damaged += 1
                reporter.say(
                    f"{target.source}: {counted(source['damaged_packets'], 'damaged packet')}; "
                    f"{source['filled_frames']} of {done.facts['frames']} frames are the frame before again"
                )
            progress.settle(target)

        def failed(target: Target, error: Exception) -> None:
            reason = " ".join(str(error).split())
            summary.failed.append((target.source, reason))
            reporter.say(f"{target.source}: {reason}")
            progress.settle(target)

        def pieces(target: Target) -> tuple[Iterator[Piece], Callable[[], dict[str, Any]]]:
            forget(job.folder, target)  # features of another video with this name, or of other settings
            return _open(job, target, work.pool)

        run(targets, pieces, work.networks, _depth(work), finished, failed, progress.piece)


def _depth(work: _Work) -> int:
    def steps(target: Target) -> list[float]:
        rate = work.job.clip_fps
        grid = target.timebase
        return [grid.fps / rate if stream == "clip" and rate else grid.stride for stream in work.networks]

    return max(queue_depth(steps(target), work.workers) for target in work.targets)


def _open(
    job: Extraction, target: Target, pool: FlowPool | None
) -> tuple[Iterator[Piece], Callable[[], dict[str, Any]]]:
    """The pieces of one video, and a function that returns the facts for its manifest entry after the last piece."""
    digest = sha256(target.source)
    grid = target.timebase
    fps = Fraction(grid.fps).limit_denominator(100_000)
    stride, window = int(grid.stride), int(grid.window)
    reader: VideoReader | SparseReader
    if job.modality == "none":
        snippets = Grid(stride, window, target.rows)
        reader = SparseReader(target.source, fps, job.short_side, snippets.wanted, job.allow_truncated)
        pieces = centre_pieces(reader.pictures(), snippets, job.crop)
    else:
        reader = VideoReader(target.source, fps, job.short_side, job.allow_truncated)
        pieces = cut(reader, _cut_of(job, target, pool, digest, fps))

    def facts() -> dict[str, Any]:
        decoded = reader.facts
        source = {"name": target.source.name, "bytes": target.source.stat().st_size, "sha256": digest}
        source |= {name: value for name, value in dataclasses.asdict(decoded).items() if name != "frames"}
        return {
            "source": source,
            "frames": decoded.frames,
            "grid": {"fps": grid.fps, "stride": stride, "window": window}
            | ({} if target.rows is None else {"rows": target.rows}),
        }

    return pieces, facts


def _cut_of(job: Extraction, target: Target, pool: FlowPool | None, digest: str, fps: Fraction) -> Cut:
    grid = target.timebase
    return Cut(
        stride=int(grid.stride),
        window=int(grid.window),
        crop=job.crop,
        rgb="rgb" in job.streams,
        flow=_submitter(job, pool, digest, fps) if pool else None,
        clip=job.clip,
        clip_step=None if job.clip_fps is None else fps / Fraction(job.clip_fps).limit_denominator(100_000),
    )


def _submitter(job: Extraction, pool: FlowPool, digest: str, fps: Fraction) -> SubmitFlow:
    folder = None
    if job.flow_cache is not None:
        key = json.dumps([digest, str(fps), job.short_side, job.crop, import_av().__version__, pool.identity])
        folder = job.flow_cache / hashlib.sha256(key.encode()).hexdigest()[:32]
        remove_temporaries(folder, older_than=60)  # from killed workers; recent ones may belong to another run

    def submit(block: int, frames: Any, repeat: bool) -> Pending:
        return pool.submit(frames, job.crop, repeat, folder / f"{block:06d}.npy" if folder else None)

    return submit
