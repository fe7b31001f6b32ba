"""Compile every kernel with nvcc for each architecture and print what ptxas gave it, as a table.

Warnings are errors. Fails for a kernel that spills registers or keeps a stack frame, unless
tools/ptxas_exceptions.toml gives a reason. Shared memory is what the kernel declares: a launch may add to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
EXCEPTIONS = ROOT / "tools" / "ptxas_exceptions.toml"
ARCHITECTURES = (80, 86, 90)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes but for the registers."""

    source: str
    kernel: str
    architecture: int
    registers: int
    shared: int
    spills: int
    stack: int


def flags_of(source: Path) -> list[str]:
    """What csrc/CMakeLists.txt adds for this source alone."""
    build = (ROOT / "csrc" / "CMakeLists.txt").read_text()
    found = re.search(
        rf"set_property\(SOURCE cuda/{re.escape(source.name)} APPEND PROPERTY COMPILE_OPTIONS (.*)\)", build
    )
    return shlex.split(found[1]) if found else []


def compile_kernels(source: Path, architecture: int) -> str:
    """Ptxas' report; ends the program where nvcc fails or warns."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("nvcc", "-std=c++20", "-cubin", f"-arch=sm_{architecture}", "-O3", *flags_of(source)),
            *("-Xptxas", "-v", "--Werror", "all-warnings", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
            *(f"-I{ROOT / 'csrc'}", "-isystem", f"{Path(torch.__file__).parent / 'include'}"),
            *(str(source), "-o", f"{folder}/kernels.cubin"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def kernels_of(report: str, source: str, architecture: int) -> list[Usage]:
    """One Usage for each entry function in the report."""
    sections = re.split(r"Compiling entry function '(\w+)' for 'sm_\w+'", report)[1:]
    names = subprocess.run(["c++filt"], input="\n".join(sections[::2]), capture_output=True, text=True, check=True)
    usages = []
    for name, section in zip(names.stdout.splitlines(), sections[1::2], strict=True):

        def number(pattern: str, section: str = section) -> int:
            found = re.search(pattern, section)
            return int(found[1]) if found else 0

        usages.append(
            Usage(
                source,
                short_name(name),
                architecture,
                registers=number(r"Used (\d+) registers"),
                shared=number(r"(\d+) bytes smem"),
                spills=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
                stack=number(r"(\d+) bytes stack frame"),
            )
        )
    return usages


def short_name(demangled: str) -> str:
    """Of 'void wtal::scan<long>(long const*, ...)', 'scan<long>'."""
    name, depth = demangled.removeprefix("void "), 0
    for i, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0 and not name.startswith("(anonymous", i):
            name = name[:i]
            break
    for noise in ("(anonymous namespace)::", "torch::headeronly::", "c10::", "wtal::"):
        name = name.replace(noise, "")
    return name


def faults_of(usages: list[Usage], exceptions: list[dict[str, object]]) -> list[str]:
    """What is not excused, and excuses that nothing needs."""
    faults, needed = [], set()
    for usage in usages:
        if usage.spills == 0 and usage.stack == 0:
            continue
        excuse = next(
            (
                i
                for i, entry in enumerate(exceptions)
                if entry["kernel"] == usage.kernel and usage.architecture in entry["architectures"]
            ),
            None,
        )
        if excuse is None:
            faults.append(f"{usage.kernel} on sm_{usage.architecture}: {usage.spills} B spills, {usage.stack} B stack")
        else:
            needed.add(excuse)
    for i, entry in enumerate(exceptions):
        if not entry.get("reason"):
            faults.append(f"{EXCEPTIONS.name}: no reason for {entry['kernel']}")
        if i not in needed:
            faults.append(f"{EXCEPTIONS.name}: {entry['kernel']} needs no exception any more")
    return faults


def table(usages: list[Usage]) -> str:
    """A row a kernel; registers / shared / spills / stack under each architecture."""
    by_kernel: dict[tuple[str, str], dict[int, Usage]] = {}
    for usage in usages:
        by_kernel.setdefault((usage.source, usage.kernel), {})[usage.architecture] = usage
    architectures = sorted({usage.architecture for usage in usages})
    width = max(len(kernel) for _, kernel in by_kernel)
    head = "regs  shared spill stack"
    lines = [
        " " * width + "".join(f"  | {'sm_' + str(a):<{len(head)}}" for a in architectures),
        f"{'kernel':<{width}}" + f"  | {head}" * len(architectures),
    ]
    for (_, kernel), row in sorted(by_kernel.items()):
        cells = (
            f"{u.registers:>4} {u.shared:>7} {u.spills:>5} {u.stack:>5}" if (u := row.get(a)) else " " * len(head)
            for a in architectures
        )
        lines.append(f"{kernel:<{width}}" + "".join(f"  | {cell}" for cell in cells))
    return "\n".join(lines)


def main() -> int:
    """Compile, print, compare with the exceptions, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, metavar="SM")
    architectures = parser.parse_args().architectures
    jobs = [(path, sm) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu")) for sm in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(lambda job: compile_kernels(*job), jobs)
        usages = [
            u for (path, sm), report in zip(jobs, reports, strict=True) for u in kernels_of(report, path.stem, sm)
        ]
    print(table(usages))
    exceptions = [
        entry
        for entry in tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
        if set(entry["architectures"]) & set(architectures)
    ]
    faults = faults_of(usages, exceptions)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
