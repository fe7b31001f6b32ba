"""Commands of wtal as processes that start in a moment: forked from one that has imported torch already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Commands:
    """Runs commands of wtal, each in a process of its own that ``server.py`` forks after its imports.

    Such a process is like one that a user starts, but for the start itself: every command has a test that starts it
    with ``python -m`` as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.server = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "WTAL_CACHE": str(folder / "cache")},
        )

    def __call__(
        self,
        command: str,
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdout: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``stdout`` is a file to write to instead, such as ``/dev/full``."""
        self.start(command, *arguments, folder=folder, environment=environment, stdout=stdout)
        code, written, told = self.end()
        return subprocess.CompletedProcess([command, *map(str, arguments)], code, written, told)

    def start(
        self,
        command: str,
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: tuple[Path, str, Sequence[object]] | None = None,
        stdout: Path | None = None,
        joined: bool = False,
    ) -> int:
        """Begin a command; returns its process id. Call :meth:`end` before the next.

        Args:
            command: its name, without ``wtal-``.
            arguments: its arguments.
            folder: the folder it works in; else one of all commands.
            environment: what is added to its environment.
            prepare: file, function and arguments of what to call in the process first.
            stdout: the file it prints to; else one whose text :meth:`end` returns.
            joined: whether its errors go where its output goes.
        """
        self.count += 1
        self.output = self.folder / f"output-{self.count}.txt"
        self.errors = self.output if joined else self.folder / f"errors-{self.count}.txt"
        for path in (self.output, self.errors):
            path.touch()
        request = {
            "command": command,
            "arguments": [str(word) for word in arguments],
            "stdout": str(stdout or self.output),
            "stderr": str(self.errors),
            "folder": str(folder or self.folder),
            "environment": {**(environment or {})},
            "prepare": prepare and (str(prepare[0]), *prepare[1:]),
        }
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def end(self) -> tuple[int, str, str]:
        """Wait for the command: its exit code (minus the signal that killed it), its output and its errors."""
        code = int(self.server.stdout.readline())
        return code, self.output.read_text(encoding="utf-8"), self.errors.read_text(encoding="utf-8")

    def close(self) -> None:
        """End the server."""
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()
