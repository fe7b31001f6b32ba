"""The shim's fragment maps against another's table, since shim and PTX witness share them.

CUTLASS describes mma.m16n8k16 of 16-bit numbers (include/cute/atom/mma_traits_sm80.hpp) by layouts: shape and stride
of thread and value, which give an element's place in the matrix, column by column. ldmatrix has its
test in tests/ptx/test_statements.py.
"""

from __future__ import annotations

import ctypes
import functools
import itertools

import pytest
from host_cuda import extension

# Matrix -> (strides of the thread's (4, 8), strides of the value's digits of 2 each, rows of the place's matrix).
LAYOUTS = {
    "a": ((32, 1), (16, 8, 128), 16),  # place = m + 16 k
    "b": ((16, 1), (8, 64), 8),  # place = n + 8 k: the ISA's B is [K, N]
    "c": ((32, 1), (16, 8), 16),  # place = m + 16 n
}


@functools.cache
def planted() -> ctypes.CDLL:
    return ctypes.CDLL(str(extension.build_program("plain")))


def element(matrix: str, lane: int, value: int) -> tuple[int, int]:
    row, column = ctypes.c_int(), ctypes.c_int()
    planted().fragment_element(ctypes.c_char(matrix.encode()), lane, value, ctypes.byref(row), ctypes.byref(column))
    return row.value, column.value


@pytest.mark.parametrize("matrix", LAYOUTS)
def test_fragments_lie_where_cutlass_has_them(matrix: str) -> None:
    (by_four, by_eight), digits, rows = LAYOUTS[matrix]
    places = []
    for lane, value in itertools.product(range(32), range(2 ** len(digits))):
        place = lane % 4 * by_four + lane // 4 * by_eight
        place += sum(stride for n, stride in enumerate(digits) if value >> n & 1)
        first, second = place % rows, place // rows
        assert element(matrix, lane, value) == ((second, first) if matrix == "b" else (first, second))
        places.append(place)
    assert sorted(places) == list(range(len(places)))  # each element of the matrix once
