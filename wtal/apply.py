"""A trained model applied: to the test videos of its data set, or to a folder of features."""

from __future__ import annotations

import sys
from pathlib import Path

from wtal.branches import Branches, restore_branches
from wtal.checkpoint import Checkpoint, load_checkpoint
from wtal.config import RunConfig
from wtal.data.features import feature_width
from wtal.data.layout import check_id
from wtal.data.open import open_data
from wtal.data.predictions import Detection
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet
from wtal.device import Device, choose_device
from wtal.errors import WtalError
from wtal.infer import find, members
from wtal.run import Run


def detect_test_videos(
    model: Path, branch: str | None, device: str
) -> tuple[dict[str, list[Detection]], tuple[Video, ...]]:
    """Detections of a run's model in the test videos of the run's data set, and these videos.

    Args:
        model: run folder, or a checkpoint inside one.
        branch: whose scores, None for what the run was configured with.
        device: as ``--device``.
    """
    branches, config, where, checkpoint = load(model, device)
    run = Run.open(checkpoint.path.resolve().parent.parent)
    setup = run.setup
    data = open_data(
        setup.dataset,
        Path(setup.root) if setup.root else None,
        features=setup.features,
        layout=setup.layout,
        shapes=setup.shapes,
        world=setup.world,
        allow_missing=setup.allow_missing,
    )
    test = data.subset("test")
    if not test or any(video.instances is None for video in test):
        raise WtalError(f"data set {data.name}: its test videos have no temporal ground truth to evaluate against")
    found = find(branches, branch or config.localize.branch, data, test, config, where)
    return {item.video.id: item.detections for item in found}, test


def detect_in_folder(
    model: Path, features: Path, clip: Path | None, timebase: Timebase, branch: str | None, device: str
) -> dict[str, list[Detection]]:
    """Detections of a model in every ``<video>.npy`` of a folder (or in one such file), by video id.

    Raises:
        WtalError: no features there, features of another width than the model was trained on, or CLIP features
            missing for a branch that reads them.
    """
    branches, config, where, checkpoint = load(model, device)
    branch = branch or config.localize.branch
    files = sorted(features.glob("*.npy")) if features.is_dir() else [features]
    if not files or not files[0].is_file():
        raise WtalError(f"{features}: expected a folder of <video>.npy, or one such file")
    if "vlp" in members(branch) and clip is None:
        raise WtalError(f"--branch {branch} reads CLIP features: give their folder with --clip")
    for file in files:
        check_id(file.stem, file.parent)
    classes = tuple(checkpoint.facts["classes"])
    videos = tuple(
        Video(file.stem, "test", (), timebase, (file,), clip / file.name if clip is not None else None)
        for file in files
    )
    for video in videos:
        for key, path in (("i3d_dim", video.i3d[0]), ("clip_dim", video.clip)):
            if path is not None and (width := feature_width(path)) != checkpoint.facts[key]:
                raise WtalError(f"{path}: features are {width} wide, the model was trained on {checkpoint.facts[key]}")
    data = VideoSet("features", "own", classes, videos)
    return {item.video.id: item.detections for item in find(branches, branch, data, videos, config, where)}


def load(model: Path, device: str) -> tuple[Branches, RunConfig, Device, Checkpoint]:
    """Branches ready for inference, their settings, the device that they are on, and the checkpoint they are from.

    Args:
        model: a checkpoint, or a run folder for the newest sound one in it.
        device: as ``--device``.
    """
    if model.is_dir():
        run = Run.open(model)
        found = run.checkpoints.load(lambda message: print(message, file=sys.stderr))
        if found is None:
            raise WtalError(f"{model}: no checkpoint yet; expected a run that has trained for an epoch")
        read = found[0]
    else:
        read = load_checkpoint(model)
    branches, config = restore_branches(read)
    where = choose_device(device, "float32")
    branches.to(where.name)
    branches.eval()
    return branches, config, where, read
