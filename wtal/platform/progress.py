"""Progress of a running job: progress bars on a terminal, plain lines elsewhere, and messages in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_EVERY = 10.0  # seconds between lines without a terminal


class Reporter:
    """Shows progress on the console and writes every message to the run's log.

    Args:
        console: the console.
        quiet: show only results.
        log: the log, which also gets every message; None: there is no run folder.
    """

    def __init__(self, console: Console, quiet: bool = False, log: logging.Logger | None = None) -> None:
        self.console = console
        self.quiet = quiet
        self.log = log
        self._last_line = 0.0

    def say(self, message: str) -> None:
        """Print a message on its own line, and log it."""
        if self.log:
            self.log.info(message)
        if not self.quiet:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def work(self, title: str, total: int, unit: str = "") -> Iterator[Work]:
        """Show the progress of work of ``total`` steps; call ``advance`` of the result after each step."""
        with Work(self, title, total, unit) as work:
            yield work

    @contextmanager
    def counted(self, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Show the progress of work whose size is not known at the start; yields ``progress(done, total)``."""
        with Work(self, title, 0, unit) as work:

            def progress(done: int, total: int) -> None:
                work.total = total
                work.advance(done - work.done)

            yield progress

    def log_only(self, message: str) -> None:
        """Write a message only to the log."""
        if self.log:
            self.log.info(message)

    def seldom(self, message: str) -> None:
        """Print a message if the console is not a terminal and the last such message is at least 10 seconds old."""
        now = time.monotonic()
        if not self.quiet and not self.console.is_terminal and now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)


class Work:
    """The progress of one piece of work. On a terminal it is a bar with rate, values and time left."""

    def __init__(self, reporter: Reporter, title: str, total: int, unit: str) -> None:
        self.reporter = reporter
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self._before = 0  # steps that an earlier process has done
        self.started = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Work:
        if self.reporter.console.is_terminal and not self.reporter.quiet:
            narrow = self.reporter.console.width < 110  # the text after the bar is more important than its width
            self._bar = Progress(
                TextColumn("{task.description}" if narrow else "{task.description:<24}", markup=False),
                BarColumn(bar_width=8 if narrow else 24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self.reporter.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def skip(self, steps: int) -> None:
        """Start after ``steps`` steps that an earlier process has done. They do not count in the rate."""
        self._before = self.done = steps

    def advance(self, steps: int = 1, facts: Mapping[str, float] | None = None) -> None:
        """Report ``steps`` more steps as done; ``facts`` are values to show."""
        self.done += steps
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self._before) / seconds
        shown = [f"{rate:.3g} {self.unit}/s"] if self.unit else []
        shown += [f"{name} {value:.4g}" for name, value in (facts or {}).items()]
        if self._bar:
            self._bar.update(self._task, completed=self.done, total=self.total, facts="  ".join(shown))
        elif self.done < self.total:
            left = seconds / max(self.done - self._before, 1) * (self.total - self.done)
            self.reporter.seldom(f"{self.title}: {self.done}/{self.total}  {'  '.join(shown)}  {left:.0f} s left")
