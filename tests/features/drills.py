"""Running the command in a process of its own, killing it, and measuring what it takes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def start(*arguments: object, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """``wtal-extract`` in a session of its own, so that its workers can be found."""
    with log.open("ab") as file:
        return subprocess.Popen(
            # A shell gives what it runs in the background a deaf ear for Ctrl-C, and all that it starts.
            ["env", "--default-signal=INT", sys.executable, "-P", "-m", "wtal.cli.extract", *map(str, arguments)],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, **environment},
        )


def tree(root: Path) -> dict[str, bytes]:
    """Every file under a folder, also hidden ones."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def members(session: int) -> dict[int, str]:
    """Processes of a session that are alive, and what the kernel says of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found[int(entry.name)] = (entry / "status").read_text()
    return found


def kill(process: subprocess.Popen[bytes], how: int = signal.SIGKILL, patience: float = 60) -> None:
    """End the command's own process, and see that its workers end by themselves."""
    process.send_signal(how)
    process.wait()
    deadline = time.monotonic() + patience
    while left := members(process.pid):
        assert time.monotonic() < deadline, f"workers that outlive their parent: {list(left)}"
        time.sleep(0.05)


def peak_memory(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Waits for the command; the largest resident size of it and of each worker, in bytes."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid, status in members(process.pid).items():
            if match := re.search(r"VmHWM:\s+(\d+) kB", status):
                peaks[pid] = max(peaks.get(pid, 0), int(match[1]) * 1024)
        time.sleep(0.05)
    return peaks
