"""The shim's fragment maps against another's table, since shim and PTX witness share them.

CUTLASS describes mma.m16n8k16 of 16-bit numbers and mma.m16n8k8 of TF32 (include/cute/atom/mma_traits_sm80.hpp) by
layouts: shape and stride of thread and value, which give an element's place in the matrix, column by column. ldmatrix
has its test in tests/ptx/test_statements.py.
"""

from __future__ import annotations

import ctypes
import functools
import itertools

import pytest
from host_cuda import extension

# Instruction -> matrix -> (strides of the thread's (4, 8), of the value's digits of 2 each, rows of the matrix).
SUMS = ((32, 1), (16, 8), 16)  # place = m + 16 n
LAYOUTS = {
    "half": {
        "a": ((32, 1), (16, 8, 128), 16),  # place = m + 16 k
        "b": ((16, 1), (8, 64), 8),  # place = n + 8 k: the ISA's B is [K, N]
        "c": SUMS,
    },
    "tf32": {"a": ((16, 1), (8, 64), 16), "b": ((8, 1), (32,), 8), "c": SUMS},
}


@functools.cache
def planted() -> ctypes.CDLL:
    return ctypes.CDLL(str(extension.build_program("plain")))


def element(instruction: str, matrix: str, lane: int, value: int) -> tuple[int, int]:
    row, column = ctypes.c_int(), ctypes.c_int()
    function = getattr(planted(), f"fragment_element_of_{instruction}")
    function(ctypes.c_char(matrix.encode()), lane, value, ctypes.byref(row), ctypes.byref(column))
    return row.value, column.value


@pytest.mark.parametrize("matrix", "abc")
@pytest.mark.parametrize("instruction", LAYOUTS)
def test_fragments_lie_where_cutlass_has_them(instruction: str, matrix: str) -> None:
    (by_four, by_eight), digits, rows = LAYOUTS[instruction][matrix]
    places = []
    for lane, value in itertools.product(range(32), range(2 ** len(digits))):
        place = lane % 4 * by_four + lane // 4 * by_eight
        place += sum(stride for n, stride in enumerate(digits) if value >> n & 1)
        first, second = place % rows, place // rows
        found = element(instruction, matrix, lane, value)
        assert found == ((second, first) if matrix == "b" else (first, second))
        places.append(place)
    assert sorted(places) == list(range(len(places)))  # each element of the matrix once
