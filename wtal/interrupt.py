"""Ctrl-C in the middle of training: finish the step, save, then stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from wtal.distributed import ALONE, Peers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is how cluster schedulers announce the end


class Interruptible:
    """While this is entered, the first Ctrl-C (or SIGTERM) only sets :attr:`requested`; the second interrupts at once.

    Where several processes train one run, each goes by :meth:`anywhere`, and a second signal changes nothing: launchers
    and schedulers may send several at once.

    Signals reach the main thread alone: entered in another one, this changes nothing.
    """

    def __init__(self, peers: Peers = ALONE) -> None:
        self.requested = False
        self._peers = peers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take_note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def anywhere(self) -> bool:
        """Whether an interruption was requested in any process; to be asked by all of them."""
        return self._peers.any(self.requested)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and self._peers.size == 1:
            raise KeyboardInterrupt
        self.requested = True
