"""What all commands share: parsing by tyro, errors on one line, exit codes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tyro

from wtal.errors import WtalError

Options = TypeVar("Options")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def parse(options: type[Options], program: str, arguments: Sequence[str], default: Options | None = None) -> Options:
    """Parse command-line arguments into a dataclass.

    Raises:
        WtalError: an option or value that tyro rejects, in one line, with the option that was probably meant.
        SystemExit: after ``--help``.
    """
    for word in arguments:
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python tells bytes that are not UTF-8
            raise WtalError(f"{word!r}: not UTF-8; paths and names must be")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(options, prog=program, args=arguments)
            return tyro.cli(options, prog=program, args=arguments, default=default)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise WtalError(_one_line(complaint.getvalue(), program)) from None


def run(command: Callable[[Sequence[str]], int | None], program: str, alone: bool = False) -> int:
    """Run a command with the process's arguments, or do what ``--version`` asks for; returns the exit code.

    A :class:`WtalError` goes to stderr as it is written, nearly always one line; Ctrl-C exits with 130, a closed pipe
    quietly, a full disk behind stdout with one line. What the terminal's encoding lacks is shown as an escape. A
    command that works ``alone`` refuses torchrun, under which every process would do all of it.
    """
    try:
        try:
            return _run(command, program, alone)
        finally:
            if sys.stdout is not None:  # as where it was closed (>&-): there is nobody to tell
                sys.stdout.flush()
    except OSError as error:
        closed = isinstance(error, BrokenPipeError)
        if not closed and (error.filename is not None or error.errno not in _FULL):
            raise  # of a file it would have the name, or be a WriteError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        if not closed:
            print(f"{program}: error: standard output cannot be written ({error.strerror or error})", file=sys.stderr)
        return 1 if closed else 2


def _run(command: Callable[[Sequence[str]], int | None], program: str, alone: bool) -> int:
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # no text stream of Python's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if alone and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            with once_a_machine():
                raise WtalError("works in one process: start it without torchrun")
        if "--version" in arguments:
            from wtal.about import print_version

            return print_version()
        return command(arguments) or 0
    except WtalError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"{program}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


@contextlib.contextmanager
def once_a_machine() -> Iterator[None]:
    """For what all processes of torchrun find alike before they know of each other: one a machine tells an error."""
    try:
        yield
    except WtalError as error:
        if int(os.environ.get("LOCAL_RANK", 0)):
            raise SystemExit(error.exit_code) from None
        raise


def with_ranges(arguments: Sequence[str], *options: str) -> list[str]:
    """Arguments in which options that take several numbers come last, so that no file after them is taken for one.

    ``0.5:0.05:0.95`` becomes the numbers from 0.5 by 0.05 to 0.95, and ``0.5,0.75`` two.

    Raises:
        WtalError: a range that is none, or no number.
    """
    rest: list[str] = []
    ranges: dict[str, list[str]] = {}
    open_option = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if option in options:
            ranges.setdefault(option, []).extend(_numbers(option, value) or [] if equals else [])
            if equals and not _numbers(option, value):
                raise WtalError(f"{word}: expected numbers, or FIRST:STEP:LAST such as 0.5:0.05:0.95")
            open_option = "" if equals else option
        elif open_option and (numbers := _numbers(open_option, word)) is not None:
            ranges[open_option] += numbers
        else:
            open_option = ""
            rest.append(word)
    for option, values in ranges.items():
        if not values:
            raise WtalError(f"{option}: expected numbers after it, or FIRST:STEP:LAST such as 0.5:0.05:0.95")
    return [*rest, *(word for option, values in ranges.items() for word in (option, *values))]


def _numbers(option: str, word: str) -> list[str] | None:
    """The numbers that a word stands for, None where it is something else."""
    try:
        if ":" not in word:
            return [repr(float(part)) for part in word.split(",") if part] or None
        parts = [float(part) for part in word.split(":")]
    except ValueError:
        return None
    if len(parts) == 3:
        first, step, last = parts
        if first + step > last:  # as Python has it, the step last
            step, last = last, step
        if step > 0 and 0 <= (last - first) / step < 1000:
            count = int((last - first) / step + 1e-6) + 1
            return [repr(round(first + step * index, 12)) for index in range(count)]
    raise WtalError(f"{option} {word}: expected numbers, or FIRST:STEP:LAST such as 0.5:0.05:0.95")


def _one_line(box: str, program: str) -> str:
    """The gist of tyro's framed message: what it rejects, what it proposes instead."""
    rows = [line.strip("│").strip() for line in box.splitlines() if line.startswith("│")]
    if not rows:
        return " ".join(box.split())
    end = next((i for i, row in enumerate(rows) if row.startswith("──")), len(rows))
    text = " ".join(rows[:end])
    text = text[:1].lower() + text[1:]
    hints = [i for i, row in enumerate(rows) if row.startswith(("Perhaps you meant", "Arguments similar to"))]
    if hints and hints[0] + 1 < len(rows):
        text += f"; did you mean {rows[hints[0] + 1]}?"
    return f"{text} (all options: {program} --help)"
