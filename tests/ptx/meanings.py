"""What each instruction form means, as a C++ expression of its operands: the one table of the translator.

A form is an opcode with all of its modifiers and types; ``{s32,s64}`` stands for either. The expression gives the
first operand its value. ``{a}`` to ``{d}`` are the operands after it, read as the form's last type; ``{a:u}`` as the
unsigned type of the same width, ``{a:wide}`` as the type of twice the width, ``{a:u32}`` as the type named. ``{T}`` is
the C++ type of the form's last type. The third column is the result's type where it is another than the last.
Memory, control and what the lanes of a warp do together: see statements.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import re

CPP = {"pred": "bool", "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t", "f32": "float", "f64": "double"}
CPP |= {
    f"{kind}{bits}": f"{sign}int{bits}_t" for bits in (16, 32, 64) for kind, sign in (("b", "u"), ("u", "u"), ("s", ""))
}

# What a comparison of floating-point numbers gives where one of them is not a number: false, or with a u true.
COMPARISONS = {
    "lt": "{a} < {b}",
    "le": "{a} <= {b}",
    "gt": "{a} > {b}",
    "ge": "{a} >= {b}",
    "eq": "{a} == {b}",
    "ltu": "!({a} >= {b})",
    "leu": "!({a} > {b})",
    "gtu": "!({a} <= {b})",
    "geu": "!({a} < {b})",
    "neu": "!({a} == {b})",
    "num": "{a} == {a} && {b} == {b}",
}

TABLE: list[tuple[str, str] | tuple[str, str, str]] = [
    # ---- integers: wrap around
    ("add.{s32,s64}", "{a:u} + {b:u}"),
    ("sub.{s32,s64}", "{a:u} - {b:u}"),
    ("mul.lo.{s32,s64}", "{a:u} * {b:u}"),
    ("mul.wide.{s32,u32}", "{a:wide} * {b:wide}", "wide"),
    ("mad.lo.s32", "{a:u} * {b:u} + {c:u}"),
    ("div.{s32,u32,s64,u64}", "quotient<{T}>({a}, {b})"),
    ("rem.{s32,u32,s64}", "remainder<{T}>({a}, {b})"),
    ("min.{s32,s64}", "least({a}, {b})"),
    ("max.{s32,u32,s64,u64}", "greatest({a}, {b})"),
    ("neg.{s32,s64}", "0 - {a:u}"),
    # ---- bits
    ("not.{b32,b64}", "~{a}"),
    ("not.pred", "!{a}"),
    ("and.{b16,b32,b64,pred}", "{a} & {b}"),
    ("or.{b32,b64,pred}", "{a} | {b}"),
    ("xor.{b32,b64,pred}", "{a} ^ {b}"),
    ("shl.{b32,b64}", "shift_left<{T}>({a}, {b:u32})"),
    ("shr.{s32,u32,s64,u64}", "shift_right<{T}>({a}, {b:u32})"),
    ("popc.b32", "std::popcount({a})"),
    ("clz.b32", "std::countl_zero({a})"),
    ("brev.b32", "reversed({a})"),
    ("bfind.shiftamt.u32", "{a} ? std::countl_zero({a}) : 0xffffffffu"),
    ("bfi.{b32,b64}", "insert_bits<{T}>({a}, {b}, {c:u32}, {d:u32})"),
    # ---- floating-point numbers: each operation rounds once, and none is joined to another
    ("add{,.rn}.{f32,f64}", "{a} + {b}"),
    ("sub{,.rn}.{f32,f64}", "{a} - {b}"),
    ("mul{,.rn}.{f32,f64}", "{a} * {b}"),
    ("div.rn.{f32,f64}", "{a} / {b}"),
    ("rcp.rn.f32", "1.0f / {a}"),
    ("sqrt.rn.f32", "std::sqrt({a})"),
    ("fma.rn.{f32,f64}", "std::fma({a}, {b}, {c})"),
    ("fma.rm.f32", "fma_down({a}, {b}, {c})"),
    ("neg.{f32,f64}", "-{a}"),
    ("min.{f32,f64}", "least({a}, {b})"),
    ("max.{f32,f64}", "greatest({a}, {b})"),
    ("ex2.approx.f32", "ex2_approx({a}, false)"),
    ("ex2.approx.ftz.f32", "ex2_approx({a}, true)"),
    # ---- comparisons and choices
    ("setp.eq.{s16,s32,s64,b32,b64}", "{a} == {b}", "pred"),
    ("setp.ne.{s16,s32,s64}", "{a} != {b}", "pred"),
    ("setp.lt.{s32,u32,s64,u64}", "{a} < {b}", "pred"),
    ("setp.le.{s32,s64}", "{a} <= {b}", "pred"),
    ("setp.gt.{s32,u32,s64,u64}", "{a} > {b}", "pred"),
    ("setp.ge.{s32,u32,s64,u64}", "{a} >= {b}", "pred"),
    *((f"setp.{name}.{{f32,f64}}", expression, "pred") for name, expression in COMPARISONS.items()),
    ("selp.{b16,u16,b32,u32,b64,u64,f32,f64}", "{c:pred} ? {a} : {b}"),
    # ---- moves and conversions
    ("mov.{pred,u16,b32,u32,b64,u64,f32,f64}", "{a}"),
    ("cvta.to.global.u64", "{a}"),
    ("cvt.{s64.s32,u64.u32,u32.u64}", "{a}", "first"),
    ("cvt.rn.{f32.u16,f32.s32,f32.s64,f64.s32,f64.s64}", "{a}", "first"),
    ("cvt.rzi.{s32.f32,s32.f64,s64.f32,s64.f64}", "to_integer<{R}>({a})", "first"),
    ("cvt.rni.s64.f32", "to_integer<{R}>(std::nearbyint({a}))", "first"),
    ("cvt.rmi.f32.f32", "std::floor({a})"),
    ("cvt.f64.f32", "{a}", "first"),
    ("cvt.rn.f32.f64", "static_cast<float>({a})", "first"),
    ("cvt.sat.f32.f32", "saturate({a})"),
    ("cvt.rn.f16.f32", "to_f16({a})", "b16"),
    ("cvt.rn.bf16.f32", "to_bf16({a})", "b16"),
    ("cvt.f32.f16", "from_f16({a:b16})", "f32"),
]


@dataclasses.dataclass(frozen=True)
class Meaning:
    """The expression of one form, the type its operands are read as, and the type of its result."""

    expression: str
    type: str
    result: str


def alternatives(pattern: str) -> list[str]:
    """Each form that a pattern with ``{x,y}`` stands for."""
    parts = [
        part[1:-1].split(",") if part.startswith("{") else [part] for part in re.findall(r"\{[^}]*\}|[^{]+", pattern)
    ]
    return ["".join(choice) for choice in itertools.product(*parts)]


def wide(kind: str) -> str:
    """The type of twice the width; itself where there is none."""
    return {"s32": "s64", "u32": "u64"}.get(kind, kind)


def meanings() -> dict[str, Meaning]:
    """The table with every alternative written out."""
    found: dict[str, Meaning] = {}
    for pattern, expression, *rest in TABLE:
        for form in alternatives(pattern):
            kinds = [part for part in form.split(".") if part in CPP or part in ("f16", "bf16")]
            named = rest[0] if rest else kinds[-1]
            result = {"wide": wide(kinds[-1]), "first": kinds[0]}.get(named, named)
            assert form not in found, form
            found[form] = Meaning(expression, kinds[-1], result)
    return found


MEANINGS = meanings()
