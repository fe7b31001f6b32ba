"""Videos made for tests: from numbered frames, textures, or frames of real clips."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: float | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    stamps: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    matrix: list[int] | None = None,
    rotation: int | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write RGB frames ``[H, W, 3]`` as a video, at ``rate`` or at the seconds ``stamps``."""
    with _usual_priority(), av.open(str(path), "w", options=container_options or {}) as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pix_fmt
                if stamps is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if rotation is not None:
                    stream.set_display_rotation(rotation)
                if matrix is not None:
                    stream.set_display_matrix(matrix)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if stamps is not None:
                picture.pts, picture.time_base = round(stamps[index] * 1000), Fraction(1, 1000)
            for packet in stream.encode(picture):
                container.mux(packet)
        assert stream is not None
        for packet in stream.encode():
            container.mux(packet)
    return path


@contextlib.contextmanager
def _usual_priority() -> Iterator[None]:
    """SVT-AV1 makes its caller a real-time process where it may (as root), which then starves all others."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def lossless(path: Path, frames: Iterable[np.ndarray], rate: float | Fraction = 25, **options: object) -> Path:
    """A video whose frames come back as they are, each on its own (FFV1 in Matroska)."""
    return encode(path, frames, rate, codec="ffv1", pix_fmt="bgr0", **options)


def numbered(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames that say which they are, even after a lossy codec: :func:`number` reads it."""
    frames = []
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        for bit in range(10):
            column = bit * width // 10
            frame[:, column : column + width // 10] = 255 * (index >> bit & 1)
        frames.append(frame)
    return frames


def number(frame: np.ndarray) -> int:
    """Which of the numbered frames it is, whatever its size."""
    width = frame.shape[1]
    centres = [int((bit + 0.5) * (width // 10 * 10) / 10 * width / (width // 10 * 10)) for bit in range(10)]
    row = frame[frame.shape[0] // 2].mean(axis=1)
    return sum(int(row[min(centre, width - 1)] > 127) << bit for bit, centre in enumerate(centres))


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture with something to follow everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (9, 9), 2), None, 0, 255, cv2.NORM_MINMAX)


def damaged(path: Path, frames: list[np.ndarray], every: int) -> Path:
    """A video in which every ``every``-th frame is of no use; each stands on its own."""
    encode(path, frames, options={"g": "1", "bf": "0"})
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[every // 2 : -4 : every]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    return path
