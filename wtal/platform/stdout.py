"""Standard output whose errors can be told from those of files that are written at the same time."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any, TextIO


class StdoutError(Exception):
    """Standard output cannot be written, for example because its disk is full.

    It is neither an OSError nor a WtalError, so that no code mistakes it for the fault of a file.

    Attributes:
        errno: the number of the operating system's error.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror or error})")
        self.errno = error.errno


class Stdout:
    """A stream that raises a :class:`StdoutError` at the first error. What is written later is thrown away.

    A closed pipe raises BrokenPipeError as before, because it is usually no fault (``wtal-eval ... | head``).

    Attributes:
        failure: the error; None: there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: StdoutError | None = None

    def write(self, text: str) -> int:
        """Write like the stream."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def flush(self) -> None:
        """Flush like the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def discard(self) -> None:
        """Throw away what the stream holds and all that follows, so that no later flush can fail."""
        with contextlib.suppress(io.UnsupportedOperation):  # a stream without a descriptor, such as a test's
            descriptor = self._stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)

    def _failed(self, error: OSError) -> StdoutError:
        self.failure = StdoutError(error)
        self.discard()
        return self.failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
