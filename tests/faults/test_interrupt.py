"""Ctrl-C saves in the middle of an epoch and says how to go on; so does SIGTERM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wtal.platform.distributed import Processes
from wtal.platform.interrupt import Interruptible
from wtal.runs.run import Run


@pytest.mark.parametrize(
    ("number", "point", "count"),
    [
        (signal.SIGINT, "before a step", 5),  # warm-up, in the middle of an epoch
        (signal.SIGTERM, "before a step", 20),  # B
        (signal.SIGINT, "before a step", 27),  # the last step of an epoch
        (signal.SIGINT, "while a checkpoint is written", 6),
        (signal.SIGINT, "before a result is saved", 3),
        (signal.SIGTERM, "before a result is saved", 2),  # outside of any epoch
        (signal.SIGTERM, "after the teacher's pseudo-labels", 1),
    ],
)
def test_interrupted(number: int, point: str, count: int, tiny, wtal, whole, outcome, record, tmp_path) -> None:
    folder = tmp_path / "run"
    stopped = wtal("train", *tiny.arguments(folder), strike=(number, point, count))
    assert stopped.code == 130, stopped.text
    assert stopped.text.strip().splitlines()[-1].endswith(f"go on with: wtal-train --resume {folder}")
    if point == "before a step":
        saved = Run.open(folder).checkpoints.load(pytest.fail)
        assert f"saved all that was trained in {saved[0].path}" in stopped.text
        per_epoch = 3
        facts = saved[0].facts
        steps = {0: 0, 2: 9, 3: 18, 4: 27}[facts["stage"]] + per_epoch * facts["epoch"] + facts["batch"]
        assert steps == count
    resumed = wtal("train", "--resume", folder, "--threads", 1)
    assert resumed.code == 0, resumed.text
    assert outcome.of(folder).differences(outcome.of(whole)) == []
    epochs = [line.split(" ", 2)[2] for line in (folder / "log.txt").read_text().splitlines() if " epoch " in line]
    assert set(epochs) == {
        line.split(" ", 2)[2] for line in (whole / "log.txt").read_text().splitlines() if " epoch " in line
    }
    record(signal.Signals(number).name, f"{point}, time {count}", "saved; told how; resumed to the same bits")


def test_an_interrupt_between_two_epochs_is_not_lost(tiny, wtal, whole, outcome, record, tmp_path) -> None:
    """It comes when the epoch has been saved and has asked for the last time."""
    folder = tmp_path / "run"
    strike = (signal.SIGINT, "after an epoch asked for interrupts", 6)  # each asks three times
    stopped = wtal("train", *tiny.arguments(folder), strike=strike)
    assert stopped.code == 130, stopped.text
    saved = Run.open(folder).checkpoints.load(pytest.fail)
    assert [saved[0].facts[name] for name in ("stage", "epoch", "batch")] == [0, 2, 0]
    assert f"interrupted; go on with: wtal-train --resume {folder}" in stopped.text
    assert wtal("train", "--resume", folder, "--threads", 1).code == 0
    assert outcome.of(folder).differences(outcome.of(whole)) == []
    record("SIGINT", "between two epochs", "stopped there; told how; resumed to the same bits")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the handlers of signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_several_signals_at_once_interrupt_one_of_several_processes_once() -> None:
    after = []

    def train() -> None:
        with Interruptible(Processes(0, 2)):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # while the first one ends what runs
                after.append("not cut off")

    with pytest.raises(KeyboardInterrupt):
        train()
    os.kill(os.getpid(), signal.SIGTERM)  # while the process ends
    assert after == ["not cut off"]


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_interrupts_a_process_alone_at_once() -> None:
    def train() -> None:
        with Interruptible() as interrupt, interrupt.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.anywhere()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_two_processes_do_not_train_one_run(tiny, wtal, whole, tmp_path) -> None:
    import fcntl

    with (whole / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = wtal("train", "--resume", whole, "--threads", 1)
    assert done.code == 2
    assert "another process is training this run" in done.text
