"""Flow in worker processes, with a cache on disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from wtal.data.npy import load_npy
from wtal.errors import WtalError
from wtal.features.flow import BACKENDS, FlowBackend, flow_block
from wtal.platform.files import replacing


class Pending(Protocol):
    """A block of flow that is being computed or read."""

    def result(self) -> np.ndarray:
        """Waits for it: ``[n, crop, crop, 2]`` int16."""


class WorkersDied(WtalError):
    """A worker process ended by itself: nothing more can be computed."""


class FlowPool:
    """Computes blocks of flow in ``workers`` processes.

    A context; leaving it ends the processes. They also end when this process is killed.

    Args:
        backend: name in :data:`wtal.features.flow.BACKENDS`.
        workers: how many processes.
    """

    def __init__(self, backend: str, workers: int) -> None:
        self.identity = BACKENDS[backend]().identity  # tells at once what is missing
        # spawn: this process has threads (torch, decoding), which a fork would leave in pieces.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(backend,))
        try:
            with _interrupt_waits():
                while len(self._pool._processes) < workers:
                    self._pool.submit(_ready)
        except BrokenProcessPool:
            raise _died() from None

    def __enter__(self) -> FlowPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # a block takes seconds, and nobody wants it any more
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, frames: Sequence[np.ndarray], crop: int, repeat: bool, cached: Path | None) -> Pending:
        """Begin one block; arguments as for :func:`wtal.features.flow.flow_block`.

        Args:
            frames: as there.
            crop: as there.
            repeat: as there.
            cached: file that has the block already, or gets it.

        Returns:
            Its flow. Its ``result`` raises :class:`wtal.platform.files.WriteError` where the cache cannot be written.
        """
        try:
            return _Computing(self._pool.submit(_compute, list(frames), crop, repeat, cached))
        except BrokenProcessPool:
            raise _died() from None


class _Computing:
    def __init__(self, future: Future[np.ndarray]) -> None:
        self._future = future

    def result(self) -> np.ndarray:
        try:
            return self._future.result()
        except BrokenProcessPool:
            raise _died() from None


def _died() -> WorkersDied:
    return WorkersDied("a flow worker died, perhaps for want of memory; fewer --workers need less. Run again to go on")


@contextmanager
def _interrupt_waits() -> Iterator[None]:
    """Ctrl-C has its effect at the end, on this process alone.

    A terminal sends it to every process. Workers that are started in here inherit a mask that blocks it, so that it
    cannot hit one before it is able to ignore it. The mask is of this thread, and another thread of this process may
    still take the signal; Python would then interrupt the main thread between a worker's start and the message that
    the worker waits for. So the handler waits too.
    """
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


_backend: FlowBackend


def _start(backend: str) -> None:
    """Makes ready a worker process."""
    global _backend
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    _backend = BACKENDS[backend]()
    _backend.start_worker()
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A worker that waits for work holds both ends of its queue: it would wait for ever after a killed parent.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _ready() -> None:
    """Nothing to do: what begins a worker."""


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _compute(frames: list[np.ndarray], crop: int, repeat: bool, cached: Path | None) -> np.ndarray:
    shape = (max(len(frames) - 1 + repeat, 1), crop, crop, 2)
    if cached is not None and (block := _kept(cached, shape)) is not None:
        return block
    block = flow_block(_backend, frames, crop, repeat)
    if cached is not None:
        with replacing(cached) as file:
            np.save(file, block)
    return block


def _kept(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """A block of the cache; None where it is not there or of no use, whatever is wrong with it."""
    try:
        block = load_npy(path)
    except WtalError:
        return None
    return block if block.shape == shape and block.dtype == np.int16 else None
