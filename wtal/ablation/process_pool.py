"""The process pool of ablations: several trainings at the same time, each in its own process with one thread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from wtal.errors import WtalError


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A process pool in which each process does one training. After an error or Ctrl-C no further training starts.

    Raises:
        WtalError: (when the context is left) a process was killed.
    """
    # spawn, not fork: torch has threads, and a forked child could deadlock on their locks
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1)
    try:
        yield executor
    except BrokenProcessPool:
        message = "a training was killed, perhaps for want of memory; call again with the same options to go on"
        raise WtalError(message + (", with fewer --jobs" if processes > 1 else "")) from None
    finally:
        executor.shutdown(cancel_futures=True)


def finished(
    executor: ProcessPoolExecutor, train: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Future[Any]]]:
    """Run all jobs; yields the index and the future of each job in the order in which they finish.

    Args:
        executor: the process pool.
        train: the function to call in a process.
        jobs: the arguments of each call.
    """
    waiting = {executor.submit(train, *job): place for place, job in enumerate(jobs)}
    for future in as_completed(waiting):
        yield waiting[future], future
