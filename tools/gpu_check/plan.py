"""The stages, most valuable first: a run that is cut off has told the most important things."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

from gpu_check.install import site

SANITIZERS = {"memcheck": 60, "racecheck": 45, "initcheck": 45, "synccheck": 45}
"""The tools of compute-sanitizer, and seconds for each."""

SMALLEST = (
    "test_cuda_gives_the_same_bits_again or test_rows_of_no_video_in_half_precision or test_cuda_stays_within_the_rows"
    " or test_a_small_example or test_an_op_waits"
)
"""Of the ops' tests, those that launch each kernel on little; a sanitizer slows a kernel down a hundredfold."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One question to the GPU.

    Attributes:
        name: in the report.
        command: what is run, as a process group of its own.
        limit: seconds, after which it is ended.
        build: the build that it runs on; empty for none.
        environment: added to that of the process.
        needs: a program without which the stage is left out.
        early: may run beside other stages from the start on, where there are processors enough.
    """

    name: str
    command: list[str]
    limit: int
    build: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    needs: str = ""
    early: bool = False


def stages(folder: Path, capability: int, dry: bool) -> list[Stage]:
    """All of them. `capability`: of the GPU, 90 for 9.0. A dry run takes the installed wtal and builds nothing."""

    def measure(topic: str, limit: int) -> Stage:
        options = ["--out", str(folder), *(["--dry-run"] if dry else [])]
        return Stage(topic.replace("_", " "), python("gpu_check.measure", topic, *options), limit, "native")

    def tests(name: str, limit: int, build: str, *arguments: str, wanted: str, **more: object) -> Stage:
        command = python("gpu_check.tests", "--out", str(folder), "--stage", name, "-k", wanted, "--")
        return Stage(name, [*command, *arguments], limit, build, **more)

    quick, few = {"HYPOTHESIS_PROFILE": "quick"}, {"HYPOTHESIS_PROFILE": "sanitized"}
    ops = ["-m", "gpu", "tests/ops"]
    with_torch = ["-m", "gpu", "tests/ops", "tests/models/test_autocast.py", "tests/training/test_one_process_group.py"]
    of_kernels, smallest = "not compiles and not opcheck and not graph", SMALLEST
    integration = "compiles or opcheck or graph or bfloat16 or broadcasts"
    if dry:
        ops = ["-m", "cuda_on_host", "tests/ops/test_group_proposals.py"]
        with_torch = ["-m", "not gpu", *with_torch[3:]]
        of_kernels = smallest = "test_a_small_example or test_no_proposal"

    found = [
        build_stage("build", "native", f"{capability}-real", 240),
        Stage("versions", python("gpu_check.versions"), 40, "native"),
        tests("tests of the kernels", 100, "native", *ops, wanted=of_kernels, environment=quick),
        measure("ceilings", 30),
        measure("full_size", 60),
        measure("attention", 130),
        measure("postprocessing", 60),
        measure("steps", 90),
        measure("flow", 40),
    ]
    for tool, limit in list(SANITIZERS.items())[: 1 if dry else None]:  # without the tool they are all the same
        stage = tests(tool, limit, "native", *ops, wanted=smallest, environment=few, needs="compute-sanitizer")
        found.append(stage if dry else sanitized(stage, tool))
    found += [
        build_stage("build of compute_86 PTX", "ptx", "86-virtual", 240, early=True),
        tests("tests on compute_86 PTX", 60, "ptx", *ops, wanted=of_kernels, environment=quick),
        tests("graphs, compile, autocast, nccl", 120, "native", *with_torch, wanted=integration, environment=quick),
        tests("tests of the kernels, all examples", 150, "native", *ops, wanted=of_kernels),
    ]
    if dry:
        found = [stage for stage in found if not stage.name.startswith("build")]
        found = [dataclasses.replace(stage, build="", needs="") for stage in found if "all examples" not in stage.name]
    return found


def python(module: str, *arguments: str) -> list[str]:
    """The command of a module of this package."""
    return [sys.executable, "-P", "-m", module, *arguments]


def build_stage(name: str, build: str, architecture: str, limit: int, early: bool = False) -> Stage:
    """Of one package, for one architecture."""
    return Stage(name, python("gpu_check.install", build, architecture), limit, needs="nvcc", early=early)


def sanitized(stage: Stage, tool: str) -> Stage:
    """The same under one tool of compute-sanitizer, every allocation by itself."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    environment = {**stage.environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return dataclasses.replace(stage, command=[*command, *stage.command], environment=environment)


def environment(stage: Stage) -> dict[str, str]:
    """Of the stage's process: its build comes first on the path."""
    path = [str(site(stage.build))] if stage.build else []
    path += [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"} | stage.environment


def obstacle(stage: Stage) -> str:
    """Why the stage cannot run here; empty if it can."""
    if stage.needs and shutil.which(stage.needs) is None:
        return f"{stage.needs} is not on the path"
    if stage.build and not (site(stage.build) / "wtal").is_dir():
        return f"there is no build '{stage.build}'"
    return ""
