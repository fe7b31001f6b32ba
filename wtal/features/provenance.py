"""Provenance of features: the settings in the manifest of a folder, and the package versions in a video's entry."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from wtal.errors import WtalError
from wtal.features.manifest import sha256
from wtal.features.options import Extraction
from wtal.platform.device import Device

_PACKAGES = ("wtal", "torch", "numpy", "av", "open_clip_torch")
_OPENCV = "opencv-contrib-python-headless"


def feature_settings(job: Extraction, device: Device) -> dict[str, Any]:
    """The settings that the features in one folder share, with hashes of the weights.

    Raises:
        WtalError: a file of weights does not exist.
    """
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
        "flow": f"tvl1 by {job.flow_backend}" if "flow" in job.streams else None,
        "i3d": "Inception-v1 I3D" if job.modality != "none" else None,
        "clip_model": job.clip_model if job.clip else None,
        "clip_fps": job.clip_fps,
        "dtype": job.dtype,
        "precision": "bf16 autocast" if device.bf16 else "float32",
        "weights": {stream: sha256(path) if path else "openai, by open_clip" for stream, path in weights.items()},
    }


def versions(job: Extraction) -> dict[str, str | None]:
    """The versions of the packages that the features depend on; None for a package that is not installed."""
    installed: dict[str, str | None] = {}
    with_opencv = "flow" in job.streams and job.flow_backend == "opencv"
    for package in (*_PACKAGES, _OPENCV) if with_opencv else _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = None
    return installed
