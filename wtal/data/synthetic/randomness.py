"""The random number streams of the generator."""

from __future__ import annotations

import zlib
from enum import IntEnum
from itertools import pairwise

import numpy as np

from wtal.errors import WtalError


class Purpose(IntEnum):
    """Each purpose has an independent random stream, so that e.g. wider features do not change the events."""

    WORLD = 0
    INSTANCES = 1
    EVENTS = 2
    I3D = 3
    CLIP = 4


def generator(seed: int, purpose: Purpose, video_id: str = "") -> np.random.Generator:
    """The random stream of one purpose and video.

    It depends only on the arguments: a video does not change with the other videos of the set or their order.

    Raises:
        WtalError: the seed is negative.
    """
    if seed < 0:
        raise WtalError(f"seed is {seed}: expected a number from 0")
    # The seed comes last: SeedSequence pads with zeros, and only the last number may take more than one word.
    return np.random.default_rng([int(purpose), zlib.crc32(video_id.encode()), seed])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``[..., D]`` scaled to norm 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random unit vectors ``[*shape]`` float32, uniform on the sphere of the last axis."""
    return unit(rng.standard_normal(shape)).astype(np.float32)


def ar1(rng: np.random.Generator, length: int, dim: int, correlation: float) -> np.ndarray:
    """Stationary first-order autoregressive noise ``[length, dim]`` float32 whose rows have norm about 1."""
    noise = rng.standard_normal((length, dim), dtype=np.float32)
    noise *= np.float32(dim**-0.5)
    noise[1:] *= np.float32((1.0 - correlation**2) ** 0.5)
    factor = np.float32(correlation)
    step = np.empty(dim, dtype=np.float32)
    for before, row in pairwise(noise):
        np.multiply(before, factor, out=step)
        row += step
    return noise
