"""Hand-written PTX, translated, compiled and called from NumPy: how the translator's own tests run an instruction."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from host_cuda import extension as host
from ptx.emit import cpp_of
from ptx.extension import FOLDER, TRANSLATED_FLAGS, compile_all, runtime_jobs
from ptx.parse import parse

HEAD = ".version 8.0\n.target sm_86\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];\n"
HEAD += ".shared .align 4 .b8 of_the_module[8];\n"
REGISTERS = (
    ".reg .pred %p<20>; .reg .b16 %rs<20>; .reg .b32 %r<60>; .reg .b64 %rd<20>; .reg .f32 %f<40>; .reg .f64 %fd<20>;\n"
)


def entry(name: str, body: str, parameters: int = 2) -> str:
    """An entry with 8-byte parameters p0, p1, ... and registers of every kind."""
    declared = ", ".join(f".param .u64 p{n}" for n in range(parameters))
    return f".visible .entry {name}(\n{declared})\n{{\n{REGISTERS}{body}\nret;\n}}\n"


class Kernels:
    """A library of the entries in `text`."""

    def __init__(self, name: str, text: str) -> None:
        folder = FOLDER.parent / "ptx_small"
        folder.mkdir(parents=True, exist_ok=True)
        self.ptx = folder / f"{name}.ptx"
        source = folder / f"{name}.cpp"
        with host.building():
            self.ptx.write_text(HEAD + text)
            source.write_text("\n".join(map(cpp_of, parse(HEAD + text, self.ptx.name))))
            jobs = [(source, folder, [*TRANSLATED_FLAGS, *host.fma_flag()]), *runtime_jobs(folder, with_torch=False)]
            self.library = ctypes.CDLL(str(host.link(folder, name, compile_all(jobs), ["-shared", "-ldl"])))
        self.library.ptx_launch.restype = ctypes.c_char_p

    def seed(self, seed: int) -> None:
        self.library.ptx_seed(ctypes.c_uint64(seed))

    def fault_of(
        self, name: str, *arguments: np.ndarray | int, threads: int = 1, blocks: int = 1, dynamic: int = 0
    ) -> str:
        """Launch; what went wrong, empty if nothing did. Arrays are passed by address, and no other memory is known."""
        self.library.ptx_forget_all()
        values = (ctypes.c_uint64 * len(arguments))()
        for n, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                values[n] = argument.ctypes.data
                self.library.ptx_note(ctypes.c_void_p(values[n]), ctypes.c_uint64(argument.nbytes))
            else:
                values[n] = argument
        count = ctypes.c_uint32(len(arguments))
        return self.library.ptx_launch(name.encode(), blocks, threads, dynamic, values, count).decode()

    def run(self, name: str, *arguments: np.ndarray | int, **launch: int) -> None:
        fault = self.fault_of(name, *arguments, **launch)
        assert fault == "", fault

    def check_with_ptxas(self) -> None:
        """The text is PTX by NVIDIA's own assembler."""
        if shutil.which("ptxas") is None:
            pytest.skip("ptxas is not on the path")
        done = subprocess.run(
            ["ptxas", "-arch=sm_86", "-O0", str(self.ptx), "-o", "/dev/null"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def aligned(size: int, dtype: type, align: int = 64) -> np.ndarray:
    """An array whose address is a multiple of `align`."""
    raw = np.zeros(size * np.dtype(dtype).itemsize + align, np.uint8)
    begin = -raw.ctypes.data % align
    return raw[begin : begin + size * np.dtype(dtype).itemsize].view(dtype)


def path_of(name: str) -> Path:
    return Path(__file__).parent / name
