"""Trainings side by side: a process each, one thread each."""

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
    """Processes for one training each. At the end, and after an error or Ctrl-C, no further training begins."""
    # spawn: a process that torch has run in does not fork well
    context = multiprocessing.get_context("spawn")
    made = ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1)
    try:
        yield made
    except BrokenProcessPool:
        message = "a training was killed, perhaps for want of memory; call again with the same options to go on"
        raise WtalError(message + (", with fewer --jobs" if processes > 1 else "")) from None
    finally:
        made.shutdown(cancel_futures=True)


def finished(
    made: ProcessPoolExecutor, train: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Future[Any]]]:
    """Each job's place and its future, as they finish; ``train`` is called with the job's items."""
    waiting = {made.submit(train, *job): place for place, job in enumerate(jobs)}
    for future in as_completed(waiting):
        yield waiting[future], future
