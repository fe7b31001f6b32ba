"""Optical flow computed in worker processes, with a cache on disk."""

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
    """A block of flow that a worker computes or reads."""

    def result(self) -> np.ndarray:
        """Wait for the block: ``[n, crop, crop, 2]`` int16."""


class WorkersDied(WtalError):
    """A worker process ended unexpectedly, so the pool cannot compute any further block."""


class FlowPool:
    """Computes blocks of flow in worker processes.

    It is a context manager. The processes end when the context is left, and also when this process is killed.

    Args:
        backend: a key of :data:`wtal.features.flow.BACKENDS`.
        workers: the number of processes.

    Attributes:
        identity: :attr:`wtal.features.flow.FlowBackend.identity` of the backend.

    Raises:
        WtalError: the backend's package is not installed.
        WorkersDied: a worker cannot start.
    """

    def __init__(self, backend: str, workers: int) -> None:
        self.identity = BACKENDS[backend]().identity  # raises here, not in a worker, if a package is missing
        # spawn, not fork: this process has threads (torch, decoding), and a forked child could deadlock on their locks.
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
        if error is not None:  # a block takes seconds and is no longer needed
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, frames: Sequence[np.ndarray], crop: int, repeat: bool, cached: Path | None) -> Pending:
        """Start to compute one block, or to read it from the cache.

        Args:
            frames: see :func:`wtal.features.flow.flow_block`.
            crop: see :func:`wtal.features.flow.flow_block`.
            repeat: see :func:`wtal.features.flow.flow_block`.
            cached: the cache file of this block. It is read if it exists, else written. None: no cache.

        Returns:
            The block. Its ``result`` raises :class:`wtal.platform.files.WriteError` if the cache cannot be written.
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
    """Postpone Ctrl-C until the context is left, and keep it from the workers started in the context.

    A terminal sends SIGINT to every process of its group. Workers inherit the signal mask of this thread, which blocks
    SIGINT, so no worker can receive it before it has set SIGINT to be ignored. The mask holds for this thread only.
    Another thread of this process may still receive the signal. Python would then interrupt the main thread, perhaps
    between the start of a worker and the message that the worker waits for. A temporary handler prevents this.
    """
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


_backend: FlowBackend


def _start(backend: str) -> None:
    """Initialise a worker process."""
    global _backend
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    _backend = BACKENDS[backend]()
    _backend.start_worker()
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A waiting worker holds both ends of its queue, so it would wait for ever if the parent was killed.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _ready() -> None:
    """Do nothing. To submit this makes the pool start a worker."""


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
    """A block from the cache; None if the file does not exist, is damaged, or has another shape or dtype."""
    try:
        block = load_npy(path)
    except WtalError:
        return None
    return block if block.shape == shape and block.dtype == np.int16 else None
