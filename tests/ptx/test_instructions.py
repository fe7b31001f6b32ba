"""Each instruction form of the table against cases.txt: the translator's own witness."""

from __future__ import annotations

import functools
import re
import struct

import numpy as np
import pytest
from ptx.emit import cpp_of
from ptx.meanings import MEANINGS, Meaning
from ptx.parse import BYTES, PtxError, parse
from ptx.small_kernels import HEAD, Kernels, entry, path_of
from ptx.statements import STATEMENTS

PREFIX = {"b16": "rs", "b32": "r", "b64": "rd", "f32": "f", "f64": "fd", "pred": "p"}


def read_cases() -> dict[str, list[tuple[list[str], str]]]:
    """Form -> (operands, result) of each case."""
    cases = {}
    for line in path_of("cases.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            form, _, rest = (part.strip() for part in line.partition("|"))
            assert form not in cases, form
            sides = [case.split("=") for case in rest.split(";")]
            cases[form] = [(operands.split(), result.strip()) for operands, result in sides]
    return cases


CASES = read_cases()


def operand_types(meaning: Meaning) -> list[str]:
    """Of the operands after the first, as the expression reads them."""
    specs = dict(re.findall(r"\{([abcd])(?::(\w+))?\}", meaning.expression))
    kinds = []
    for name in sorted(specs):
        spec = specs[name]
        kinds.append(spec if spec in PREFIX or spec == "u32" else meaning.type)
    return kinds


def register_type(kind: str) -> str:
    return kind if kind[0] == "f" or kind == "pred" else f"b{8 * BYTES[kind]}"


def bits_of(text: str, kind: str) -> int:
    if text.startswith("x"):
        return int(text[1:], 16)
    if kind in ("f32", "f64"):
        value = float.fromhex(text) if "p" in text else float(text)
        form = {"f32": "fI", "f64": "dQ"}[kind]
        return struct.unpack("<" + form[1], struct.pack("<" + form[0], value))[0]
    return int(text, 0) % (1 << (1 if kind == "pred" else 8 * BYTES[kind]))


def kernel_of(number: int, form: str) -> str:
    """Thread t reads operands from p0 + 32 t, 8 bytes each, and writes the result to p1 + 8 t."""
    meaning = MEANINGS[form]
    lines = ["ld.param.u64 %rd10, [p0];", "ld.param.u64 %rd11, [p1];", "mov.u32 %r10, %tid.x;"]
    lines += ["mul.wide.u32 %rd12, %r10, 32;", "add.s64 %rd10, %rd10, %rd12;"]
    lines += ["mul.wide.u32 %rd12, %r10, 8;", "add.s64 %rd11, %rd11, %rd12;"]
    names = []
    for n, kind in enumerate(operand_types(meaning)):
        held = register_type(kind)
        names.append(f"%{PREFIX[held]}{n + 1}")
        if kind == "pred":
            lines += [f"ld.global.u8 %rs10, [%rd10+{8 * n}];", f"setp.ne.s16 {names[-1]}, %rs10, 0;"]
        else:
            lines.append(f"ld.global.{'u' + held[1:] if held[0] == 'b' else held} {names[-1]}, [%rd10+{8 * n}];")
    held = register_type(meaning.result)
    result = f"%{PREFIX[held]}9"
    lines.append(f"{form} {', '.join([result, *names])};")
    if held == "pred":
        lines += [f"selp.u32 %r9, 1, 0, {result};", "st.global.u32 [%rd11], %r9;"]
    else:
        lines.append(f"st.global.{'u' + held[1:] if held[0] == 'b' else held} [%rd11], {result};")
    return entry(f"form_{number}", "\n".join(lines))


@functools.cache
def kernels() -> Kernels:
    return Kernels("forms", "".join(kernel_of(n, form) for n, form in enumerate(CASES)))


def test_every_form_of_the_table_has_a_case() -> None:
    assert set(CASES) == set(MEANINGS)


@pytest.mark.parametrize("form", CASES)
def test_a_form_gives_what_the_isa_says(form: str) -> None:
    meaning, cases = MEANINGS[form], CASES[form]
    kinds = operand_types(meaning)
    operands, found = np.zeros((len(cases), 4), np.uint64), np.zeros(len(cases), np.uint64)
    for row, (texts, _) in zip(operands, cases, strict=True):
        assert len(texts) == len(kinds), texts
        row[: len(kinds)] = [bits_of(text, kind) for text, kind in zip(texts, kinds, strict=True)]
    kernels().run(f"form_{list(CASES).index(form)}", operands, found, threads=len(cases))
    for (texts, result), bits in zip(cases, found.tolist(), strict=True):
        if result == "nan":
            value = struct.unpack("<d" if meaning.result == "f64" else "<f4x", struct.pack("<Q", bits))[0]
            assert value != value, texts
        else:
            assert hex(bits) == hex(bits_of(result, meaning.result)), f"{form} {' '.join(texts)}"


def test_the_cases_are_ptx_to_ptxas_too() -> None:
    kernels().check_with_ptxas()


@pytest.mark.parametrize("form", ["ex2.approx.f32", "ex2.approx.ftz.f32"])
def test_ex2_is_within_2_units_of_the_exact_value_and_varies_with_the_seed(form: str) -> None:
    rng = np.random.default_rng()
    x = np.concatenate([rng.uniform(-126, 127.9, 700), rng.uniform(-1, 1, 300), np.arange(-20, 20)]).astype(np.float32)
    operands = np.zeros((x.size, 4), np.uint64)
    operands[:, 0] = x.view(np.uint32)
    offsets = []
    for seed in (1, 2):
        kernels().seed(seed)
        results = []
        for begin in range(0, x.size, 1000):
            part = np.ascontiguousarray(operands[begin : begin + 1000])
            found, again = np.zeros(len(part), np.uint64), np.zeros(len(part), np.uint64)
            for out in (found, again):
                kernels().run(f"form_{list(CASES).index(form)}", part, out, threads=len(part))
            assert np.array_equal(found, again)  # a card gives the same again
            results.append(found.astype(np.uint32).view(np.float32).astype(np.float64))
        exact = np.exp2(x.astype(np.float64))
        unit = 2.0 ** (np.floor(np.log2(exact)) - 23)
        off = (np.concatenate(results) - exact) / unit
        assert np.abs(off).max() <= 2.000001
        assert off.max() > 1.5
        assert off.min() < -1.5
        assert (off[x == 0] == 0).all()
        offsets.append(off)
    assert (offsets[0] != offsets[1]).mean() > 0.5


UNKNOWN = {
    "prmt.b32 %r1, %r2, %r3, 30292;": "unknown instruction form prmt.b32",
    "add.f16 %rs1, %rs2, %rs3;": "unknown instruction form add.f16",
    "ld.local.u32 %r1, [%rd1];": "unknown instruction form ld.local.u32",
    "bar.sync 1, 64;": "only all threads at barrier 0",
    "add.s32 %r1, %r2, %rd3;": "%rd3 is .b64, read as .u32",
    "add.s32 %rd1, %r2, %r3;": "%rd1 is .b64, given .s32",
    "mov.u32 %r1, %clock;": "unknown operand '%clock'",
    "bra nowhere;": "branches to ['nowhere'], which are not there",
    ".local .b8 x[16];": "unknown directive: .local",
    "cp.async.cg.shared.global [%r1], [%rd1], 8;": "of 8 bytes: only 16",
}


@pytest.mark.parametrize("statement", UNKNOWN)
def test_what_is_unknown_is_an_error_that_names_it(statement: str) -> None:
    with pytest.raises(PtxError, match=re.escape(UNKNOWN[statement])) as raised:
        "".join(map(cpp_of, parse(HEAD + entry("unknown", statement), "file.ptx")))
    assert "file.ptx" in str(raised.value)


def test_a_function_beside_the_entries_is_an_error() -> None:
    with pytest.raises(PtxError, match=r"file.ptx:6: a function that is not an entry"):
        parse(HEAD + ".func helper()\n{\nret;\n}\n", "file.ptx")


def test_the_table_and_the_statements_share_no_form() -> None:
    assert not set(MEANINGS) & set(STATEMENTS)
