"""The shim's own tests: right kernels give what they should, and every planted fault is reported."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from host_cuda import extension

RIGHT = [
    *("ring", "rounds", "barrier sums", "left over", "dynamic shared", "warp values", "exited lanes", "lanes"),
    *("atomics", "copies", "zero fill", "half product by hand", "half product", "bfloat16 product", "transposes"),
    *("tf32 product by hand", "tf32 product", "tf32 parts", "tf32 parts of what is no number or too large"),
]
# Case -> what the report says.
WRONG = {
    "ring without barrier": "wrong: out[i] ==",
    "rounds without second barrier": "wrong: out[i] ==",
    "lanes without __syncwarp": "wrong: out[i] ==",
    "copies, wait too weak": "wrong: out[i].w == expected",
    "copies without barrier": "wrong: out[i].w == expected",
    "deadlock": "deadlock in block (2, 0, 0):\n  57 of 64 threads wait in __syncthreads at planted.cpp:",
    "different barriers": "threads of one block wait in different barriers, planted.cpp:",
    "half a warp waits": "deadlock in block (0, 0, 0):\n  16 of 32 threads wait in",
    "beyond dynamic shared": "a write beyond the dynamic shared memory of block (0, 0, 0)",
    "no dynamic shared": "dynamic shared memory is used, but the launch asked for none",
    "not in mask": "with mask fffffffe does not hold the calling lane [block (0, 0, 0), thread (0, 0, 0)]",
    "masks differ": "with mask ffffffff",
    "intrinsics differ": "meets lane",
    "absent source": "a shuffle takes the value of lane 20, which is not among those that take part, 0000ffff",
    "absent lanes": "__syncwarp at planted.cpp:",
    "copy from a misaligned address": "cp.async of 16 bytes between addresses that are not aligned to them",
    "copy beyond shared memory": "cp.async writes outside of shared memory",
    "copy to global memory": "cp.async writes outside of shared memory",
    "odd rows": "ldmatrix: the row of lane 1 is not aligned to 16 bytes",
    "lonely mma": "mma.m16n8k16 without the whole warp",
    "a product of more digits than TF32": "is not a TF32 number",
    "too much dynamic shared": "invalid launch: more than 99 KB of dynamic shared memory",
    "too many threads": "invalid launch: too many threads",
}
SANITIZED = {
    "beyond dynamic shared": "heap-buffer-overflow",
    "beyond static shared": "index 8 out of bounds for type 'int [8]'",
    "beyond global, writing": "heap-buffer-overflow",
    "before global, reading": "heap-buffer-overflow",
    "misaligned vector": "misaligned address",
    "integer overflow": "signed integer overflow",
}


@functools.cache
def planted() -> ctypes.CDLL:
    library = ctypes.CDLL(str(extension.build_program("plain")))
    library.run_case.restype = ctypes.c_char_p
    return library


def run(case: str, seed: int) -> str:
    return planted().run_case(case.encode(), ctypes.c_uint64(seed)).decode()


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_kernel_passes_in_any_order(case: str) -> None:
    for seed in range(20):
        assert run(case, seed) == ""


@pytest.mark.parametrize("case", WRONG)
def test_a_planted_fault_is_reported_in_every_order(case: str) -> None:
    for seed in range(20):
        assert WRONG[case] in run(case, seed)


def test_other_threads_come_between_two_atomics() -> None:
    assert sum("wrong: owners == 1" in run("check then act", seed) for seed in range(20)) >= 10


def test_a_deadlock_names_who_waits_and_who_has_ended() -> None:
    report = run("deadlock", 3)
    assert "the first is block (2, 0, 0), thread (7, 0, 0)" in report
    assert "7 threads have ended, the first is block (2, 0, 0), thread (0, 0, 0)" in report
    assert "deadlock" not in run("ring", 3)  # the next launch starts afresh


def test_the_same_seed_gives_the_same_report_and_another_may_not() -> None:
    reports = {seed: run("different barriers", seed) for seed in range(20)}
    assert reports == {seed: run("different barriers", seed) for seed in range(20)}
    assert len(set(reports.values())) > 1


@pytest.mark.parametrize("case", [*SANITIZED, "ring", "warp values", "copies", "half product"])
def test_the_sanitized_build_reports_what_lies_out_of_range(case: str) -> None:
    program = extension.build_program("sanitized")
    done = subprocess.run([program, case], capture_output=True, text=True, env=os.environ | extension.SANITIZER_OPTIONS)
    if case in SANITIZED:
        assert done.returncode != 0
        assert SANITIZED[case] in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("kind", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_small_floats_round_once_to_nearest_even(kind: str, dtype: torch.dtype) -> None:
    """Against torch, from float; from double where rounding to float first would break the tie."""
    every = np.arange(1 << 16, dtype=np.uint16)
    decoded = np.empty(every.size, np.float32)
    getattr(planted(), f"from_{kind}")(
        every.ctypes.data_as(ctypes.c_void_p), decoded.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(every.size)
    )
    expected = torch.from_numpy(every.view(np.int16)).view(dtype).float().numpy()
    np.testing.assert_array_equal(decoded, expected)
    finite = expected[np.isfinite(expected)].astype(np.float64)
    ordered = np.unique(finite)
    ties = (ordered[1:] + ordered[:-1]) / 2
    rng = np.random.default_rng()
    floats = rng.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    floats = floats[~np.isnan(floats)].astype(np.float64)
    for values in (finite, ties, floats, np.array([np.inf, -np.inf, 65519.0, 65520.0, 1e300, -0.0, 1e-300])):
        assert encode(kind, values).tolist() == torch_bits(values, dtype).tolist()
    above, below = np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)
    np.testing.assert_array_equal(decode_bits(encode(kind, above), dtype), ordered[1:])
    np.testing.assert_array_equal(decode_bits(encode(kind, below), dtype), ordered[:-1])


def encode(kind: str, values: np.ndarray) -> np.ndarray:
    values, out = np.ascontiguousarray(values, np.float64), np.empty(values.size, np.uint16)
    getattr(planted(), f"to_{kind}")(
        values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(values.size)
    )
    return out


def decode_bits(bits: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(bits.view(np.int16)).view(dtype).double().numpy()


def torch_bits(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = torch.from_numpy(values.astype(np.float32))
    return single.to(dtype).view(torch.int16).numpy().view(np.uint16)


def test_no_file_of_the_shim_goes_into_a_wheel() -> None:
    import wtal

    assert not list(Path(wtal.__file__).parent.rglob("*host_cuda*"))
