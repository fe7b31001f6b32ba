"""tools/gpu_check.sh without a GPU: what is kept when stages fail, take too long or are killed; the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_check import install, plan, report, results, run
from gpu_check.__main__ import unfit

ROOT = Path(__file__).parents[2]


def stage(name: str, program: str, limit: int = 60, **more: object) -> plan.Stage:
    return plan.Stage(name, [sys.executable, "-P", "-c", program], limit, **more)


def finds(folder: Path, stage_name: str) -> str:
    """A program that keeps one finding, as the measuring stages do."""
    row = f"kind='finding', stage='{stage_name}', what='copy', rate=2e9"
    return f"import pathlib; from gpu_check import results; results.add(pathlib.Path({str(folder)!r}), {row});"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tools"))


def outcomes(folder: Path) -> dict[str, str]:
    return {row["stage"]: row["result"] for row in json.loads((folder / results.SUMMARY).read_text())["stages"]}


def ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has asked yet how it ended."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_stages_that_fail_or_take_too_long_cost_the_others_nothing(tmp_path: Path) -> None:
    child = tmp_path / "child"
    sleeper = f"import subprocess; p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid));"
    stages = [
        stage("wrong", "raise SystemExit('the reason')"),
        stage("slow", finds(tmp_path, "ceilings") + sleeper + "p.wait()", limit=3),
        stage("right", "print('fine')"),
        stage("elsewhere", "", needs="no-such-program"),
    ]
    run.Run(stages, tmp_path, seconds=60).go()
    assert outcomes(tmp_path) == {"wrong": "failed", "slow": "timed out", "right": "passed", "elsewhere": "left out"}
    assert ended(int(child.read_text()))  # what a stage started ends with it
    text = (tmp_path / results.REPORT).read_text()
    assert "the reason" in text
    assert "no-such-program is not on the path" in text
    assert "2 GB/s" in text  # found before the time was over
    assert "fine" in (tmp_path / results.LOG).read_text()


def test_stages_beyond_the_deadline_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LEAST", 1)
    sleep = "import time; time.sleep(60)"
    run.Run([stage("first", sleep), stage("second", "")], tmp_path, seconds=2).go()
    assert outcomes(tmp_path) == {"first": "timed out", "second": "left out"}
    assert "no time was left" in (tmp_path / results.REPORT).read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_can_be_reported(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM writes the report itself; after SIGKILL --report makes it of what lies on disk."""
    program = (
        "import pathlib, sys, signal; from gpu_check import run, plan; signal.signal(15, lambda *_: sys.exit(143));"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"one = plan.Stage('one', [sys.executable, '-P', '-c', {(finds(tmp_path, 'ceilings') + 'import time; time.sleep(60)')!r}], 60);"  # noqa: E501
        "run.Run([one], folder, 60).go()"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", program])
    until = time.monotonic() + 60
    while not any(row["kind"] == "finding" for row in results.read(tmp_path)):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(30)
    with (tmp_path / results.RESULTS).open("a") as file:
        file.write('{"kind": "find')  # a line that was not finished
    done = subprocess.run(
        [ROOT / "tools" / "gpu_check.sh", "--report", "--out", tmp_path],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path) == {"one": "cut off"}
    assert "CUT OFF" in done.stdout
    assert "2 GB/s" in done.stdout


def test_times_stand_beside_the_least_that_the_ceilings_allow(tmp_path: Path) -> None:
    add = {"kind": "finding", "stage": "ceilings"}
    results.add(tmp_path, **add, what="copy", rate=1e12)
    results.add(tmp_path, **add, what="matrix product", dtype="bfloat16", size=8, rate=1e14)
    for side, seconds in (("wtal, rows", 4e-3), ("SDPA, mask", 1e-2)):
        label = {"case": "dense", "window": None, "dtype": "bfloat16", "side": side, "passes": "forward"}
        more = {"bytes": 1e9, "flops": 2e11, "seconds": seconds, "spread": 1e-5}
        results.add(tmp_path, kind="finding", stage="attention", what="attention", **label, **more)
    text = report.write(tmp_path)
    assert (
        "| wtal, rows | 4.000 ± 0.010 | 1.00 | 2.00 | 2.000 ms, operations |" in text
    )  # 1 ms for bytes, 2 for operations
    assert "| SDPA, mask | 10.000 ± 0.010 | 2.50 | 5.00 |" in text


def test_a_failed_test_is_named_and_a_run_of_skips_fails(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    bad, skipped = "def test_bad():\n    assert 1 == 2\n", "@pytest.mark.skip\ndef test_not():\n    pass\n"
    file.write_text(f"import pytest\n{bad}{skipped}def test_good():\n    pass\n")

    def outcome(wanted: str) -> int:
        options = ["--out", str(tmp_path), "--stage", "s", "-k", wanted, "--", str(file), f"--rootdir={tmp_path}"]
        return subprocess.run(plan.python("gpu_check.tests", *options), cwd=tmp_path, capture_output=True).returncode

    assert outcome("good") == 0
    assert outcome("not") != 0
    assert outcome("good or bad") != 0
    found = [row for row in results.read(tmp_path) if row["what"] == "failed test"]
    assert [row["test"].rpartition("::")[2] for row in found] == ["test_bad"]
    assert "assert 1 == 2" in found[0]["reason"]


def test_the_full_size_check_sees_a_wrong_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from gpu_check import full_size
    from gpu_check.hardware import Bench

    right = full_size.temporal_attention_rows
    bench = Bench("full_size", tmp_path, dry=True)
    assert full_size.measure(bench) == []
    monkeypatch.setattr(full_size, "temporal_attention_rows", lambda *a: right(*a) * (1 + 1e-4))
    faults = full_size.measure(bench)
    assert any("out has error" in fault for fault in faults)
    assert any("grad_v has error" in fault for fault in faults)
    monkeypatch.setattr(full_size, "temporal_attention_rows", lambda *a: right(*a) + 1e-3)
    assert any("not zero in rows of no video" in fault for fault in full_size.measure(bench))


def test_the_plan_starts_with_what_matters_and_needs_no_network() -> None:
    stages = plan.stages(Path("out"), 90, dry=False)
    names = [stage.name for stage in stages]
    assert len(names) == len(set(names))
    order = ["build", "tests of the kernels", "full size", "attention", "memcheck", "tests on compute_86 PTX"]
    assert [name for name in names if name in order] == order
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(install.command("native"))
    assert install.environment("native", "90-real")["SKBUILD_CMAKE_DEFINE"] == "CMAKE_CUDA_ARCHITECTURES=90-real"
    memcheck = stages[names.index("memcheck")]
    assert memcheck.command[0] == memcheck.needs == "compute-sanitizer"
    assert plan.obstacle(stages[names.index("build")]) in ("", "nvcc is not on the path")


@pytest.mark.parametrize("word", plan.SMALLEST.split(" or "))
def test_what_a_sanitizer_runs_exists(word: str) -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests" / "ops").glob("test_*.py"))
    assert re.search(rf"^def {word}", sources, re.MULTILINE)


def test_a_gpu_that_is_too_old_is_told_in_one_line() -> None:
    assert "compute capability 7.5" in unfit((7, 5))
    assert "8.0" in unfit((7, 5))
    assert "no GPU" in unfit(None)
