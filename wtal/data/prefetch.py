"""The next item made in a thread while the last is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next made in a thread while the last is used.

    What the thread raises is raised here. The thread ends with the iteration, also with one that is given up.
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
        # Making room lets the thread put what it holds, and then it sees that nobody waits.
        while maker.is_alive():
            try:
                ready.get_nowait()
            except queue.Empty:
                maker.join(0.01)
