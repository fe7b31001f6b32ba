"""The table in docs/reliability.md is of all drills or not written at all."""

from __future__ import annotations

from pathlib import Path


def test_only_a_whole_session_writes_the_table(partial) -> None:
    files = set(Path(__file__).parent.glob("test_*.py"))
    assert partial(["tests"], files, []) is None
    assert partial(["tests/faults"], files | {Path("tests/training/test_trainer.py")}, []) is None
    assert "test_kill.py was not asked for" in partial(["x"], files - {Path(__file__).with_name("test_kill.py")}, [])
    assert "only tests/faults/test_kill.py::test_x" in partial(["tests/faults/test_kill.py::test_x"], files, [])
    assert partial(["tests"], files, ["test_disk.py::test_y"]) == "test_disk.py::test_y did not run"
