"""Computes the next item in a thread while the current item is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread computes the next item while the current item is used.

    An exception in the thread is raised here. The thread ends with the iteration, even if the caller stops early.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=1)
    given_up = threading.Event()

    def make() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                ready.put(item)
                if given_up.is_set():
                    return
        except BaseException as error:
            end = error
        ready.put(end)

    maker = threading.Thread(target=make, name="wtal-batches", daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        given_up.set()
        # Emptying the queue lets the thread put its item; then it sees ``given_up`` and ends.
        while maker.is_alive():
            try:
                ready.get_nowait()
            except queue.Empty:
                maker.join(0.01)
