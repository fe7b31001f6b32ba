"""PTX text, as nvcc writes it, into entries: parameters, registers, shared arrays, labels and instructions.

Whatever it does not know is an error with file and line; nothing is passed over but the directives that carry no
meaning for the result (``.loc``, ``.pragma``, launch bounds) and module variables that no instruction names.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

BYTES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
BYTES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8}

ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(([^)]*)\)([^{]*)\{")
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+%([a-z]+)<\d+>;")
SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?;")
PIECE = re.compile(r"\s*(?:(\{)|(\})|([$\w]+):|([^;{}\s][^;{}]*(?:\{[^{}]*\}[^;{}]*)*;))")
PREDICATED = re.compile(r"@(!?)(%\w+)\s+(.*)", re.DOTALL)
MEANINGLESS = (".loc", ".file", ".pragma")
GAP = 128


class PtxError(Exception):
    """Something in the PTX that the translator does not know; the message names place and text."""


@dataclasses.dataclass(frozen=True)
class Label:
    """A place that branches go to."""

    name: str


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: ``@guard opcode operands``; a guard of ``!%p1`` wants the predicate false."""

    line: int
    opcode: str
    operands: tuple[str, ...]
    guard: str = ""


@dataclasses.dataclass(frozen=True)
class Shared:
    """A shared array of one entry; bytes 0 is the launch's dynamic memory."""

    name: str
    align: int
    bytes: int


@dataclasses.dataclass
class Entry:
    """A kernel."""

    file: str
    name: str
    parameters: dict[str, int]  # name -> bytes
    registers: dict[str, str]  # prefix -> type
    shared: dict[str, Shared]
    body: list[Label | Instruction]

    def begin_of(self, array: str) -> int:
        """Where a shared array begins. Between two of them lie bytes that nobody may touch."""
        position = GAP
        for shared in self.shared.values():
            if shared.bytes == 0:
                continue
            position = -(-position // shared.align) * shared.align
            if shared.name == array:
                return position
            position += shared.bytes + GAP
        return -(-position // GAP) * GAP

    @property
    def dynamic_begin(self) -> int:
        """Where the launch's dynamic memory begins: behind all arrays."""
        return self.begin_of("")


def parse(text: str, file: str) -> list[Entry]:
    """All entries of a module."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    if found := re.search(r"^\s*(?:\.\w+\s+)*\.func\b", text, re.MULTILINE):
        raise PtxError(f"{file}:{line_of(text, found.end())}: a function that is not an entry: inline it")
    dynamic = {
        name: Shared(name, int(align or 16), 0)
        for align, _, name, count in re.findall(r"\.extern\s+" + SHARED.pattern, text)
        if not count
    }
    # nvcc writes an array that several entries have outside of them, at the beginning of a line.
    shared = {found[3]: shared_array(found) for found in re.finditer("^" + SHARED.pattern, text, re.MULTILINE)}
    return [parse_entry(text, found, file, dynamic, shared) for found in ENTRY.finditer(text)]


def shared_array(found: re.Match[str]) -> Shared:
    """Of a match of SHARED."""
    size = BYTES[found[2]]
    return Shared(found[3], int(found[1] or size), size * int(found[4] or 1))


def line_of(text: str, position: int) -> int:
    """Lines count from 1."""
    return text.count("\n", 0, position) + 1


def parse_entry(
    text: str, found: re.Match[str], file: str, dynamic: dict[str, Shared], shared: dict[str, Shared]
) -> Entry:
    """From the entry's name to the brace that closes it. Of the module's shared arrays it has those that it names."""
    parameters = {name: BYTES[kind] * int(count or 1) for kind, name, count in PARAMETER.findall(found[2])}
    entry = Entry(file, found[1], parameters, {}, dict(dynamic), [])
    position, depth, line = found.end(), 1, line_of(text, found.end())
    while depth > 0:
        piece = PIECE.match(text, position)
        if piece is None:
            rest = text[position:].strip().split("\n")[0]
            raise PtxError(f"{file}:{line}: not a statement: {rest!r}")
        begin = piece.start(piece.lastindex)
        line += text.count("\n", position, begin)
        depth += bool(piece[1]) - bool(piece[2])
        if piece[3]:
            entry.body.append(Label(piece[3]))
        elif piece[4]:
            try:
                add_statement(entry, " ".join(piece[4].split()), line)
            except PtxError as error:
                raise PtxError(f"{file}:{line}: {error}") from None
        position = piece.end()
        line += text.count("\n", begin, position)
    words = set(re.findall(r"[\w$]+", text[found.end() : position]))
    entry.shared |= {name: array for name, array in shared.items() if name in words}
    return entry


def add_statement(entry: Entry, statement: str, line: int) -> None:
    """A directive or an instruction, up to its semicolon."""
    if statement.startswith("."):
        if found := REGISTERS.fullmatch(statement):
            entry.registers[found[2]] = found[1]
        elif found := SHARED.fullmatch(statement):
            entry.shared[found[3]] = shared_array(found)
        elif statement.split()[0] not in MEANINGLESS:
            raise PtxError(f"unknown directive: {statement}")
        return
    guard = ""
    if found := PREDICATED.fullmatch(statement):
        guard, statement = found[1] + found[2], found[3]
    opcode, _, rest = statement.removesuffix(";").strip().partition(" ")
    entry.body.append(Instruction(line, opcode, split_operands(rest), guard))


def split_operands(text: str) -> tuple[str, ...]:
    """At the commas outside of braces and brackets."""
    return tuple(part.strip() for part in re.findall(r"(?:[^,{\[]|\{[^}]*\}|\[[^\]]*\])+", text) if part.strip())


def parse_file(path: Path) -> list[Entry]:
    """All entries of a file."""
    return parse(path.read_text(), path.name)
