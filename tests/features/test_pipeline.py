"""The pipeline with small networks: order, batches, faults, and how much waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wtal.errors import WtalError
from wtal.features.flow_pool import WorkersDied
from wtal.features.networks import Network
from wtal.features.pipeline import Finished, queue_depth, run
from wtal.features.snippets import BLOCK, Cut, Piece, cut
from wtal.platform.device import Device
from wtal.platform.files import WriteError


class Sum(nn.Module):
    """Two columns: the sum of a piece, and how many are in its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return torch.stack([x.flatten(1).sum(1), torch.full((len(x),), float(len(x)))], dim=1)


def network(batch: int) -> Network:
    return Network(Sum(), torch.Tensor.float, Device(torch.device("cpu")), batch)


Job = tuple[str, int, int, Exception | None]  # name, rows of RGB, rows of CLIP, what goes wrong after them


def opened(job: Job) -> tuple[Iterator[Piece], Callable[[], str]]:
    name, rgb, clip, error = job

    def pieces() -> Iterator[Piece]:
        for row in range(max(rgb, clip)):
            if row < rgb:
                yield Piece("rgb", row, np.full((2, 3), ord(name[0]) + row, np.int16))
            if row < clip:
                yield Piece("clip", row, np.full(4, row, np.uint8))
        if error is not None:
            raise error

    return pieces(), lambda: f"facts of {name}"


def go(jobs: list[Job], batch: int, depth: int = 3) -> tuple[dict[str, Finished], dict[str, str]]:
    done: dict[str, Finished] = {}
    failed: dict[str, str] = {}
    run(
        jobs,
        opened,
        {"rgb": network(batch), "clip": network(batch + 1)},
        depth,
        lambda job, features: done.__setitem__(job[0], features),
        lambda job, error: failed.__setitem__(job[0], str(error)),
        lambda job, piece: None,
    )
    assert threading.active_count() < 20
    return done, failed


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9), st.booleans()), max_size=6),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_every_row_finds_its_video(sizes: list[tuple[int, int, bool]], batch: int, depth: int) -> None:
    jobs: list[Job] = [
        (f"{chr(97 + n)}", rgb, clip, WtalError("broken") if bad else None) for n, (rgb, clip, bad) in enumerate(sizes)
    ]
    done, failed = go(jobs, batch, depth)
    assert failed == {job[0]: "broken" for job in jobs if job[3]}
    assert set(done) == {job[0] for job in jobs if not job[3]}
    for name, rgb, clip, error in jobs:
        if error is None:
            found = done[name].features
            assert found["rgb"][:, 0].tolist() == [6 * (ord(name) + row) for row in range(rgb)]
            assert set(found["rgb"][:, 1]) == {batch}  # every batch is full, also the last
            assert ("clip" in found) == (clip > 0)
            if clip:
                assert found["clip"][:, 0].tolist() == [4 * row for row in range(clip)]
            assert done[name].facts == f"facts of {name}"


def test_other_errors_end_the_run() -> None:
    for error in (ZeroDivisionError("a bug"), WorkersDied("gone")):
        with pytest.raises(type(error)):
            go([("a", 3, 3, None), ("b", 2, 2, error), ("c", 1, 1, None)], 2)
    assert go([("a", 1, 1, OSError("disk")), ("b", 1, 1, None)], 2)[1] == {"a": "disk"}


def test_a_consumer_that_fails_leaves_no_thread_behind() -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run([("a", 500, 0, None)], opened, {"rgb": network(1)}, 2, broken, broken, broken)
    assert threading.active_count() == before


def test_a_video_that_cannot_be_written_has_failed() -> None:
    failed: list[str] = []

    def full(*_: object) -> None:
        raise WtalError("disk is full")

    run(
        [("a", 2, 0, None)], opened, {"rgb": network(1)}, 2, full, lambda job, e: failed.append(str(e)), lambda *_: None
    )
    assert failed == ["disk is full"]


def test_a_full_disk_ends_the_run() -> None:
    def full(*_: object) -> None:
        raise WriteError("disk is full")

    with pytest.raises(WriteError):
        run([("a", 2, 0, None)], opened, {"rgb": network(1)}, 2, full, full, lambda *_: None)
    with pytest.raises(WriteError):
        go([("a", 3, 3, None), ("b", 2, 2, WriteError("disk is full")), ("c", 1, 1, None)], 2)


@pytest.mark.parametrize(("stride", "step"), [(16, None), (4, None), (16, Fraction(1)), (40, Fraction(5))])
def test_every_worker_has_flow_to_compute(stride: int, step: Fraction | None) -> None:
    """The first piece of flow is ready only once so many blocks are begun; a shorter queue would never get there."""
    workers = 8
    begun = threading.Semaphore(0)

    class Slow:
        def __init__(self, wait: bool) -> None:
            self._wait = wait

        def result(self) -> np.ndarray:
            for _ in range(2 * workers if self._wait else 0):
                assert begun.acquire(timeout=20), "workers have nothing to do"
            self._wait = False
            return np.zeros((BLOCK, 2, 2, 2), np.int16)

    def submit(block: int, frames: Sequence[np.ndarray], repeat: bool) -> Slow:
        begun.release()
        return Slow(block == 0)

    what = Cut(stride, 16, 2, True, submit, True, step)
    frames = (np.zeros((2, 2, 3), np.uint8) for _ in range(60 * BLOCK))
    networks = {stream: network(1) for stream in ("rgb", "flow", "clip")}
    depth = queue_depth([stride, stride, step or stride], workers)
    failed: list[str] = []
    run(
        [0],
        lambda job: (cut(frames, what), lambda: None),
        networks,
        depth,
        lambda *_: None,
        lambda _, error: failed.append(str(error)),
        lambda *_: None,
    )
    assert not failed


def test_the_queue_bounds_what_is_decoded_ahead() -> None:
    produced, ahead = 0, []

    def pieces(job: int) -> tuple[Iterator[Piece], Callable[[], None]]:
        def each() -> Iterator[Piece]:
            nonlocal produced
            for row in range(60):
                produced += 1
                yield Piece("rgb", row, np.zeros(2, np.int16))

        return each(), lambda: None

    taken = 0

    def progress(job: int, piece: Piece) -> None:
        nonlocal taken
        taken += 1
        threading.Event().wait(0.005)  # the network is slower than the decoder
        ahead.append(produced - taken)

    run([0], pieces, {"rgb": network(1)}, 4, lambda *_: None, lambda *_: None, progress)
    assert max(ahead) <= 4 + 2
