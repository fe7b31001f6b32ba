"""A trained model in Python: :func:`load`, :meth:`Model.detect`, :meth:`Model.scores`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wtal.data.batches import Batch
from wtal.data.clip_alignment import align, interpolate
from wtal.data.npy import load_npy
from wtal.data.predictions import Detection
from wtal.data.timebase import Timebase
from wtal.errors import WtalError
from wtal.inference import saved_model
from wtal.inference.branch_scores import mean_scores
from wtal.inference.branches import Branches, members
from wtal.inference.localize import detect, to_seconds
from wtal.inference.long_videos import check_length, logits_in_parts, parts_of
from wtal.platform.device import Device
from wtal.settings.config import LocalizeConfig, RunConfig

Features: TypeAlias = npt.NDArray[Any] | Tensor | str | os.PathLike[str]
"""Features ``[T, D]``, floating point, one row per snippet: an array, a tensor, or the path of a ``.npy`` file."""

Branch: TypeAlias = Literal["cbp", "vlp", "ensemble"]
"""The branch whose scores are used: classification, vision-language, or the mean of both."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a model for one video, before localisation.

    Attributes:
        frames: the score of each class in each snippet, scaled to [0, 1] per class, float32 ``[T, C]``.
        video: the probability that each class occurs in the video, float32 ``[C]``.
    """

    frames: npt.NDArray[np.float32]
    video: npt.NDArray[np.float32]


class Model:
    """A trained model, which :func:`load` opens. Its methods may be called from several threads.

    Attributes:
        classes: the class names, in the order of the columns of :meth:`scores`.
        config: the settings of its run; :meth:`detect` uses ``config.localize``.
        i3d_dim: the width of the I3D features in training.
        clip_dim: the width of the CLIP features in training; None: it was trained without them.
        device: the device that it runs on.
    """

    def __init__(self, branches: Branches, config: RunConfig, device: Device) -> None:
        self._branches = branches
        self._device = device
        self.config = config
        self.classes: tuple[str, ...] = tuple(branches.facts["classes"])
        self.i3d_dim: int = branches.facts["i3d_dim"]
        self.clip_dim: int | None = branches.facts["clip_dim"]

    def __repr__(self) -> str:
        return f"<wtal.Model of {len(self.classes)} classes on {self.device}>"

    @property
    def device(self) -> str:
        """The device that the model runs on: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``."""
        return str(self._device.name)

    def detect(
        self,
        features: Features,
        fps: float | None = None,
        stride: float | None = None,
        window: float | None = None,
        *,
        clip: Features | None = None,
        clip_fps: float | None = None,
        branch: Branch | None = None,
        localize: LocalizeConfig | None = None,
        duration: float | None = None,
    ) -> list[Detection]:
        """Find the actions in one video.

        Args:
            features: I3D features ``[T, D]``, one row per snippet, in the order of time.
            fps: frames per second of the video behind the features; None: as in training.
            stride: frames from one snippet to the next; None: as in training.
            window: frames in one snippet; None: as in training.
            clip: CLIP features ``[T', D']``, needed by the branches ``vlp`` and ``ensemble``.
            clip_fps: rows of ``clip`` per second; None: as in training. If training had no rate, the rows cover the
                video evenly.
            branch: the branch whose scores are used; None: the run's setting.
            localize: the settings of thresholds and suppression; None: the run's settings.
            duration: the length of the video in seconds, None if unknown. No detection ends later.

        Returns:
            detections in seconds, by falling score.

        Raises:
            WtalError: features are missing, not finite or of another width than in training; there are too many
                snippets for a branch without an attention window; or ``fps``, ``stride`` or ``window`` is not given,
                but it differed between the training videos.
        """
        timebase, clip_fps = self._grid(fps, stride, window, clip_fps)
        frames, video = self._scores(features, clip, clip_fps, timebase, branch)
        settings = self.config.localize
        if localize is not None:
            settings = dataclasses.replace(self.config, localize=localize).localize  # this checks the settings
        detections = detect(frames[None], video[None], torch.tensor([len(frames)], device=frames.device), settings)
        return to_seconds(detections, [timebase], self.classes, [duration])[0]

    def scores(
        self,
        features: Features,
        *,
        clip: Features | None = None,
        clip_fps: float | None = None,
        fps: float | None = None,
        stride: float | None = None,
        window: float | None = None,
        branch: Branch | None = None,
    ) -> Scores:
        """The scores from which :meth:`detect` localises, with the same arguments.

        ``fps``, ``stride`` and ``window`` have an effect only with ``clip_fps``.
        """
        timebase, clip_fps = self._grid(fps, stride, window, clip_fps)
        frames, video = self._scores(features, clip, clip_fps, timebase, branch)
        return Scores(frames.cpu().numpy(), video.cpu().numpy())

    def _grid(self, *given: float | None) -> tuple[Timebase, float | None]:
        """The time base and the CLIP rate: the given values, or else those of the training videos."""
        said = dict(zip(("fps", "stride", "window", "clip_fps"), given, strict=True))
        known = self._branches.facts["grid"]
        return saved_model.known_grid({**known, **{name: value for name, value in said.items() if value is not None}})

    def _scores(
        self,
        features: Features,
        clip: Features | None,
        clip_fps: float | None,
        timebase: Timebase,
        branch: Branch | None,
    ) -> tuple[Tensor, Tensor]:
        """Frame scores ``[T, C]`` and video-level probabilities ``[C]``, on the model's device."""
        branch = branch or self.config.localize.branch
        names = members(branch)
        if unknown := [name for name in names if name not in ("cbp", "vlp")]:
            raise WtalError(f"branch {unknown[0]!r}, expected 'cbp', 'vlp' or 'ensemble'")
        self._branches.check(branch)
        i3d = _array("features", features, self.i3d_dim)
        for name in names:
            what = str(features) if isinstance(features, str | os.PathLike) else "features"
            check_length(self._branches, name, what, len(i3d))
        aligned = None
        if "vlp" in names and self.clip_dim is not None:
            if clip is None:
                raise WtalError(f"branch {branch!r} reads CLIP features: give them as clip")
            rows = _array("clip", clip, self.clip_dim)
            positions = timebase.center(np.arange(len(i3d), dtype=np.float64)) * clip_fps if clip_fps else None
            aligned = align(rows, len(i3d)) if positions is None else interpolate(rows, positions)
        batch = Batch(
            i3d=torch.from_numpy(i3d)[None],
            clip=None if aligned is None else torch.from_numpy(aligned)[None],
            lengths=torch.tensor([len(i3d)]),
            labels=torch.zeros(1, len(self.classes)),
            index=torch.zeros(1, dtype=torch.int64),
            start=torch.zeros(1, dtype=torch.int64),
        )
        logits = {
            name: logits_in_parts(self._branches, name, len(i3d), parts_of(batch), self._device) for name in names
        }
        with torch.inference_mode():
            lengths = batch.lengths.to(self._device.name)
            frames, video = mean_scores(self._branches, logits, lengths, self.config)
            return frames[0], video[0]


def load(path: str | os.PathLike[str], device: str = "auto") -> Model:
    """Open a trained model.

    Args:
        path: the folder of a run, or a checkpoint file in one.
        device: ``"auto"`` (CUDA if available, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        WtalError: the run or the device does not exist, or the checkpoint is damaged.
    """
    branches, config, where, _ = saved_model.load(Path(path), device)
    return Model(branches, config, where)


def _array(name: str, value: Features, width: int) -> npt.NDArray[np.float32]:
    """Features as a finite float32 array ``[T, width]``."""
    if isinstance(value, str | os.PathLike):
        name, value = str(value), load_npy(value)
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            got = f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"
            raise WtalError(f"{name}: {got}, expected floating point [T, {width}]")
        if value.layout != torch.strided or value.device.type == "meta":
            form = "meta" if value.device.type == "meta" else str(value.layout).removeprefix("torch.")
            raise WtalError(f"{name}: a {form} tensor, expected a dense one with values, floating point [T, {width}]")
        value = value.detach().cpu().float().numpy()
    rows = np.asarray(value)
    if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape:
        raise WtalError(f"{name}: {rows.dtype} of shape {list(rows.shape)}, expected floating point [T, {width}]")
    if rows.shape[1] != width:
        raise WtalError(f"{name}: {rows.shape[1]} wide, the model was trained on {width}")
    single = np.require(rows, np.float32, ["C", "W"])  # writable, because torch warns about read-only arrays
    if not np.isfinite(single).all():
        row, column = np.argwhere(~np.isfinite(single))[0]
        raise WtalError(f"{name}: {single[row, column]} in row {row}, column {column}, expected finite features")
    return single
