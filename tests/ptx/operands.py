"""Operands as C++: registers, immediates, special registers, addresses."""

from __future__ import annotations

import re
import struct

from ptx.meanings import CPP, wide
from ptx.parse import BYTES, Entry, PtxError

SPECIAL = {
    f"%{name}.{axis}": f"here.{name}[{n}]"
    for name in ("tid", "ntid", "ctaid", "nctaid")
    for n, axis in enumerate("xyz")
}
REGISTER = re.compile(r"%([a-z]+)(\d+)")
ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]")


class Scope:
    """The names of one entry, and the registers that its instructions have used so far."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.used: dict[str, str] = {}  # C++ name -> PTX type
        self.labels: set[str] = set()

    def register(self, text: str) -> tuple[str, str]:
        """The C++ variable of a register, and its PTX type."""
        found = REGISTER.fullmatch(text)
        if found is None or found[1] not in self.entry.registers:
            raise PtxError(f"unknown operand {text!r}")
        name, kind = f"{found[1]}{found[2]}", self.entry.registers[found[1]]
        self.used[name] = kind
        return name, kind

    def value(self, text: str, kind: str, narrows: bool = False) -> str:
        """The operand as a C++ expression of the type `kind`; narrows: a wider register's lowest bits may be meant."""
        if text in SPECIAL:
            return SPECIAL[text]
        if not text.startswith("%"):
            return self.constant(text, kind)
        name, held = self.register(text)
        if held == "pred" or kind == "pred":
            if held != kind:
                raise PtxError(f"{text} is .{held}, read as .{kind}")
            return name
        if BYTES[held] != BYTES[kind] and not (narrows and held[0] == "b" and BYTES[held] > BYTES[kind]):
            raise PtxError(f"{text} is .{held}, read as .{kind}")
        if (held[0] == "f") != (kind[0] == "f"):
            if "b" not in (held[0], kind[0]):
                raise PtxError(f"{text} is .{held}, read as .{kind}")
            return f"bits_to<{CPP[kind]}>({name})"
        return name if CPP[held] == CPP[kind] else f"{CPP[kind]}({name})"

    def constant(self, text: str, kind: str) -> str:
        """An immediate, or the address of a parameter or a shared array."""
        if found := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", text):
            return self.literal(struct.unpack(">f", bytes.fromhex(found[1]))[0], f"0x{found[1]}u", kind, "f32")
        if found := re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", text):
            return self.literal(struct.unpack(">d", bytes.fromhex(found[1]))[0], f"0x{found[1]}ull", kind, "f64")
        if re.fullmatch(r"-?\d+", text):
            if kind == "pred":
                return "true" if int(text) else "false"
            if kind[0] == "f":
                raise PtxError(f"{text} for .{kind}")
            bits = 8 * BYTES[kind]
            return f"{CPP[kind]}(0x{int(text) % (1 << bits):x}{'ull' if bits == 64 else 'u'})"
        if text in self.entry.parameters and BYTES.get(kind) == 8:
            return f"reinterpret_cast<uint64_t>(parameters[{list(self.entry.parameters).index(text)}])"
        if text in self.entry.shared and BYTES.get(kind) in (4, 8):
            return f"{CPP[kind]}(0x{self.entry.begin_of(text):x}u)"
        raise PtxError(f"unknown operand {text!r}")

    def literal(self, value: float, bits: str, kind: str, own: str) -> str:
        """A floating-point immediate."""
        if BYTES.get(kind) != BYTES[own] or kind[0] not in "fb":
            raise PtxError(f"a .{own} number for .{kind}")
        if kind[0] == "b":
            return bits
        if value - value != 0:  # not finite
            return f"bits_to<{CPP[kind]}>({bits})"
        return value.hex() + ("f" if own == "f32" else "")

    def assign(self, text: str, expression: str, kind: str, widens: bool = False) -> str:
        """The register gets an expression of type `kind`; widens: it may be wider, as in a load of u8."""
        name, held = self.register(text)
        if held == "pred" or kind == "pred":
            if held != kind:
                raise PtxError(f"{text} is .{held}, given .{kind}")
        elif BYTES[held] != BYTES[kind] and not (widens and held[0] == "b" and BYTES[held] > BYTES[kind]):
            raise PtxError(f"{text} is .{held}, given .{kind}")
        elif (held[0] == "f") != (kind[0] == "f"):
            if "b" not in (held[0], kind[0]):
                raise PtxError(f"{text} is .{held}, given .{kind}")
            return f"{name} = bits_to<{CPP[held]}>({expression});"
        return f"{name} = {expression};"

    def address(self, text: str, kind: str) -> str:
        """``[%rd1+8]`` or ``[name+8]`` as a number of the type u32 or u64."""
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise PtxError(f"not an address: {text}")
        base = self.value(found[1], kind)
        return f"{base} + {found[2]}" if found[2] else base

    def pointer(self, text: str, space: str, size: int, line: int) -> str:
        """The same as a checked pointer to `size` bytes."""
        if space not in ("param", "global", "shared"):
            raise PtxError(f"unknown state space .{space}")
        address = self.address(text, "u32" if space == "shared" else "u64")
        return f"{'parameter' if space == 'param' else space}({address}, {size}, {line})"

    def label(self, text: str) -> str:
        """The C++ label; those named are collected, so that a missing one is noticed."""
        self.labels.add(text)
        return re.sub(r"\W", "_", text)


class Operand:
    """One operand within an expression of meanings.py: ``{a}``, ``{a:u}``, ``{a:wide}``, ``{a:u32}``."""

    def __init__(self, scope: Scope, text: str, kind: str) -> None:
        self.scope, self.text, self.kind = scope, text, kind

    def __format__(self, how: str) -> str:
        kind = self.kind
        if how == "wide":
            return f"{CPP[wide(kind)]}({self.scope.value(self.text, kind)})"
        if how == "u":
            kind = "u" + kind[1:]
        return self.scope.value(self.text, how if how in CPP else kind)
