"""SIGKILL at any moment; ``--resume`` then ends with the same bits as a run that nobody disturbed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

POINTS = [
    ("before a step", 20),
    ("after the teacher's pseudo-labels", 1),
    ("before the student's first step", 2),
    ("while a checkpoint is half written", 9),
    ("before an old checkpoint is removed", 2),
    # The long form only:
    ("before a step", 1),
    ("while a checkpoint is half written", 1),
    ("before a checkpoint is renamed", 12),
    ("after a checkpoint is renamed", 13),
    ("before a result is saved", 1),
    ("before a result is saved", 4),
]
QUICK = 5
KILLS = 20  # of the long form, at random times


def phase(folder: Path) -> str:
    """Where a run was when it was killed, by the last line of its log."""
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return re.split("[:,;]", lines[-1].split(" ", 2)[2])[0] if lines else "before the first line of the log"


@pytest.mark.parametrize(("point", "count"), POINTS)
def test_killed_at_a_point(point: str, count: int, tiny, wtal, whole, outcome, record, long_form, tmp_path) -> None:
    if not long_form and POINTS.index((point, count)) >= QUICK:
        pytest.skip("runs with -m faults")
    folder = tmp_path / "run"
    killed = wtal("train", *tiny.arguments(folder), strike=(signal.SIGKILL, point, count))
    assert killed.code == -signal.SIGKILL, killed.text
    where = phase(folder)
    resumed = wtal("train", "--resume", folder, "--threads", 1)
    assert resumed.code == 0, resumed.text
    assert outcome.of(folder).differences(outcome.of(whole)) == []
    assert list(folder.rglob("*.tmp")) == []
    record("SIGKILL", f"{point}, time {count}; last log line: {where}", "resumed to the same bits")


def test_killed_again_and_again(tiny, wtal, whole, outcome, record, tmp_path) -> None:
    folder = tmp_path / "run"
    arguments = tiny.arguments(folder)
    strikes = [("before a step", 3), ("while a checkpoint is half written", 4), ("before a result is saved", 1)]
    for point, count in strikes * 2:
        killed = wtal("train", *arguments, strike=(signal.SIGKILL, point, count))
        assert killed.code == -signal.SIGKILL, killed.text
        arguments = ["--resume", str(folder), "--threads", "1"]
    assert wtal("train", *arguments).code == 0
    assert outcome.of(folder).differences(outcome.of(whole)) == []
    record("SIGKILL", "six times in one run", "resumed to the same bits")


def test_killed_in_online_training(tiny, wtal, outcome, record, tmp_path) -> None:
    """Where two optimisers, two moving averages and pseudo-labels of the epoch are at stake."""
    done = wtal("train", *tiny.arguments(tmp_path / "whole", schedule__kind="online"))
    assert done.code == 0, done.text
    folder = tmp_path / "run"
    arguments = tiny.arguments(folder, schedule__kind="online")
    # 9 steps of warm-up, 9 of the control, 6 an online epoch; then the second online epoch's checkpoint.
    for point, count in [("before a step", 28), ("while a checkpoint is half written", 2)]:
        killed = wtal("train", *arguments, strike=(signal.SIGKILL, point, count))
        assert killed.code == -signal.SIGKILL, killed.text
        assert phase(folder).startswith("online"), phase(folder)
        arguments = ["--resume", str(folder), "--threads", "1"]
    assert wtal("train", *arguments).code == 0
    assert outcome.of(folder).differences(outcome.of(tmp_path / "whole")) == []
    record("SIGKILL", "twice in online training", "resumed to the same bits")


def test_killed_at_random_times(tiny, wtal, whole, outcome, record, long_form, tmp_path) -> None:
    """Fresh processes, killed from outside; the times are spread over the run, imports included in the long form."""
    seed = int(time.time())
    print(f"seed {seed}")
    drawn = random.Random(seed)
    begun = time.monotonic()
    wtal("train", *tiny.arguments(tmp_path / "timed"))
    seconds = time.monotonic() - begun
    kills, tries = KILLS if long_form else 2, 0
    while kills:
        tries += 1
        assert tries < 200, "hardly a kill hits the run"
        folder = tmp_path / f"run{tries}"
        delay = seconds * drawn.random()
        process = wtal.start("train", *tiny.arguments(folder))
        time.sleep(delay)
        if _alive(process):
            os.kill(process, signal.SIGKILL)
        killed = wtal.end()
        assert killed.code in (0, -signal.SIGKILL), killed.text
        if not killed.code:  # it had ended: other runs of now may be as short
            seconds = min(seconds, delay)
            continue
        kills -= 1
        where = phase(folder)
        if not (folder / "config.toml").is_file():  # killed before the run folder was written
            assert wtal("train", *tiny.arguments(folder.with_name(f"again{tries}"))).code == 0
            told = "started again"
        else:
            resumed = wtal("train", "--resume", folder, "--threads", 1)
            assert resumed.code == 0, resumed.text
            assert outcome.of(folder).differences(outcome.of(whole)) == [], f"seed {seed}, try {tries}"
            told = "resumed to the same bits"
        record("SIGKILL", f"{delay:.2f} s after the start; last log line: {where}", told)


def test_a_fresh_process_gives_the_same_bits_as_a_forked_one(tiny, whole, outcome, long_form, tmp_path) -> None:
    """So that what the other drills show of forked processes holds for the command as a user starts it."""
    if not long_form:
        pytest.skip("starts a process with all imports; runs with -m faults")
    command = [sys.executable, "-P", "-m", "wtal.cli.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder = tmp_path / "run"
    process = subprocess.Popen([*command, *tiny.arguments(folder)], env=environment, stdout=subprocess.DEVNULL)
    while not any((folder / "checkpoints").glob("*-000007*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    resume = [*command, "--resume", str(folder), "--threads", "1"]
    subprocess.run(resume, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert outcome.of(folder).differences(outcome.of(whole)) == []


def _alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
