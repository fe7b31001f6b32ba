"""Machine code of kernels, counted: how many instructions a kernel has, and how many its main loop.

Needs nvdisasm, of the CUDA toolkit or of the Python package triton; where there is none, nothing is counted.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

MISSING = (
    "SASS is not counted: nvdisasm is not on the path; it is a package of the CUDA toolkit (cuda-nvdisasm-*), and "
    "'pip install triton' brings one"
)


@dataclasses.dataclass(frozen=True)
class Code:
    """Instructions of one kernel, padding left out.

    Attributes:
        all: of the whole kernel.
        loop: between the ends of its main loop, whatever branches there are: the longest loop that multiplies on
            tensor cores, or that shuffles where none does, else the longest. What ptxas has moved behind the loop is
            not in it.
        by_kind: those of the loop, by opcode without its modifiers.
    """

    all: int
    loop: int
    by_kind: dict[str, int]


def disassembler() -> str | None:
    """The path of nvdisasm."""
    if found := shutil.which("nvdisasm"):
        return found
    triton = importlib.util.find_spec("triton")
    for folder in triton.submodule_search_locations or () if triton else ():
        path = Path(folder) / "backends" / "nvidia" / "bin" / "nvdisasm"
        if path.exists():
            return str(path)
    return None


def code_of(cubin: Path) -> dict[str, Code]:
    """By mangled name; empty without a disassembler."""
    program = disassembler()
    if program is None:
        return {}
    text = subprocess.run([program, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    sections = re.split(r"^\s*\.section\s+\.text\.(\w+),.*$", text, flags=re.MULTILINE)[1:]
    return {name: count(body) for name, body in zip(sections[::2], sections[1::2], strict=True)}


def count(body: str) -> Code:
    """Of one section of nvdisasm's output."""
    labels: dict[str, int] = {}
    opcodes: list[str] = []
    loops: list[tuple[int, int]] = []
    for line in body.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(opcodes)
        elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?(\w+)(.*)", line):
            if instruction[1] == "NOP":
                continue
            opcodes.append(instruction[1])
            target = re.search(r"`\((\.L_\w+)\)", instruction[2])
            # A branch to itself ends every kernel.
            if instruction[1] == "BRA" and target and labels.get(target[1], len(opcodes)) < len(opcodes) - 1:
                loops.append((labels[target[1]], len(opcodes)))
    inside: list[str] = []
    for kind in ("HMMA", "SHFL", ""):
        found = [opcodes[begin:end] for begin, end in loops if not kind or kind in opcodes[begin:end]]
        if found:
            inside = max(found, key=len)
            break
    return Code(len(opcodes), len(inside), {kind: inside.count(kind) for kind in dict.fromkeys(inside)})
