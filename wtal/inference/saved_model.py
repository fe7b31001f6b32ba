"""Applies a trained model to the test videos of its data set, or to a folder of features."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wtal.data.features import check_features, clip_rows, feature_lengths, feature_width
from wtal.data.predictions import Detection
from wtal.data.span_check import check_clip_rows
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet
from wtal.data.video_id import check_id
from wtal.errors import WtalError
from wtal.inference.branches import Branches, members, restore_branches
from wtal.inference.frame_scores import find
from wtal.platform import fields
from wtal.platform.device import Device, choose_device
from wtal.platform.folders import visible
from wtal.platform.text import csv_rows
from wtal.runs.checkpoint import Checkpoint, load_checkpoint
from wtal.runs.run import CONFIG, Run
from wtal.runs.videos import open_again
from wtal.settings.config import RunConfig


@dataclass(frozen=True)
class RunModel:
    """The model of a run, and the data set of the run.

    Attributes:
        branches: the branches in evaluation mode, on ``device``.
        config: the run's settings.
        device: the device of the branches.
        data: the data set; the run's table was measured on its test videos.
    """

    branches: Branches
    config: RunConfig
    device: Device
    data: VideoSet


def open_run(model: Path, device: str, root: Path | None = None) -> RunModel:
    """Open the model of a run and the run's data set.

    Args:
        model: a run folder, or a checkpoint in one.
        device: as ``--device``.
        root: the folder of the data now; None: they are where they were during training.

    Raises:
        WtalError: the model or its data set cannot be opened, or :func:`check_data` finds a difference.
    """
    branches, config, where, checkpoint = load(model, device)
    folder = checkpoint.path.resolve().parent.parent
    if not (folder / CONFIG).is_file():
        raise WtalError(
            f"{model}: lies in no run folder, so its test videos are not known; evaluate a run folder, or the "
            "predictions that wtal-predict makes with it"
        )
    run = Run.open(folder)
    data = open_again(run.setup, run.config.schedule, root)
    check_data(model, branches, data)
    return RunModel(branches, config, where, data)


def check_data(model: Path, branches: Branches, data: VideoSet) -> None:
    """Check that a data set has the classes and the feature widths that a model was trained on.

    Args:
        model: the run folder or the checkpoint, for messages.
        branches: the branches of the model.
        data: the data set; the features of its test videos are checked. CLIP features may be missing.

    Raises:
        WtalError: something differs; the message names the first difference.
    """
    was, now = branches.facts["classes"], data.classes
    if len(was) != len(now):
        raise WtalError(f"{model}: was trained on {len(was)} classes, data set {data.name} has {len(now)}")
    for index, (before, after) in enumerate(zip(was, now, strict=True)):
        if before != after:
            raise WtalError(
                f"{model}: was trained on other classes: class {index} was {before!r}, in data set {data.name} it is "
                f"{after!r}"
            )
    i3d, clip = branches.facts["i3d_dim"], branches.facts["clip_dim"]
    for video in data.subset("test"):
        for kind, width, paths in (("I3D", i3d, video.i3d), ("CLIP", clip, video.clip)):
            if width is not None and paths is not None and (found := feature_width(paths)) != width:
                raise WtalError(
                    f"{model}: was trained on {kind} features {width} wide, those of video {video.id} are {found} wide"
                )


def detect_test_videos(run: RunModel, branch: str | None) -> dict[str, list[Detection]]:
    """Detections in the run's test videos, by video id, from the scores of ``branch``; None: the run's setting."""
    test = run.data.subset("test")
    results = find(run.branches, branch or run.config.localize.branch, run.data, test, run.config, run.device)
    return {item.video.id: item.detections for item in results}


@dataclass(frozen=True)
class FolderDetections:
    """Detections in a folder of features.

    Attributes:
        detections: a list for each video id.
        failed: the feature files that cannot be used, each with the reason.
        notes: notes on the other files, one sentence each.
    """

    detections: dict[str, list[Detection]]
    failed: dict[Path, str]
    notes: tuple[str, ...]


def detect_in_folder(
    model: Path,
    features: Path,
    clip: Path | None,
    grid: Mapping[str, float | None],
    branch: str | None,
    device: str,
    rates: Rates | None = None,
) -> FolderDetections:
    """Detections of a model in every ``<video>.npy`` of a folder, or in one such file.

    Args:
        model: a run folder or a checkpoint.
        features: a folder of I3D features ``[T, D]``, or one file.
        clip: a folder of CLIP features, for a branch that reads them.
        grid: ``fps``, ``stride``, ``window`` and ``clip_fps`` of these features; None: as in training.
        branch: the branch whose scores are used; None: the run's setting.
        device: as ``--device``.
        rates: ``fps`` of each video; it replaces that of ``grid``. A rate that cannot be used is a fault of its video.

    Raises:
        WtalError: ``grid`` lacks a value that differed between the training videos, there are no features, the only
            file cannot be used or has another width than in training, or a branch needs CLIP features that are not
            given. Files of a folder that cannot be used are in ``failed``.
    """
    branches, config, where, checkpoint = load(model, device)
    branch = branch or config.localize.branch
    several = features.is_dir()
    files = [path for path in visible(features) if path.suffix == ".npy"] if several else [features]
    if not files or not (several or features.is_file()):
        raise WtalError(f"{features}: expected a folder of <video>.npy, or one such file")
    branches.check(branch)
    reads_clip = "vlp" in members(branch)
    if reads_clip and clip is None:
        raise WtalError(f"--branch {branch} reads CLIP features: give their folder with --clip")
    if clip is not None and not clip.is_dir():
        raise WtalError(f"--clip {clip}: no such folder, expected one of <video>.npy")
    clip = clip if branches.has_vlp else None
    known = {**checkpoint.facts["grid"], **{name: value for name, value in grid.items() if value is not None}}
    if rates is None:
        known_grid(known)  # a wrong grid is wrong for every file
    videos: list[Video] = []
    failed: dict[Path, str] = {}
    for file in files:
        try:
            videos.append(_video(file, clip, known, rates, checkpoint))
        except WtalError as error:
            if not several:
                raise
            failed[file] = str(error)
    data = VideoSet("features", "own", tuple(checkpoint.facts["classes"]), tuple(videos))
    by_video = {item.video.id: item.detections for item in find(branches, branch, data, videos, config, where)}
    unused = sorted(rates.faults.keys() - {file.stem for file in files}) if rates is not None and several else []
    notes = [f"{rates.faults[video]}; {features} has no such video" for video in unused] if rates is not None else []
    return FolderDetections(by_video, failed, (*notes, *check_clip_rows(data)))


def _video(
    file: Path,
    clip: Path | None,
    grid: Mapping[str, float | None],
    rates: Rates | None,
    checkpoint: Checkpoint,
) -> Video:
    """The video of one feature file, after all checks.

    Raises:
        WtalError: the rate or the features cannot be used. The message has both faults, the rate's first.
    """
    check_id(file.stem, file.parent)
    faults = []
    if rates is not None:
        if file.stem not in rates.fps:
            faults.append(rates.faults.get(file.stem, f"video {file.stem!r} is not in --fps"))
        grid = {**grid, "fps": rates.fps.get(file.stem, 1.0)}  # without a rate: any, to check the features
    timebase, clip_fps = known_grid(grid)
    video = Video(file.stem, "test", (), timebase, (file,), clip / file.name if clip else None, clip_fps=clip_fps)
    try:
        for key, path in (("i3d_dim", file), ("clip_dim", video.clip)):
            if path is not None and (width := feature_width(path)) != checkpoint.facts[key]:
                raise WtalError(f"{path}: features are {width} wide, the model was trained on {checkpoint.facts[key]}")
        check_features(video)
        if not faults:
            return replace(video, snippets=int(feature_lengths([video])[0]), clip_rows=clip_rows(video))
        faults[0] = f"{file}: {faults[0]}"
    except WtalError as error:
        faults.append(str(error))
    raise WtalError("; ".join(faults))


@dataclass(frozen=True)
class Rates:
    """The content of a CSV file with the rate of each video.

    Attributes:
        fps: frames per second by video id.
        faults: for each video whose rate cannot be used, a message that names the file and the line.
    """

    fps: dict[str, float]
    faults: dict[str, str]


def read_rates(path: Path) -> Rates:
    """Read frames per second by video id, from a CSV file ``video,fps``.

    A video has a fault if its rate is not a number above 0, or if it has two rates.

    Raises:
        WtalError: the file has another form.
    """
    read: dict[str, float] = {}
    faults: dict[str, str] = {}
    for line, (video, said) in csv_rows(path, ("video", "fps"), "frames a second as CSV (video,fps)"):
        try:
            fps = fields.number(said, "fps")
            if fps <= 0 or read.get(video, fps) != fps:
                raise ValueError(f"fps is {said}, expected " + ("a number above 0" if fps <= 0 else "one a video"))
        except ValueError as error:
            faults.setdefault(video, f"{path}: line {line}, video {video!r}: {error}")
        else:
            read[video] = fps
    return Rates({video: fps for video, fps in read.items() if video not in faults}, faults)


def known_grid(known: Mapping[str, float | None]) -> tuple[Timebase, float | None]:
    """The time base of features, and the rate of CLIP rows, None if it is unknown.

    Raises:
        WtalError: a value of the time base is unknown, or a value is not valid.
    """
    for name in ("fps", "stride", "window"):
        if known[name] is None:
            how = " (a number, or a CSV video,fps)" if name == "fps" else ""
            message = f"the model was trained on videos that differ in {name}: say --{name}{how} for these features"
            raise WtalError(message)
    try:
        clip_fps = known["clip_fps"]
        if clip_fps is not None and not 0 < clip_fps < math.inf:
            raise ValueError(f"clip-fps must be a positive number, got {clip_fps!r}")
        return Timebase(*(float(known[name] or 0) for name in ("fps", "stride", "window"))), clip_fps
    except ValueError as error:
        raise WtalError(f"--fps, --stride, --window or --clip-fps: {error}") from None


def load(model: Path, device: str) -> tuple[Branches, RunConfig, Device, Checkpoint]:
    """Load branches for inference. Returns them, their settings, their device and their checkpoint.

    Args:
        model: a checkpoint; or a run folder, whose newest checkpoint that is not damaged is used.
        device: as ``--device``.
    """
    if model.is_dir():
        run = Run.open(model)
        newest = run.checkpoints.load(lambda message: print(message, file=sys.stderr))
        if newest is None:
            raise WtalError(f"{model}: no checkpoint yet; expected a run that has trained for an epoch")
        read = newest[0]
    else:
        read = load_checkpoint(model)
    branches, config = restore_branches(read)
    where = choose_device(device, "float32")
    branches.to(where.name)
    branches.eval()
    return branches, config, where, read
