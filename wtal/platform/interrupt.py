"""Handles Ctrl-C and SIGTERM, so that training can finish the step and save before it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from wtal.platform.distributed import SINGLE_PROCESS, Processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # cluster schedulers send SIGTERM before they end a job


class Interruptible:
    """A context in which Ctrl-C and SIGTERM raise KeyboardInterrupt. Inside :meth:`deferred` they are delayed.

    If several processes train one run, all signals after the first effective one are ignored until the process ends,
    because launchers and schedulers may send several at once.

    Only the main thread receives signals. In another thread this context has no effect.

    Attributes:
        requested: whether a signal was deferred. It stays True, so that a signal is not lost between two epochs.
    """

    def __init__(self, processes: Processes = SINGLE_PROCESS) -> None:
        self.requested = False
        self._deferring = self._heeded = False
        self._processes = processes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take_note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = kind is KeyboardInterrupt and self._processes.size > 1
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which the first signal only sets :attr:`requested`, and the second one raises.

        If several processes train one run, a second signal has no effect, and the caller asks :meth:`anywhere`.

        Raises:
            KeyboardInterrupt: at the end, if there is only one process and a signal was deferred.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.requested and self._processes.size == 1:
            raise KeyboardInterrupt

    def anywhere(self) -> bool:
        """Whether a signal was deferred in any process. Every process must call this."""
        return self._processes.any(self.requested)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self._processes.size > 1 and self._heeded:
            return
        if not self._deferring or (self.requested and self._processes.size == 1):
            self._heeded = True
            raise KeyboardInterrupt
        self.requested = True
