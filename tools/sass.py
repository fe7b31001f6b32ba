"""Machine code of kernels, counted: how many instructions a kernel has, its main loop, and one turn of that loop.

Needs nvdisasm, of the CUDA toolkit or of the Python package triton; where there is none, nothing is counted.
"""

from __future__ import annotations

import dataclasses
import heapq
import importlib.util
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterable
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
        turn: of a turn of that loop, the fewest with which it can pass every tensor-core product and every
            asynchronous copy between its ends: a tile that needs no mask while the next one is loaded. 0 without such.
    """

    all: int
    loop: int
    turn: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the listing."""

    opcode: str  # without modifiers
    conditional: bool
    target: str  # label of a branch


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


def parse(body: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of a section but NOP, and which of them each label stands before."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in body.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?\w+\s+)?(\w+)(.*)", line):
            target = re.search(r"`\((\.L_\w+)\)", found[3])
            if found[2] != "NOP":
                is_branch = found[2] == "BRA" and target
                instructions.append(Instruction(found[2], bool(found[1]), target[1] if is_branch else ""))
    return instructions, labels


def count(body: str) -> Code:
    """Of one section of nvdisasm's output."""
    instructions, labels = parse(body)
    opcodes = [instruction.opcode for instruction in instructions]
    loops = [
        (labels[one.target], end)
        for end, one in enumerate(instructions)
        if one.target in labels and labels[one.target] < end  # a branch to itself ends every kernel
    ]
    for kind in ("HMMA", "SHFL", ""):
        found = [(b, e) for b, e in loops if not kind or kind in opcodes[b : e + 1]]
        if found:
            begin, end = max(found, key=lambda loop: loop[1] - loop[0])
            passed = [i for i in range(begin, end) if kind == "HMMA" and opcodes[i] in ("HMMA", "LDGSTS")]
            turn = fewest(instructions, labels, [begin, *passed, end]) if passed else 0
            return Code(len(opcodes), end + 1 - begin, turn)
    return Code(len(opcodes), 0, 0)


def fewest(instructions: list[Instruction], labels: dict[str, int], stops: list[int]) -> int:
    """The fewest instructions from the first stop to the last, both counted, through all others in order."""
    total = 1
    for here, there in itertools.pairwise(stops):
        if here != there:
            total += distance(instructions, labels, here, there)
    return total


def distance(instructions: list[Instruction], labels: dict[str, int], begin: int, end: int) -> int:
    """The length of the shortest way, by Dijkstra."""
    best, queue = {begin: 0}, [(0, begin)]
    while queue:
        steps, here = heapq.heappop(queue)
        if here == end:
            return steps
        for following in successors(instructions[here], labels, here):
            if following < len(instructions) and steps + 1 < best.get(following, len(instructions)):
                best[following] = steps + 1
                heapq.heappush(queue, (steps + 1, following))
    raise ValueError(f"no way leads from instruction {begin} to {end}")


def successors(instruction: Instruction, labels: dict[str, int], here: int) -> Iterable[int]:
    """What may come next."""
    if instruction.target in labels:
        yield labels[instruction.target]
        if not instruction.conditional:
            return
    if instruction.opcode != "EXIT" or instruction.conditional:
        yield here + 1
