"""A stream of frames into the inputs of the networks: windows of RGB, windows of flow, single frames for CLIP.

Of ``F`` frames, the windows ``[i * stride, i * stride + window)`` that are complete become snippets:
``T = 1 + (F - window) // stride``, and one snippet, its last frame repeated, where ``F < window``. Up to
``stride - 1`` frames at the end are in no snippet.

Frame ``t``'s flow is its motion to frame ``t + 1``, so the flow of a snippet also sees the first frame after it.
The video's last frame takes the flow of the frame before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from wtal.features.flow import centre_crop, grayscale
from wtal.features.flow_pool import Pending
from wtal.features.options import Stream

BLOCK = 16
"""Frames whose flow is computed in one piece of work."""

SubmitFlow = Callable[[int, Sequence[np.ndarray], bool], Pending]
"""Begins the flow of block ``k``: its grey frames and their successor, and whether the last one has none."""


@dataclass(frozen=True)
class Cut:
    """What to cut.

    Attributes:
        stride: frames from one snippet to the next.
        window: frames that one snippet sees.
        crop: edge of the centre crop in pixels.
        rgb: cut windows of RGB.
        flow: begins a block of flow, None for no flow.
        clip: cut frames for CLIP.
        clip_step: frames from one CLIP frame to the next; None takes each snippet's centre.
    """

    stride: int
    window: int
    crop: int
    rgb: bool
    flow: SubmitFlow | None
    clip: bool
    clip_step: Fraction | None


@dataclass(frozen=True)
class Piece:
    """One input of one network.

    Attributes:
        stream: which network's.
        row: which row of its features.
        data: uint8 RGB ``[window, crop, crop, 3]`` or ``[crop, crop, 3]`` for CLIP, or flow to come.
    """

    stream: Stream
    row: int
    data: np.ndarray | FlowWindow


class FlowWindow:
    """Flow of one snippet, in blocks that may still be being computed.

    Args:
        blocks: the frame from which on each has flow, how many flows come before that, and the flows.
        start: the window's first frame.
        window: how many frames.
    """

    def __init__(self, blocks: Sequence[tuple[int, int, Pending]], start: int, window: int) -> None:
        self._blocks = blocks
        self._start = start
        self._window = window

    def result(self) -> np.ndarray:
        """Waits: ``[window, crop, crop, 2]`` int16; flow of missing last frames repeats."""
        stop = self._start + self._window
        parts = []
        for first, skipped, pending in self._blocks:
            flows = pending.result()[skipped:]
            parts.append(flows[max(self._start - first, 0) : max(stop - first, 0)])
        flow = np.concatenate(parts)
        missing = self._window - len(flow)
        return np.concatenate([flow, np.repeat(flow[-1:], missing, axis=0)]) if missing else flow


def cut(frames: Iterable[np.ndarray], what: Cut) -> Iterator[Piece]:
    """The pieces of one video, each stream's in order; holds a window of frames and a block of grey ones.

    Args:
        frames: uint8 RGB ``[H, W, 3]``, each at least ``crop`` high and wide; at least one.
        what: to cut.
    """
    windows = _Windows(what)
    flows = _Flows(what) if what.flow is not None else None
    samples = _Samples(what.clip_step) if what.clip and what.clip_step is not None else None
    for frame in frames:
        cropped = centre_crop(frame, what.crop)
        if samples is not None:
            yield from samples.push(cropped)
        yield from windows.push(cropped)
        if flows is not None:
            yield from flows.push(grayscale(frame))
    yield from windows.finish()
    if flows is not None:
        yield from flows.finish()


class _Windows:
    """Windows of RGB, and their centre frames."""

    def __init__(self, what: Cut) -> None:
        self._what = what
        self._kept: deque[np.ndarray] = deque(maxlen=what.window)
        self._seen = 0
        self._row = 0

    def push(self, frame: np.ndarray) -> Iterator[Piece]:
        self._kept.append(frame)
        self._seen += 1
        if self._seen == self._row * self._what.stride + self._what.window:
            yield from self._emit()

    def finish(self) -> Iterator[Piece]:
        if self._row == 0:
            centre = self._kept[min(self._what.window // 2, len(self._kept) - 1)]
            self._kept.extend([self._kept[-1]] * (self._what.window - len(self._kept)))
            yield from self._emit(centre)

    def _emit(self, centre: np.ndarray | None = None) -> Iterator[Piece]:
        if self._what.rgb:
            yield Piece("rgb", self._row, np.stack(self._kept))
        if self._what.clip and self._what.clip_step is None:
            image = self._kept[self._what.window // 2] if centre is None else centre
            yield Piece("clip", self._row, np.ascontiguousarray(image))
        self._row += 1


class _Samples:
    """Frames for CLIP at a rate of their own: row ``k`` is the frame nearest to ``k * step``."""

    def __init__(self, step: Fraction) -> None:
        self._step = step
        self._seen = 0
        self._row = 0

    def push(self, frame: np.ndarray) -> Iterator[Piece]:
        while math.floor(self._row * self._step + Fraction(1, 2)) == self._seen:
            yield Piece("clip", self._row, np.ascontiguousarray(frame))
            self._row += 1
        self._seen += 1


@dataclass(frozen=True)
class _Block:
    """Flow of the frames ``[first, after)``, after ``skipped`` others."""

    first: int
    after: int
    skipped: int
    flows: Pending


class _Flows:
    """Windows of flow over blocks that are begun as soon as their frames are there."""

    def __init__(self, what: Cut) -> None:
        assert what.flow is not None
        self._submit = what.flow
        self._stride, self._window = what.stride, what.window
        self._grey: list[np.ndarray] = []  # of the current block
        self._before: np.ndarray | None = None  # the frame before it
        self._blocks: deque[_Block] = deque()
        self._number = 0
        self._row = 0

    def push(self, grey: np.ndarray) -> Iterator[Piece]:
        self._grey.append(grey)
        if len(self._grey) > BLOCK:
            first = self._number * BLOCK
            self._blocks.append(_Block(first, first + BLOCK, 0, self._submit(self._number, self._grey, False)))
            self._before = self._grey[-2]
            self._grey = self._grey[-1:]
            self._number += 1
            yield from self._ready()

    def finish(self) -> Iterator[Piece]:
        first = self._number * BLOCK
        total = first + len(self._grey)
        skipped = 0
        if len(self._grey) == 1 and self._before is not None:  # alone it has no motion to take
            self._grey.insert(0, self._before)
            skipped = 1
        self._blocks.append(_Block(first, total, skipped, self._submit(self._number, self._grey, True)))
        yield from self._ready()
        if self._row == 0:
            yield self._piece()

    def _ready(self) -> Iterator[Piece]:
        while self._row * self._stride + self._window <= self._blocks[-1].after:
            yield self._piece()

    def _piece(self) -> Piece:
        start = self._row * self._stride
        while self._blocks[0].after <= start:
            self._blocks.popleft()
        needed = [block for block in self._blocks if block.first < start + self._window]
        blocks = [(block.first, block.skipped, block.flows) for block in needed]
        self._row += 1
        return Piece("flow", self._row - 1, FlowWindow(blocks, start, self._window))
