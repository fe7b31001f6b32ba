"""Memory, branches, barriers and what a warp does together: hand-written PTX against NumPy."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from ptx.parse import Instruction, parse
from ptx.small_kernels import HEAD, Kernels, aligned, entry, path_of
from ptx.statements import STATEMENTS

POINTERS = "ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p1]; mov.u32 %r1, %tid.x;"
ROWS = POINTERS + (
    "mul.wide.u32 %rd5, %r1, 16; add.s64 %rd3, %rd1, %rd5; add.s64 %rd4, %rd2, %rd5; mov.u32 %r2, dynamic; "
    "shl.b32 %r3, %r1, 4; add.s32 %r2, %r2, %r3;"
)


def read_kernels() -> str:
    """statements.txt as PTX."""
    text = re.sub("//.*", "", path_of("statements.txt").read_text()).replace("ROWS", ROWS).replace("POINTERS", POINTERS)
    _, *pieces = re.split(r"^kernel (\w+) (\d)$", text, flags=re.MULTILINE)
    return "".join(
        entry(name, body, int(count)) for name, count, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    )


TEXT = read_kernels()


@functools.cache
def kernels() -> Kernels:
    return Kernels("statements", TEXT)


def test_every_statement_form_is_run_here() -> None:
    run = {
        piece.opcode for parsed in parse(HEAD + TEXT, "x") for piece in parsed.body if isinstance(piece, Instruction)
    }
    assert set(STATEMENTS) <= run


def test_the_kernels_are_ptx_to_ptxas_too() -> None:
    kernels().check_with_ptxas()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_is_what_the_isa_draws(count: int, transposed: bool) -> None:
    """Register j of lane l: row l / 4, columns 2 (l % 4) and the next, of matrix j, whose row i lane 8 j + i names."""
    rows, found = aligned(32 * 8, np.uint16), aligned(32 * 4, np.uint32)
    rows[:] = np.random.default_rng().integers(0, 1 << 16, rows.size)
    kernels().run(f"ldmatrix_{count}_{int(transposed)}", rows, found, threads=32, dynamic=512)
    matrices = rows.reshape(4, 8, 8)
    for lane in range(32):
        for j in range(count):
            matrix = matrices[j].T if transposed else matrices[j]
            low, high = matrix[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()
            assert found[4 * lane + j] == low | high << 16


def bits_of(kind: str, matrix: np.ndarray) -> np.ndarray:
    """Of small integers, as the elements of an operand."""
    if kind == "f16":
        return matrix.astype(np.float16).view(np.uint16)
    single = matrix.astype(np.float32).view(np.uint32)
    return single if kind == "tf32" else (single >> 16).astype(np.uint16)


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_mma_is_the_product_of_the_matrices_that_the_lanes_hold(kind: str) -> None:
    """Small integers, so that every order of adding gives the same. The layout is the ISA's, written once more."""
    rng = np.random.default_rng()
    # A register holds `wide` elements, and the second of two the elements `far` behind those of the first.
    depth, wide, far = (8, 1, 4) if kind == "tf32" else (16, 2, 8)
    a, b = rng.integers(-8, 9, (16, depth)), rng.integers(-8, 9, (depth, 8))
    c = rng.integers(-99, 99, (16, 8)).astype(np.float32)
    given, found = aligned(32 * 16, np.uint32), aligned(32 * 4, np.float32)
    for lane in range(32):
        row, pair, k = lane // 4, lane % 4 * 2, lane % 4 * wide
        parts = [bits_of(kind, a[row + dr, k + dc : k + dc + wide]) for dc in (0, far) for dr in (0, 8)]
        parts += [bits_of(kind, b[k + dk : k + dk + wide, row]) for dk in (0, far)]
        given[16 * lane : 16 * lane + 6] = np.concatenate(parts).view(np.uint32)
        values = np.concatenate([c[row, pair : pair + 2], c[row + 8, pair : pair + 2]])
        given[16 * lane + 6 : 16 * lane + 10] = values.view(np.uint32)
    kernels().run(f"mma_{kind}", given, found, threads=32)
    expected = a @ b + c
    for lane in range(32):
        row, pair = lane // 4, lane % 4 * 2
        assert found[4 * lane : 4 * lane + 4].tolist() == [
            *expected[row, pair : pair + 2],
            *expected[row + 8, pair : pair + 2],
        ]


@pytest.mark.parametrize("place", [0, 5])  # in a, in b
def test_a_number_with_more_digits_than_tf32_is_reported(place: int) -> None:
    given, found = aligned(32 * 16, np.uint32), aligned(32 * 4, np.float32)
    given[16 * 7 + place] = np.float32(1 + 2**-11).view(np.uint32)
    assert "1.000488 is not a TF32 number" in kernels().fault_of("mma_tf32", given, found, threads=32)
    given[16 * 7 + place] = np.float32(1 + 2**-10).view(np.uint32)
    assert kernels().fault_of("mma_tf32", given, found, threads=32) == ""


# (mode, c, segment size): c as nvcc writes it for __shfl_*_sync of the width.
@pytest.mark.parametrize(("mode", "width"), [(mode, width) for mode in ("up", "bfly", "idx") for width in (32, 16, 8)])
def test_shuffles_are_those_of_cuda(mode: str, width: int) -> None:
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    for step in (0, 1, 3, 5, 16, 31):
        given, found = aligned(32 * 4, np.uint32), aligned(32 * 4, np.uint32)
        given[0::4], given[1::4] = step, c
        kernels().run(f"shfl_{mode}", given, found, threads=32)
        for lane in range(32):
            first = lane // width * width
            source = {"up": lane - step, "bfly": lane ^ step, "idx": first + step % width}[mode]
            inside = source >= first if mode == "up" else source < first + width
            assert found[4 * lane] == 100 + (source if inside else lane), (lane, step)
            assert found[4 * lane + 1] == inside


def test_ballot() -> None:
    given, found = aligned(32 * 16, np.uint8), aligned(32 * 4, np.uint32)
    given[0::16] = np.random.default_rng().integers(0, 2, 32)
    kernels().run("ballot", given, found, threads=32)
    assert set(found[0::4].tolist()) == {sum(int(bit) << lane for lane, bit in enumerate(given[0::16]))}


def test_the_least_and_the_greatest_of_a_warp() -> None:
    given, found = aligned(32 * 4, np.uint32), aligned(32 * 4, np.uint32)
    given[:] = np.random.default_rng().integers(0, 1 << 32, given.size, dtype=np.uint32)
    kernels().run("redux", given, found, threads=32)
    assert set(found[0::4].tolist()) == {int(given[0::4].min())}
    assert set(found[1::4].tolist()) == {int(given[0::4].max())}


def test_loads_and_stores_of_global_memory() -> None:
    given, found = aligned(64, np.uint8), aligned(64, np.uint8)
    given[:] = np.random.default_rng().integers(1, 256, 64)
    kernels().run("global", given, found)
    assert found[[0, 2]].tolist() == given[:2].tolist()  # a byte fills a register with zeros
    assert found[[1, 3]].tolist() == [0, 0]
    assert found[4:6].tolist() == given[4:6].tolist()
    assert found[8:].tolist() == given[8:].tolist()


def test_vectors_of_global_memory() -> None:
    given, found = aligned(8, np.uint32), aligned(8, np.uint32)
    given[:] = np.random.default_rng().integers(1, 1 << 30, 8)
    kernels().run("vectors", given, found)
    assert found.tolist() == given[[3, 2, 1, 0, 6, 7, 4, 5]].tolist()


def test_shared_memory_is_handed_on_at_barriers() -> None:
    found = aligned(32 * 4, np.uint64)
    for seed in range(5):
        kernels().seed(seed)
        kernels().run("shared", found, found, threads=32)
        for thread in range(32):
            number, singles, double, one = found[4 * thread : 4 * thread + 4]
            neighbour = thread ^ 1
            assert number == neighbour
            assert singles.reshape(1).view(np.float32).tolist() == [neighbour] * 2
            assert double.reshape(1).view(np.float64)[0] == neighbour
            assert one == 77


def test_words_of_32_bits_in_shared_memory() -> None:
    given, found = aligned(32 * 4, np.uint32), aligned(32 * 4, np.uint32)
    given[:] = np.random.default_rng().integers(0, 1 << 32, given.size, dtype=np.uint32)
    kernels().run("shared_words", given, found, threads=32)
    assert found[0::4].tolist() == given[0::4].reshape(16, 2)[:, ::-1].reshape(-1).tolist()


def test_vectors_of_shared_memory() -> None:
    given, found = aligned(32 * 4, np.uint32), aligned(32 * 4, np.uint32)
    given[:] = np.random.default_rng().integers(0, 1 << 30, given.size, dtype=np.uint32)
    kernels().run("shared_vectors", given, found, threads=32)
    assert found.tolist() == given.reshape(16, 2, 4)[:, ::-1].reshape(-1).tolist()


def test_branches_guards_and_the_end() -> None:
    out = np.zeros(2, np.int64)
    kernels().run("branches", out, 7)
    assert out.tolist() == [10 + 9 + 8 + 7, 5]
    out[:] = 0
    kernels().run("branches", out, 3)
    assert out.tolist() == [sum(range(3, 11)), 0]


def test_atomic_minimum() -> None:
    out = np.full(1, 99, np.int64)
    kernels().run("atomic_min", out, 0, threads=32)
    assert out[0] == 20 - 31


def test_atomic_sum() -> None:
    """Lane i adds i: what one leaves is what the next finds. Lane 0 leaves what it finds."""
    total, found = aligned(32 * 4, np.uint32), aligned(32 * 4, np.uint32)
    kernels().run("atomic_add", total, found, threads=32)
    order = sorted((before, lane) for lane, before in enumerate(found[0::4].tolist()))
    assert [5, *(before + lane for before, lane in order)] == [*(before for before, _ in order), total[0]]


def test_asynchronous_copies_arrive_when_they_are_waited_for() -> None:
    given, found = aligned(4, np.uint64), aligned(4, np.uint64)
    given[:] = [1, 2, 3, 4]
    kernels().run("pending", given, found, dynamic=32)
    assert found.tolist() == [1, 2**64 - 1, 3, 0]  # poison before the wait, and zeros beyond the 8 bytes


def test_parameters_are_read_in_every_width() -> None:
    found = aligned(6, np.uint64)
    integer, single = 0xFEDCBA98, int(np.float32(1.5).view(np.uint32))
    double = int(np.float64(-2.5).view(np.uint64))
    kernels().run("structure", found, 0x0807060504030201, integer | single << 32, double)
    raw = found.view(np.uint16)
    assert raw[[0, 1, 2, 3]].tolist() == [1, 2, 5, 8]
    assert found.view(np.float32)[2] == 1.5
    assert found.view(np.uint32)[3] == integer
    assert found.view(np.float64)[2] == -2.5
    assert raw[12] == 8
    assert raw[13] == 0xFF98  # the sign fills the register
    assert found.view(np.uint32)[8:].tolist() == [0x08070605, 0x04030201, single, integer]


def test_halves_of_registers() -> None:
    given, found = np.array([0x1122334455667788], np.uint64), aligned(6, np.uint32)
    kernels().run("halves", given, found)
    assert [hex(x) for x in found[[0, 1, 2, 4, 5]]] == [
        "0x11223344",
        "0x55667788",
        "0x77885566",
        "0x11223344",
        "0x55667788",
    ]


def test_special_registers() -> None:
    found = np.zeros(5 * 40, np.uint32)
    kernels().run("special", found, found, threads=40, blocks=5)
    assert set(found.tolist()) == {5}


FAULTS = {
    "read beyond": ("read_at", 32, "a global access of 4 bytes lies outside of every tensor at statements.ptx:"),
    "read before": ("read_at", 2**64 - 4, "a global access of 4 bytes lies outside of every tensor"),
    "read misaligned": ("read_at", 2, "a global access of 4 bytes is not aligned to them"),
    "read a row misaligned": ("row_at", 8, "a global access of 16 bytes is not aligned to them"),
    "read a row beyond": ("row_at", 32, "a global access of 16 bytes lies outside of every tensor"),
    "write half beyond": ("write_at", 28, "a global access of 8 bytes is not aligned to them"),
    "write beyond": ("write_at", 32, "a global access of 8 bytes lies outside of every tensor"),
    "beyond a shared array": ("shared_at", 8, "a shared access of 4 bytes lies outside of the block's arrays"),
    "before a shared array": ("shared_at", 2**32 - 4, "a shared access of 4 bytes lies outside of the block's arrays"),
    "misaligned in shared memory": ("shared_at", 2, "a shared access of 4 bytes is not aligned to them"),
    "beyond dynamic memory": ("dynamic_at", 64, "a shared access of 4 bytes lies outside of the block's arrays"),
    "copy from beyond": ("copy_at", 32, "a global access of 16 bytes lies outside of every tensor"),
    "copy misaligned": ("copy_at", 8, "cp.async reads from a misaligned address"),
    "beyond the parameters": ("parameter_at", 8, "an access outside of the parameters"),
    "ldmatrix misaligned": ("rows_at", 8, "a shared access of 16 bytes is not aligned to them"),
    "ldmatrix beyond": ("rows_at", 64, "a shared access of 16 bytes lies outside of the block's arrays"),
    "ldmatrix without the warp": ("rows_at", 0, "names lanes that the block does not have"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_access_is_reported_with_its_line(fault: str) -> None:
    name, argument, message = FAULTS[fault]
    given = aligned(8, np.float32)
    report = kernels().fault_of(name, given, argument, dynamic=64)
    assert message in report
    assert "block (0, 0, 0), thread (0, 0, 0)" in report


def test_right_accesses_of_the_same_kernels_pass() -> None:
    given = aligned(8, np.float32)
    for name, argument in [
        ("read_at", 28),
        ("row_at", 16),
        ("write_at", 24),
        ("shared_at", 4),
        ("dynamic_at", 60),
        ("copy_at", 16),
    ]:
        assert kernels().fault_of(name, given, argument, dynamic=64) == ""


def test_a_barrier_that_some_never_reach_is_a_deadlock() -> None:
    assert "40 of 64 threads wait in __syncthreads at bar.sync" in kernels().fault_of("some_wait", 0, 0, threads=64)


def test_too_much_shared_memory_and_wrong_parameters_are_refused() -> None:
    assert "more than 99 KB" in kernels().fault_of("shared_at", 0, 0, dynamic=(99 << 10) - 4)
    assert "the arguments are not the entry's parameters" in kernels().fault_of("read_at", 0, 0, 0)
