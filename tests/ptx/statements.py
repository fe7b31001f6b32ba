"""Instructions that are more than an expression: memory, branches, barriers, and what a warp does together.

Each function takes the instruction and the scope it stands in, and gives the C++ statements, or None where the opcode
is not its own. A form is listed in STATEMENTS only if it is tested: test_instructions.py has a case for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ptx.meanings import CPP, alternatives
from ptx.operands import Scope
from ptx.parse import BYTES, Instruction, PtxError


def vector(operand: str) -> list[str]:
    """Registers of ``{%r1, %r2}``, or the one."""
    return [part.strip() for part in operand.strip("{}").split(",")]


def types_of(instruction: Instruction) -> tuple[str, int]:
    """The type of one element, and how many there are."""
    parts = instruction.opcode.split(".")
    count = next((int(part[1]) for part in parts if re.fullmatch(r"v[24]", part)), 1)
    return parts[-1], count


def load(i: Instruction, scope: Scope) -> str:
    kind, count = types_of(i)
    registers = vector(i.operands[0])
    if len(registers) != count:
        raise PtxError(f"{i.operands[0]} for {i.opcode}")
    pointer = scope.pointer(i.operands[1], i.opcode.split(".")[1], BYTES[kind] * count, i.line)
    if count == 1:
        return scope.assign(registers[0], f"load<{CPP[kind]}>({pointer})", kind, widens=True)
    reads = [
        scope.assign(register, f"load<{CPP[kind]}>(from + {n * BYTES[kind]})", kind, widens=True)
        for n, register in enumerate(registers)
    ]
    return f"const char* const from = {pointer}; {' '.join(reads)}"


def store(i: Instruction, scope: Scope) -> str:
    kind, count = types_of(i)
    registers = vector(i.operands[1])
    if len(registers) != count:
        raise PtxError(f"{i.operands[1]} for {i.opcode}")
    pointer = scope.pointer(i.operands[0], i.opcode.split(".")[1], BYTES[kind] * count, i.line)
    writes = [
        f"store<{CPP[kind]}>(to + {n * BYTES[kind]}, {scope.value(register, kind, narrows=True)});"
        for n, register in enumerate(registers)
    ]
    return f"char* const to = {pointer}; {' '.join(writes)}"


def branch(i: Instruction, scope: Scope) -> str:
    return f"goto {scope.label(i.operands[0])};"


def leave(i: Instruction, scope: Scope) -> str:
    return "return;"


def barrier(i: Instruction, scope: Scope) -> str:
    if i.operands != ("0",):
        raise PtxError(f"barrier {i.operands}: only all threads at barrier 0")
    return f"barrier({i.line});"


def shuffle(i: Instruction, scope: Scope) -> str:
    mode = ("up", "down", "bfly", "idx").index(i.opcode.split(".")[2])
    target, _, predicate = i.operands[0].partition("|")
    a, b, c, mask = (scope.value(x, "b32") for x in i.operands[1:])
    call = f"bool valid; {scope.assign(target, f'shuffle({mode}, {a}, {b}, {c}, {mask}, valid, {i.line})', 'b32')}"
    return call + (f" {scope.assign(predicate, 'valid', 'pred')}" if predicate else "")


def vote(i: Instruction, scope: Scope) -> str:
    a, mask = scope.value(i.operands[1], "pred"), scope.value(i.operands[2], "b32")
    return scope.assign(i.operands[0], f"ballot({a}, {mask}, {i.line})", "b32")


def reduction(i: Instruction, scope: Scope) -> str:
    _, _, mode, kind = i.opcode.split(".")
    value, mask = scope.value(i.operands[1], kind), scope.value(i.operands[2], "b32")
    return scope.assign(i.operands[0], f"reduce_{mode}({value}, {mask}, {i.line})", kind)


def ldmatrix(i: Instruction, scope: Scope) -> str:
    registers = vector(i.operands[0])
    if f".x{len(registers)}." not in i.opcode:
        raise PtxError(f"{i.operands[0]} for {i.opcode}")
    transposed = "true" if ".trans" in i.opcode else "false"
    address = scope.address(i.operands[1], "u32")
    reads = [scope.assign(register, f"to[{n}]", "b32") for n, register in enumerate(registers)]
    call = f"ldmatrix<{len(registers)}, {transposed}>(to, {address}, {i.line})"
    return f"uint32_t to[{len(registers)}]; {call}; {' '.join(reads)}"


def mma(i: Instruction, scope: Scope) -> str:
    kind = i.opcode.split(".")[-2]
    d, a, b, c = map(vector, i.operands)
    if [len(d), len(a), len(b), len(c)] != [4, 4, 2, 4]:
        raise PtxError(f"{i.operands} for {i.opcode}")

    def values(registers: list[str], kind: str) -> str:
        return ", ".join(scope.value(register, kind) for register in registers)

    arrays = f"const uint32_t a[] = {{{values(a, 'b32')}}}, b[] = {{{values(b, 'b32')}}}; "
    arrays += f"const float c[] = {{{values(c, 'f32')}}}; float d[4]; "
    results = [scope.assign(register, f"d[{n}]", "f32") for n, register in enumerate(d)]
    return f"{arrays}mma_{kind}(d, a, b, c, {i.line}); {' '.join(results)}"


def cp_async(i: Instruction, scope: Scope) -> str:
    to, origin = scope.address(i.operands[0], "u32"), scope.address(i.operands[1], "u64")
    if i.operands[2] != "16":
        raise PtxError(f"{i.opcode} of {i.operands[2]} bytes: only 16")
    valid = scope.value(i.operands[3], "b32") if len(i.operands) > 3 else "16"
    return f"cp_async({to}, {origin}, 16, {valid}, {i.line});"


def cp_async_commit(i: Instruction, scope: Scope) -> str:
    return "cp_async_commit();"


def cp_async_wait(i: Instruction, scope: Scope) -> str:
    return f"cp_async_wait({int(i.operands[0])});"


def atomic_min(i: Instruction, scope: Scope) -> str:
    address = scope.address(i.operands[1], "u64")
    return scope.assign(i.operands[0], f"atomic_min({address}, {scope.value(i.operands[2], 's64')}, {i.line})", "s64")


def atomic_add(i: Instruction, scope: Scope) -> str:
    address = scope.address(i.operands[1], "u32")
    return scope.assign(i.operands[0], f"atomic_add({address}, {scope.value(i.operands[2], 'u32')}, {i.line})", "u32")


STATEMENTS: dict[str, Callable[[Instruction, Scope], str]] = {
    form: function
    for pattern, function in [
        ("ld.param.{u8,s8,u32,u64,f32,f64,v2.u8,v2.u32,v2.f32,v4.u8}", load),
        ("ld.global.{u8,u16,u32,u64,f32,f64,v2.f64,v4.u32,v4.f32}", load),
        ("ld.global.nc.{u8,u64,f32,f64}", load),
        ("ld.shared.{u32,u64,f32,f64,v2.f32,v4.u32}", load),
        ("st.global.{u16,u32,u64,f32,f64,v2.u16,v2.f64,v4.u32}", store),
        ("st.shared.{u16,u32,u64,f32,f64}", store),
        ("bra{,.uni}", branch),
        ("ret", leave),
        ("bar.sync", barrier),
        ("shfl.sync.{up,bfly,idx}.b32", shuffle),
        ("vote.sync.ballot.b32", vote),
        ("redux.sync.{min,max}.u32", reduction),
        ("ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{,.trans}.shared.b16", ldmatrix),
        ("mma.sync.aligned.m16n8k16.row.col.f32.{f16.f16,bf16.bf16}.f32", mma),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", mma),
        ("cp.async.cg.shared.global", cp_async),
        ("cp.async.commit_group", cp_async_commit),
        ("cp.async.wait_group", cp_async_wait),
        ("atom.global.min.s64", atomic_min),
        ("atom.shared.add.u32", atomic_add),
    ]
    for form in alternatives(pattern)
}
