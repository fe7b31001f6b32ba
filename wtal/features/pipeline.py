"""The extraction pipeline: decoding, flow and networks work at the same time, in bounded memory.

One thread decodes the videos one after another. It submits each block of frames to the worker processes for flow, and
puts the pieces into a queue of limited length. The calling thread takes the pieces in order, waits for their flow and
runs the networks.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from wtal.errors import WtalError
from wtal.features.flow_pool import WorkersDied
from wtal.features.networks import Network
from wtal.features.options import Stream
from wtal.features.snippets import BLOCK, FlowWindow, Piece
from wtal.platform.files import WriteError

Job = TypeVar("Job")
Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Finished(Generic[Facts]):
    """A video's features, float32 ``[T, D]`` for each stream, and the facts from the decoder."""

    features: dict[Stream, np.ndarray]
    facts: Facts


@dataclass(frozen=True)
class _Begin(Generic[Job]):
    job: Job


@dataclass(frozen=True)
class _End(Generic[Facts]):
    facts: Facts


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _Last:
    """The end of the queue: there are no more videos."""


@dataclass
class _Rows(Generic[Job]):
    """The feature rows of one video. The networks return them in any order."""

    job: Job
    expected: dict[Stream, int] = field(default_factory=dict)
    rows: dict[Stream, dict[int, np.ndarray]] = field(default_factory=dict)

    def expect(self, stream: Stream) -> None:
        self.expected[stream] = self.expected.get(stream, 0) + 1

    def put(self, stream: Stream, row: int, features: np.ndarray) -> None:
        self.rows.setdefault(stream, {})[row] = (
            features.copy()
        )  # a copy, as a view would keep the whole batch in memory

    def complete(self) -> bool:
        return all(len(self.rows.get(stream, {})) == count for stream, count in self.expected.items())

    def arrays(self) -> dict[Stream, np.ndarray]:
        return {
            stream: np.stack([self.rows[stream][row] for row in range(count)])
            for stream, count in self.expected.items()
        }


def queue_depth(steps: Sequence[float], workers: int) -> int:
    """The number of pieces that the queue holds: enough for two blocks of flow per worker, and two blocks more.

    So each worker has a next block ready while it computes one.

    Args:
        steps: for each stream, the frames from one piece to the next.
        workers: the number of processes that compute flow.
    """
    return math.ceil((2 * workers + 2) * max(sum(BLOCK / step for step in steps), 1))


def run(
    jobs: Sequence[Job],
    pieces: Callable[[Job], tuple[Iterator[Piece], Callable[[], Facts]]],
    networks: Mapping[Stream, Network],
    depth: int,
    finished: Callable[[Job, Finished[Facts]], None],
    failed: Callable[[Job, Exception], None],
    progress: Callable[[Job, Piece], None],
) -> None:
    """Extract the features of many videos.

    Args:
        jobs: the videos.
        pieces: opens a video. It returns an iterator over the video's pieces, and a function that returns the facts
            once the iterator is exhausted. It is called, and the iterator is read, in another thread.
        networks: the network of each stream that occurs.
        depth: the number of pieces that the queue holds, see :func:`queue_depth`.
        finished: called with the features of each finished video.
        failed: called with the error of a video, a :class:`WtalError` or :class:`OSError`; the other videos continue.
        progress: called with each piece when its network takes it.

    Raises:
        WorkersDied: a worker process ended unexpectedly.
        WriteError: a file cannot be written, so the files of the next videos cannot be written either.
        Exception: any error that is not the fault of one video.
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()
    producer = threading.Thread(target=_produce, args=(jobs, pieces, waiting, stop), name="decode", daemon=True)
    producer.start()
    try:
        _consume(waiting, networks, finished, failed, progress)
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):
            while True:  # empty the queue, because the producer may be blocked in put()
                waiting.get_nowait()
        producer.join()


def _produce(
    jobs: Sequence[Job],
    pieces: Callable[[Job], tuple[Iterator[Piece], Callable[[], Facts]]],
    waiting: queue.Queue[object],
    stop: threading.Event,
) -> None:
    def put(item: object) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return
        raise _Stopped

    try:
        for job in jobs:
            put(_Begin(job))
            try:
                stream, facts = pieces(job)
                for piece in stream:
                    put(piece)
                put(_End(facts()))
            except (WorkersDied, WriteError):
                raise
            except (WtalError, OSError) as error:
                put(_Failed(error))
        put(_Last())
    except _Stopped:
        return
    except BaseException as error:  # not the fault of one video: the consumer raises it
        with contextlib.suppress(_Stopped):
            put(error)


class _Stopped(Exception):
    """The consumer has stopped, so the producer must stop too."""


def _consume(
    waiting: queue.Queue[object],
    networks: Mapping[Stream, Network],
    finished: Callable[[Job, Finished[Facts]], None],
    failed: Callable[[Job, Exception], None],
    progress: Callable[[Job, Piece], None],
) -> None:
    current: _Rows[Job] | None = None
    ended: list[tuple[_Rows[Job], Facts]] = []

    def settle() -> None:
        for entry in [entry for entry in ended if entry[0].complete()]:
            ended.remove(entry)
            rows, facts = entry
            try:
                finished(rows.job, Finished(rows.arrays(), facts))
            except WriteError:  # the features of the next videos cannot be written either
                raise
            except WtalError as error:
                failed(rows.job, error)

    while not isinstance(item := waiting.get(), _Last):
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, _Begin):
            current = _Rows(item.job)
            continue
        assert current is not None
        if isinstance(item, _Failed):
            assert isinstance(item.error, Exception)
            failed(current.job, item.error)  # its rows that are still to come are dropped
        elif isinstance(item, _End):
            ended.append((current, item.facts))
        else:
            assert isinstance(item, Piece)
            _enter(item, current, networks[item.stream])
            progress(current.job, item)
        settle()
    for network in networks.values():
        network.flush()
    settle()


def _enter(piece: Piece, rows: _Rows[Job], network: Network) -> None:
    data = piece.data.result() if isinstance(piece.data, FlowWindow) else piece.data
    rows.expect(piece.stream)
    network.add(data, lambda features: rows.put(piece.stream, piece.row, features))
