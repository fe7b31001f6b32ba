"""Ctrl-C, or a scheduler's SIGTERM, in the middle of training: finish the step, save, then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from wtal.platform.distributed import SINGLE_PROCESS, Processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is how cluster schedulers announce the end


class Interruptible:
    """While this is entered, Ctrl-C and SIGTERM raise KeyboardInterrupt; in :meth:`deferred` they wait.

    Where several processes train one run, further signals are ignored after the first that took effect, until the
    process ends: launchers and schedulers may send several at once.

    Signals reach the main thread alone: entered in another one, this changes nothing.

    Attributes:
        requested: whether a signal came that was deferred; stays so, as it must not be lost between two epochs.
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
        """In here the first signal only sets :attr:`requested`, and the second raises.

        Where several processes train one run, each goes by :meth:`anywhere`, and a second signal changes nothing.

        Raises:
            KeyboardInterrupt: at the end, where one process trains alone and a signal was deferred.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.requested and self._processes.size == 1:
            raise KeyboardInterrupt

    def anywhere(self) -> bool:
        """Whether an interruption was requested in any process; every process must call this."""
        return self._processes.any(self.requested)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self._processes.size > 1 and self._heeded:
            return
        if not self._deferring or (self.requested and self._processes.size == 1):
            self._heeded = True
            raise KeyboardInterrupt
        self.requested = True
