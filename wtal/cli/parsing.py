"""The common part of all commands: parsing with tyro, error messages on one line, exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tyro

from wtal.errors import WtalError
from wtal.platform.stdout import Stdout, StdoutError

Options = TypeVar("Options")


def parse(options: type[Options], program: str, arguments: Sequence[str], default: Options | None = None) -> Options:
    """Parse command-line arguments into a dataclass.

    Raises:
        WtalError: tyro rejects an option or a value. The message is one line and names similar options.
        SystemExit: after ``--help``.
    """
    for word in arguments:
        if any(
            "\ud800" <= character <= "\udfff" for character in word
        ):  # Python's escapes for bytes that are not UTF-8
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


def whole_numbers(texts: Sequence[str], option: str, such_as: str) -> list[int]:
    """The whole numbers of an option whose values are numbers and ranges, such as ``7`` and ``0-2``; each number once.

    Raises:
        WtalError: a value is neither, or a range is empty.
    """
    try:
        found = list(dict.fromkeys(number for text in texts for number in _range(text)))
    except ValueError:
        found = []
    if not found:
        raise WtalError(f"{option} {' '.join(texts)}: expected numbers such as {such_as}")
    return found


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    found = range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError(text)
    return found


def run(command: Callable[[Sequence[str]], int | None], program: str, alone: bool = False) -> int:
    """Run a command with the arguments of the process, or print the versions for ``--version``; returns the exit code.

    The message of a :class:`WtalError` goes to stderr. Ctrl-C gives the exit code 130. If stdout is a closed pipe, the
    command ends without a message; if it cannot be written for another reason, with one line. Characters that the
    terminal's encoding lacks are printed as escapes.

    Args:
        command: takes the arguments and returns the exit code; None means 0.
        program: the name of the program, for messages.
        alone: reject torchrun, because under torchrun every process would do the whole work.
    """
    if sys.stdout is None:  # the shell closed it (>&-)
        return _run(command, program, alone)
    original = sys.stdout
    stdout = sys.stdout = Stdout(original)
    try:
        try:
            code = _run(command, program, alone)
        finally:
            stdout.flush()
        if stdout.failure is not None and code == 0:
            raise stdout.failure  # a library has caught it
        return code
    except StdoutError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return WtalError.exit_code
    except BrokenPipeError:
        stdout.discard()
        return 1
    finally:
        sys.stdout = original


def _run(command: Callable[[Sequence[str]], int | None], program: str, alone: bool) -> int:
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # the stream may be None or replaced by another object
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
    """Report an error once per machine: under torchrun, only the first process of a machine prints it.

    For errors that occur in every process before the processes can communicate.
    """
    try:
        yield
    except WtalError as error:
        if int(os.environ.get("LOCAL_RANK", 0)):
            raise SystemExit(error.exit_code) from None
        raise


def with_ranges(arguments: Sequence[str], *options: str) -> list[str]:
    """Move options with several numbers to the end, so that a file name after them is not parsed as a number.

    ``0.5:0.05:0.95`` becomes the numbers from 0.5 to 0.95 with step 0.05, and ``0.5,0.75`` becomes two numbers.

    Args:
        arguments: the command-line arguments.
        options: the options that take several numbers.

    Raises:
        WtalError: a range is malformed, or an option has no number.
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
    """The numbers in an argument, as text; None if it is something else."""
    try:
        if ":" not in word:
            return [repr(float(part)) for part in word.split(",") if part] or None
        parts = [float(part) for part in word.split(":")]
    except ValueError:
        return None
    if len(parts) == 3:
        first, step, last = parts
        if first + step > last:  # FIRST:LAST:STEP is accepted too, the order of Python's range
            step, last = last, step
        if step > 0 and 0 <= (last - first) / step < 1000:
            count = int((last - first) / step + 1e-6) + 1
            return [repr(round(first + step * index, 12)) for index in range(count)]
    raise WtalError(f"{option} {word}: expected numbers, or FIRST:STEP:LAST such as 0.5:0.05:0.95")


def _one_line(box: str, program: str) -> str:
    """tyro's framed message as one line: the error, and the first proposed option."""
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
