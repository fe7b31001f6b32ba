"""Videos through decoding, flow and networks at the same time, in bounded memory.

One thread decodes, one video after another, and begins the flow of each block in worker processes; its pieces wait in
a queue of fixed length. The calling thread takes them in order, waits for their flow and runs the networks.
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
    """A video's features: ``[T, D]`` float32 a stream, and what the decoder found."""

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
    """No more videos."""


@dataclass
class _Rows(Generic[Job]):
    """Rows of one video as they come back from the networks, in any order."""

    job: Job
    expected: dict[Stream, int] = field(default_factory=dict)
    rows: dict[Stream, dict[int, np.ndarray]] = field(default_factory=dict)

    def expect(self, stream: Stream) -> None:
        self.expected[stream] = self.expected.get(stream, 0) + 1

    def put(self, stream: Stream, row: int, features: np.ndarray) -> None:
        self.rows.setdefault(stream, {})[row] = features.copy()  # else it would hold its whole batch

    def complete(self) -> bool:
        return all(len(self.rows.get(stream, {})) == count for stream, count in self.expected.items())

    def arrays(self) -> dict[Stream, np.ndarray]:
        return {
            stream: np.stack([self.rows[stream][row] for row in range(count)])
            for stream, count in self.expected.items()
        }


def queue_depth(steps: Sequence[float], workers: int) -> int:
    """How many pieces may wait: enough for each worker to have a block of flow, the next one, and two to spare.

    Args:
        steps: frames from one piece of a stream to its next, for every stream.
        workers: processes that compute flow.
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
        pieces: opens a video: its pieces, and a function that tells, after them, what was found. Called, and
            iterated, in a thread of its own.
        networks: for each stream that occurs.
        depth: pieces that may wait for a network.
        finished: takes each video's features.
        failed: takes what is wrong with a video, a :class:`WtalError` or :class:`OSError`; the others go on.
        progress: told of each piece as its network takes it.

    Raises:
        WorkersDied: a worker process ended by itself.
        WriteError: nothing can be written any more.
        Exception: anything that is not the fault of one video.
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
            while True:  # make room for what the producer is about to put
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
    except BaseException as error:  # not a video's fault: the consumer raises it
        with contextlib.suppress(_Stopped):
            put(error)


class _Stopped(Exception):
    """Nobody is waiting any more."""


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
            except WriteError:  # the next video's features would go the same way
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
            failed(current.job, item.error)  # rows that still come back go nowhere
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
