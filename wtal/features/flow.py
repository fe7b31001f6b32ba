"""Optical flow between frames in the form of I3D's input: clipped to 20 pixels, stored as 16-bit fixed point.

A backend is any object that satisfies :class:`FlowBackend`. ``BACKENDS`` maps names to backends, because each worker
process makes its own backend from a name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from wtal.about import VERSION
from wtal.errors import WtalError

BOUND = 20.0
"""Largest motion in pixels per frame; larger motion is clipped. I3D's Kinetics weights were trained with this value."""

STEPS = 32767
"""Fixed-point value of :data:`BOUND`: a step is 0.0006 pixels. Flow from the cache equals flow just computed."""


class FlowBackend(Protocol):
    """Computes optical flow."""

    identity: str
    """Algorithm and version: part of the cache key."""

    def start_worker(self) -> None:
        """Called once in each worker process. It limits the process to one thread, as there is one worker per CPU."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second``, both uint8 ``[H, W]``: float32 ``[H, W, 2]``, x and y in pixels."""


class WtalTVL1:
    """:func:`wtal.ops.tvl1_flow` with its default parameters."""

    identity = f"tvl1, wtal {VERSION}"

    def start_worker(self) -> None:
        """See :class:`FlowBackend`."""
        import torch

        torch.set_num_threads(1)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See :class:`FlowBackend`."""
        import torch

        from wtal.ops import tvl1_flow

        flow: np.ndarray = tvl1_flow(torch.from_numpy(first)[None], torch.from_numpy(second)[None])[0].numpy()
        return flow


class OpenCVTVL1:
    """OpenCV's DualTVL1 with its default parameters."""

    def __init__(self) -> None:
        self._cv2 = import_cv2()
        self._solver = self._cv2.optflow.DualTVL1OpticalFlow_create()
        self.identity = f"tvl1, opencv {self._cv2.__version__}"

    def start_worker(self) -> None:
        """See :class:`FlowBackend`."""
        self._cv2.setNumThreads(1)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See :class:`FlowBackend`."""
        flow: np.ndarray = self._solver.calc(first, second, None)
        return flow


BACKENDS: dict[str, Callable[[], FlowBackend]] = {"wtal": WtalTVL1, "opencv": OpenCVTVL1}
"""The values of ``--flow-backend`` and the constructors of the backends."""


def import_cv2() -> Any:
    """OpenCV with its contributed modules. Only ``--flow-backend opencv`` needs it.

    Raises:
        WtalError: OpenCV is not installed, or has no contributed modules.
    """
    try:
        import cv2
    except ImportError as error:
        raise WtalError(
            f"--flow-backend opencv needs OpenCV ({error}); expected pip install 'wtal[opencv-flow]'"
        ) from None
    if not hasattr(cv2, "optflow"):
        raise WtalError(
            f"OpenCV {cv2.__version__} is here without its contributed modules (no TV-L1 flow); "
            "expected opencv-contrib-python-headless, as pip install 'wtal[opencv-flow]' brings it"
        )
    return cv2


def grayscale(image: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma: uint8 RGB ``[H, W, 3]`` to uint8 ``[H, W]``, bitwise equal to OpenCV's conversion."""
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).astype(np.uint8)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The centre crop of ``size`` x ``size`` pixels of ``[H, W, ...]``, as a view."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def to_fixed(flow: np.ndarray) -> np.ndarray:
    """Convert flow from float32 pixels to int16 fixed point, clipped to :data:`BOUND`."""
    return np.rint(np.clip(flow, -BOUND, BOUND) * (STEPS / BOUND)).astype(np.int16)


def flow_block(backend: FlowBackend, frames: Sequence[np.ndarray], crop: int, repeat: bool) -> np.ndarray:
    """Flow from each frame to the next, cropped.

    Args:
        backend: computes the flow of whole frames.
        frames: consecutive frames, uint8 ``[H, W]``.
        crop: edge of the centre crop in pixels.
        repeat: whether the last frame is the last of the video. It has no next frame, so it gets the flow of the frame
            before.

    Returns:
        ``[n, crop, crop, 2]`` int16, where n is ``len(frames) - 1``, or ``len(frames)`` with ``repeat``. A single frame
        gives n = 1, all zeros.
    """
    flows = []
    for first, second in itertools.pairwise(frames):
        if np.array_equal(first, second):  # videos below the fixed rate have repeated frames: no need to compute flow
            flows.append(np.zeros((crop, crop, 2), np.int16))
        else:
            flows.append(to_fixed(centre_crop(backend(first, second), crop)))
    if not flows:
        flows = [np.zeros((crop, crop, 2), np.int16)]
    elif repeat:
        flows.append(flows[-1])
    return np.stack(flows)
