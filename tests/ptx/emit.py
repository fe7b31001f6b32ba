"""An entry as a C++ file: one function, which is what one thread does, and the entry's registration."""

from __future__ import annotations

import re

from ptx.meanings import CPP, MEANINGS
from ptx.operands import Operand, Scope
from ptx.parse import BYTES, Entry, Instruction, Label, PtxError
from ptx.statements import STATEMENTS, vector

HALVES = {"mov.b32": "b16", "mov.b64": "b32"}


def translate(instruction: Instruction, scope: Scope) -> str:
    """The C++ of one instruction."""
    opcode, operands = instruction.opcode, instruction.operands
    if opcode in STATEMENTS:
        statement = STATEMENTS[opcode](instruction, scope)
    elif opcode in HALVES and any(operand.startswith("{") for operand in operands):
        statement = pack(instruction, scope)
    elif opcode in MEANINGS:
        meaning = MEANINGS[opcode]
        names = {name: Operand(scope, text, meaning.type) for name, text in zip("abcd", operands[1:], strict=False)}
        try:
            expression = meaning.expression.format(**names, T=CPP.get(meaning.type), R=CPP[meaning.result])
        except KeyError as missing:
            raise PtxError(f"operand {missing} is missing") from None
        statement = scope.assign(operands[0], expression, meaning.result)
    else:
        raise PtxError(f"unknown instruction form {opcode}")
    if instruction.guard:
        sign, predicate = re.fullmatch(r"(!?)(.*)", instruction.guard).groups()
        return f"if ({sign}{scope.value(predicate, 'pred')}) {{ {statement} }}"
    return f"{{ {statement} }}" if statement.count(";") > 1 else statement


def pack(instruction: Instruction, scope: Scope) -> str:
    """A mov between a register and its two halves, the lower one first."""
    whole, half = instruction.opcode.removeprefix("mov."), HALVES[instruction.opcode]
    width, (to, source) = 8 * BYTES[half], instruction.operands
    if source.startswith("{"):
        low, high = (f"{CPP[whole]}({scope.value(part, half)})" for part in vector(source))
        return scope.assign(to, f"{low} | {high} << {width}", whole)
    bits = scope.value(source, whole)
    low, high = vector(to)
    return (
        f"const {CPP[whole]} bits = {bits}; {scope.assign(low, f'{CPP[half]}(bits)', half)} "
        f"{scope.assign(high, f'{CPP[half]}(bits >> {width})', half)}"
    )


def cpp_of(entry: Entry) -> str:
    """A file, or a part of one: whatever it defines has a namespace of its own."""
    scope = Scope(entry)
    lines = []
    for piece in entry.body:
        if isinstance(piece, Label):
            lines.append(f"{scope.label(piece.name)}:;")
            continue
        try:
            lines.append("  " + translate(piece, scope))
        except (PtxError, IndexError, ValueError) as error:
            text = f"{piece.opcode} {', '.join(piece.operands)}"
            raise PtxError(f"{entry.file}:{piece.line}: {error} in {text!r} of {entry.name}") from None
    placed = {piece.name for piece in entry.body if isinstance(piece, Label)}
    if scope.labels - placed:
        raise PtxError(f"{entry.file}: {entry.name} branches to {sorted(scope.labels - placed)}, which are not there")
    registers: dict[str, list[str]] = {}
    for name, kind in scope.used.items():
        registers.setdefault(CPP[kind], []).append(name)
    arrays = [f"{{{entry.begin_of(array.name)}, {array.bytes}}}" for array in entry.shared.values() if array.bytes]
    sizes = ", ".join(str(size) for size in entry.parameters.values())
    facts = f'{{"{entry.file}", &entry, {{{sizes}}}, {{{", ".join(arrays)}}}, {entry.dynamic_begin}}}'
    return "\n".join(
        [
            '#include "ptx/runtime.h"\n',
            f"namespace {{\nnamespace entry_{entry.name} {{\nusing namespace ptx;\n",
            "void entry([[maybe_unused]] const char* const* parameters) {",
            "  [[maybe_unused]] const Special here = special();",
            *(f"  {kind} {', '.join(names)};" for kind, names in registers.items()),
            *lines,
            "}\n",
            f'const Registration registration("{entry.name}", {facts});\n',
            "}\n}  // namespace\n",
        ]
    )
