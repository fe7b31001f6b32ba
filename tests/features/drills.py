"""Running the command in a process of its own, killing it, and measuring what it takes."""

from __future__ import annotations

import contextlib
import os
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


RECORD = """
import atexit, os, sys
def record():
    with open("/proc/self/status") as status:
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    kinds = {"--multiprocessing-fork": "worker", "wtal.cli.extract": "command"}
    kind = next((kind for word, kind in kinds.items() if word in sys.orig_argv), "other")
    with open(os.path.join(os.environ["PEAKS"], f"{kind}-{os.getpid()}"), "w") as file:
        file.write(peak)
atexit.register(record)
"""


def recording(folder: Path) -> dict[str, str]:
    """The environment of a command whose processes write down, as they end, the most memory that they have held."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(RECORD)
    return {"PYTHONPATH": str(folder), "PEAKS": str(folder)}


def recorded(folder: Path) -> dict[str, list[int]]:
    """The largest resident sizes in bytes, as the kernel counts them: of the command and of each worker."""
    peaks: dict[str, list[int]] = {}
    for path in folder.glob("*-*"):
        peaks.setdefault(path.name.split("-")[0], []).append(1024 * int(path.read_text()))
    return peaks
