"""Compile every kernel with nvcc for each architecture and print what ptxas gave it, as a table.

Where there is a disassembler (tools/sass.py), the instructions of the machine code are counted as well: of the kernel,
of its main loop with all its branches, and of a turn of the loop that loads and multiplies a tile.

Warnings are errors. Fails for a kernel that spills registers or keeps a stack frame, unless
tools/ptxas_exceptions.toml gives a reason; for one without __launch_bounds__, or whose block would need more registers
than an SM has; and for one whose shared memory, with what its launch adds (tools/dynamic_shared.toml), is more than a
block of the architecture may have.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sass
import torch

ROOT = Path(__file__).parents[1]
EXCEPTIONS = ROOT / "tools" / "ptxas_exceptions.toml"
DYNAMIC_SHARED = ROOT / "tools" / "dynamic_shared.toml"
ARCHITECTURES = (80, 86, 90)
REGISTERS_OF_AN_SM = 65536
MOST_SHARED = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}  # bytes a block; CUDA C++ programming guide


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes but for the registers."""

    source: str
    kernel: str
    architecture: int
    registers: int
    shared: int  # what the kernel declares and what its launch adds
    spills: int
    stack: int
    threads: int  # at most, a block; 0 where the kernel does not say
    code: sass.Code | None  # None where there is no disassembler


def flags_of(source: Path) -> list[str]:
    """What csrc/CMakeLists.txt adds for this source alone."""
    build = (ROOT / "csrc" / "CMakeLists.txt").read_text()
    found = re.search(
        rf"set_property\(SOURCE cuda/{re.escape(source.name)} APPEND PROPERTY COMPILE_OPTIONS (.*)\)", build
    )
    return shlex.split(found[1]) if found else []


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What nvcc and ptxas said of one source, and the PTX between them."""

    report: str
    ptx: str
    code: dict[str, sass.Code]  # by mangled name


def nvcc(source: Path, folder: str, *options: str) -> str:
    """Output of nvcc; ends the program where it fails or warns."""
    command = [
        *("nvcc", "-std=c++20", "-O3", *options, "--Werror", "all-warnings"),
        *("-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{ROOT / 'csrc'}"),
        *("-isystem", f"{Path(torch.__file__).parent / 'include'}", str(source), "-o", f"{folder}/out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def compile_kernels(source: Path, architecture: int) -> Compiled:
    """To machine code."""
    with tempfile.TemporaryDirectory() as folder:
        kept = ("--keep", "--keep-dir", folder)
        options = ("-cubin", f"-arch=sm_{architecture}", *flags_of(source), "-Xptxas", "-v", *kept)
        report = nvcc(source, folder, *options)
        return Compiled(report, (Path(folder) / f"{source.stem}.ptx").read_text(), sass.code_of(Path(folder) / "out"))


def dynamic_bytes(kernels: list[str], entries: list[dict[str, str]]) -> dict[str, int]:
    """Of each kernel that has an entry, the bytes that its launch adds, as the compiler evaluates the expression."""
    wanted = {
        kernel: (entry["header"], entry["bytes"].format(*split_arguments(kernel)))
        for kernel in kernels
        for entry in entries
        if kernel.partition("<")[0] == entry["kernel"]
    }
    if not wanted:
        return {}
    lines = [f'#include "{header}"' for header in sorted({header for header, _ in wanted.values()})]
    lines += ["namespace wtal {"]
    lines += [f'extern "C" __device__ int bytes_{n} = {text};' for n, (_, text) in enumerate(wanted.values())]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "bytes.cu"
        source.write_text("\n".join([*lines, "}\n"]))
        nvcc(source, folder, "-ptx", "-arch=compute_86")
        found = dict(re.findall(r"bytes_(\d+)(?: = (\d+))?;", (Path(folder) / "out").read_text()))
    return {kernel: int(found[str(n)] or 0) for n, kernel in enumerate(wanted)}


def split_arguments(kernel: str) -> list[str]:
    """The template arguments of a kernel's name."""
    return [part.strip() for part in kernel.partition("<")[2].removesuffix(">").split(",")]


def kernels_of(compiled: Compiled, source: str, architecture: int) -> list[Usage]:
    """One Usage for each entry function in the report."""
    sections = re.split(r"Compiling entry function '(\w+)' for 'sm_\w+'", compiled.report)[1:]
    names = subprocess.run(["c++filt"], input="\n".join(sections[::2]), capture_output=True, text=True, check=True)
    heads = dict(re.findall(r"\.entry (\w+)\([^)]*\)([^{]*)\{", compiled.ptx))
    usages = []
    for mangled, name, section in zip(sections[::2], names.stdout.splitlines(), sections[1::2], strict=True):

        def number(pattern: str, section: str = section) -> int:
            found = re.search(pattern, section)
            return int(found[1]) if found else 0

        bounds = re.search(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?", heads[mangled])
        usages.append(
            Usage(
                source,
                short_name(name),
                architecture,
                registers=number(r"Used (\d+) registers"),
                shared=number(r"(\d+) bytes smem"),
                spills=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
                stack=number(r"(\d+) bytes stack frame"),
                threads=math.prod(int(size or 1) for size in bounds.groups()) if bounds else 0,
                code=compiled.code.get(mangled),
            )
        )
    return usages


def kernels_with_dynamic_memory(compiled: Compiled) -> set[str]:
    """Names of the entries that use the array without a size."""
    arrays = re.findall(r"\.extern \.shared [^;]*?(\w+)\[\];", compiled.ptx)
    entries = re.split(r"\.entry (\w+)\(", compiled.ptx)[1:]
    found = [name for name, body in zip(entries[::2], entries[1::2], strict=True) if any(a in body for a in arrays)]
    names = subprocess.run(["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True)
    return {short_name(name) for name in names.stdout.splitlines()}


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


def limits_broken(usages: list[Usage]) -> list[str]:
    """Kernels that cannot be launched with as many threads as they allow, or say nothing about threads."""
    broken = []
    for usage in usages:
        name = f"{usage.kernel} on sm_{usage.architecture}"
        if usage.threads == 0:
            broken.append(f"{name} has no __launch_bounds__")
        # Registers are given out to a warp in units of 8 a thread.
        elif (needed := -(-usage.registers // 8) * 8 * usage.threads) > REGISTERS_OF_AN_SM:
            broken.append(f"{name}: {usage.threads} threads need {needed} registers, an SM has {REGISTERS_OF_AN_SM}")
        most = MOST_SHARED.get(usage.architecture, min(MOST_SHARED.values()))
        if usage.shared > most:
            broken.append(f"{name}: {usage.shared} B of shared memory, a block may have {most}")
    return broken


def table(usages: list[Usage]) -> str:
    """A row a kernel; threads and, under each architecture, registers, memory and instructions."""
    by_kernel: dict[tuple[str, str], dict[int, Usage]] = {}
    for usage in usages:
        by_kernel.setdefault((usage.source, usage.kernel), {})[usage.architecture] = usage
    architectures = sorted({usage.architecture for usage in usages})
    width = max(len(kernel) for _, kernel in by_kernel)
    head = "regs  shared spill stack  sass  loop  turn"
    lines = [
        " " * width + "  threads" + "".join(f"  | {'sm_' + str(a):<{len(head)}}" for a in architectures),
        f"{'kernel':<{width}}  a block" + f"  | {head}" * len(architectures),
    ]
    for (_, kernel), row in sorted(by_kernel.items()):
        cells = (
            f"{u.registers:>4} {u.shared:>7} {u.spills:>5} {u.stack:>5} {counted(u)}"
            if (u := row.get(a))
            else " " * len(head)
            for a in architectures
        )
        lines.append(
            f"{kernel:<{width}}{next(iter(row.values())).threads:>9}" + "".join(f"  | {cell}" for cell in cells)
        )
    return "\n".join(lines)


def counted(usage: Usage) -> str:
    """Instructions of the kernel, of its main loop and of a turn of it."""
    numbers = (usage.code.all, usage.code.loop, usage.code.turn) if usage.code else "???"
    return " ".join(f"{number:>5}" for number in numbers)


def main() -> int:
    """Compile, print, compare with the exceptions, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, metavar="SM")
    architectures = parser.parse_args().architectures
    jobs = [(path, sm) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu")) for sm in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        everything = list(pool.map(lambda job: compile_kernels(*job), jobs))
    usages = [u for (path, sm), one in zip(jobs, everything, strict=True) for u in kernels_of(one, path.stem, sm)]
    added = dynamic_bytes(
        sorted({usage.kernel for usage in usages}), tomllib.loads(DYNAMIC_SHARED.read_text())["dynamic_shared"]
    )
    usages = [dataclasses.replace(usage, shared=usage.shared + added.get(usage.kernel, 0)) for usage in usages]
    unlisted = set().union(*map(kernels_with_dynamic_memory, everything)) - set(added)
    print(table(usages))
    if sass.disassembler() is None:
        print(sass.MISSING)
    exceptions = [
        entry
        for entry in tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
        if set(entry["architectures"]) & set(architectures)
    ]
    faults = faults_of(usages, exceptions) + limits_broken(usages)
    faults += [
        f"{kernel} uses dynamic shared memory, {DYNAMIC_SHARED.name} does not say how much" for kernel in unlisted
    ]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
