"""Runs stages one after the other, each within its limit and all within a deadline, and keeps how each ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from gpu_check import ROOT, plan, report, results

PROCESSORS_FOR_EARLY = 8
LEAST = 10
"""Seconds that must be left for a stage to be begun."""


class Running:
    """A stage's process, with a log of its own if it runs beside others."""

    def __init__(self, stage: plan.Stage, log: IO[bytes]) -> None:
        self.stage, self.log, self.since = stage, log, time.monotonic()
        self.process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=plan.environment(stage),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, seconds: float) -> str:
        """'passed', 'failed' or 'timed out'; afterwards nothing of it runs."""
        try:
            code = self.process.wait(max(0.0, seconds))
            result = "passed" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            result = "timed out"
        finally:
            self.end()
        return result

    def end(self) -> None:
        """The whole group, so also what the stage itself started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                continue


@dataclasses.dataclass
class Run:
    """The stages of one run.

    Attributes:
        stages: in order.
        folder: of the results.
        seconds: for all of them.
    """

    stages: list[plan.Stage]
    folder: Path
    seconds: float

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds
        self.early: dict[str, Running] = {}
        self.current: Running | None = None

    def go(self) -> None:
        """All stages; whatever happens, no process is left."""
        try:
            if (os.cpu_count() or 1) >= PROCESSORS_FOR_EARLY:
                for stage in self.stages:
                    if stage.early and not plan.obstacle(stage):
                        # The log of what runs beside others joins the others' when its turn has come.
                        self.early[stage.name] = Running(stage, tempfile.TemporaryFile())  # noqa: SIM115
            for stage in self.stages:
                self.one(stage)
        finally:
            for running in (self.current, *self.early.values()):
                if running:
                    running.end()

    def one(self, stage: plan.Stage) -> None:
        """Run, or say why not; both on disk at once."""
        left = self.end - time.monotonic()
        reason = plan.obstacle(stage)
        if not reason and left < LEAST:
            reason = "no time was left"
        if reason:
            self.note(stage, "left out", 0.0, reason)
            return
        self.note(stage, "begun", 0.0)
        with (self.folder / results.LOG).open("ab") as log:
            log.write(f"\n== {stage.name}: {' '.join(stage.command)}\n".encode())
            log.flush()
            begun = log.tell()
            self.current = self.early.pop(stage.name, None) or Running(stage, log)
            early = self.current.log is not log
            result = self.current.wait(min(stage.limit, left))
            seconds = time.monotonic() - self.current.since
            if early:
                self.current.log.seek(0)
                log.write(self.current.log.read())
            self.current = None
        self.note(stage, result, seconds, "" if result == "passed" else last_lines(self.folder / results.LOG, begun))

    def note(self, stage: plan.Stage, result: str, seconds: float, reason: str = "") -> None:
        """To disk and to the terminal."""
        results.add(
            self.folder,
            kind="stage",
            stage=stage.name,
            result=result,
            seconds=round(seconds, 1),
            limit=stage.limit,
            reason=reason,
        )
        if result != "begun":
            last = reason.splitlines()[-1] if reason else ""
            print(f"{stage.name:<36} {result:<10} {seconds:6.1f} s  {last}", flush=True)
            report.write(self.folder)


def last_lines(log: Path, begun: int, count: int = 5) -> str:
    """What a stage said last."""
    with log.open("rb") as file:
        file.seek(max(begun, log.stat().st_size - 4000))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])
