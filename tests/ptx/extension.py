"""Builds csrc/cuda with nvcc as far as PTX, translates that to C++, and lets it take the place of the CPU kernels.

Everything lies under build/host_cuda/ptx. nvcc runs again for a source when it, a header or nvcc has changed; a
translated entry is compiled again when its C++ has.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from host_cuda import extension as host
from ptx.emit import cpp_of
from ptx.parse import Entry, parse_file

HERE = Path(__file__).parent
FOLDER = host.ROOT / "build" / "host_cuda" / "ptx"
NAMESPACE = "wtal_on_ptx"
ARCHITECTURE = "compute_86"  # the main target

RUNTIME_FLAGS = ["-std=c++20", "-fPIC", "-Itests/ptx/include"]
# Nothing is joined to a fused multiply-add that nvcc has not joined; unused labels and values are nvcc's.
TRANSLATED_FLAGS = [*RUNTIME_FLAGS, "-O1", "-w", "-fvisibility=hidden", "-ffp-contract=off"]
# The launch finds an entry by the name of the host's kernel, which must be visible for that; it is never run.
STACK = "-DHOST_CUDA_STACK_BYTES=(256<<10)"
HOST_FLAGS = [flag for flag in host.FLAGS if flag not in ("-fvisibility=hidden", "-Werror")]
HOST_FLAGS += ["-Wno-attributes", "-fno-gnu-unique", "-Itests/ptx/include", "-include", "ptx/launch.h", STACK]


def nvcc() -> list[str] | None:
    """The command of nvcc: CUDACXX, or the one on the path."""
    named = shlex.split(os.environ.get("CUDACXX", "nvcc"))
    return named if shutil.which(named[0]) else None


@functools.cache
def nvcc_version() -> str:
    return subprocess.run([*nvcc(), "--version"], capture_output=True, text=True, check=True).stdout


def ptx_of(source: Path) -> Path:
    """What nvcc makes of one .cu, with the flags of its own that its build gives it."""
    target = FOLDER.relative_to(host.ROOT) / f"{source.stem}.ptx"
    fmad = ["-fmad=false"] if "-ffp-contract=off" in host.contraction(source) else []
    command = [
        *nvcc(),
        "-std=c++20",
        "-O3",
        f"-arch={ARCHITECTURE}",
        *fmad,
        "-Icsrc",
        "-isystem",
        f"{host.TORCH / 'include'}",
    ]
    command += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-MMD", "-MF", f"{target}.d"]
    return host.ROOT / host.made_by(
        [*command, "-ptx", str(source.relative_to(host.ROOT)), "-o", str(target)], target, nvcc_version()
    )


def write_translated(entries: list[Entry], folder: Path) -> list[Path]:
    """One C++ file an entry, the largest first; files of entries that are gone are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for entry in sorted(entries, key=lambda entry: -len(entry.body)):
        source, text = folder / f"{entry.name}.cpp", cpp_of(entry)
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        sources.append(source)
    for old in {path.name.split(".")[0] for path in folder.iterdir()} - {source.stem for source in sources}:
        for path in folder.glob(f"{old}.*"):
            path.unlink()
    return sources


def translated_entries(files: list[Path]) -> list[Entry]:
    """Each entry once. WTAL_PTX_ENTRIES, a regular expression, leaves only those whose mangled name has it."""
    wanted = os.environ.get("WTAL_PTX_ENTRIES", "")
    entries = {entry.name: entry for path in files for entry in parse_file(path)}
    return [entry for entry in entries.values() if re.search(wanted, entry.name)]


def compile_all(jobs: list[tuple[Path, Path, list[str]]]) -> list[Path]:
    """(source, folder, flags) each to an object, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: host.compile_source(*job), jobs))


def runtime_jobs(folder: Path, *, with_torch: bool) -> list[tuple[Path, Path, list[str]]]:
    """runtime.cpp and memory.cpp."""
    shim = ["-include", "host_cuda.h", "-Itests/host_cuda/include", "-Icsrc", STACK]
    torch_flags = ["-DPTX_WITH_TORCH", "-isystem", f"{host.TORCH / 'include'}"] if with_torch else []
    flags = [
        *RUNTIME_FLAGS,
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-ffp-contract=off",
        *host.fma_flag(),
    ]
    return [
        (HERE / "runtime.cpp", folder, [*flags, "-frounding-math", "-fno-gnu-unique", *shim]),
        (HERE / "memory.cpp", folder, [*flags, *torch_flags]),
    ]


def build() -> Path:
    """nvcc, translate, compile what has changed, link; returns the shared library."""
    with host.building():
        FOLDER.mkdir(parents=True, exist_ok=True)
        kernels = [*(host.ROOT / "csrc" / "cuda").glob("*.cu")]
        kernels.sort(key=lambda path: -path.stat().st_size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            files = list(pool.map(ptx_of, kernels))
        sources = write_translated(translated_entries(files), FOLDER / "translated")
        jobs = [(source, FOLDER / "translated", [*TRANSLATED_FLAGS, *host.fma_flag()]) for source in sources]
        jobs += runtime_jobs(FOLDER, with_torch=True)
        jobs += [(source, FOLDER, [*HOST_FLAGS, "-O0"]) for source in [*kernels, host.HERE / "schemas.cpp"]]
        objects = compile_all(jobs)
        # The runtime first: the linker takes the first of what several objects have, and only these are optimised.
        runtime = [path for path in objects if path.stem in ("runtime", "memory")]
        objects = [*runtime, *(path for path in objects if path not in runtime)]
        return host.link(
            FOLDER, NAMESPACE, objects, ["-shared", f"-L{host.TORCH / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
        )


@functools.cache
def _library() -> ctypes.CDLL:
    """Once a process: its ops cannot be registered again, and another process may have linked the file anew."""
    return ctypes.CDLL(str(build()))


def load(seed: int = 1) -> ctypes.CDLL:
    """The library, its ops registered as torch.ops.wtal_on_ptx; seed: the order of threads, what ex2.approx gives."""
    library = _library()
    library.ptx_seed(ctypes.c_uint64(seed))
    return library


@contextlib.contextmanager
def in_place_of_the_cpu(seed: int = 1) -> Iterator[None]:
    """Within it, torch.ops.wtal.* on CPU tensors run the translated PTX.

    Kernels may touch the storages of the op's arguments and what the op allocates, nothing else.
    """
    library = load(seed)

    @contextlib.contextmanager
    def around(arguments: tuple) -> Iterator[None]:
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                library.ptx_note(ctypes.c_void_p(storage.data_ptr()), ctypes.c_uint64(storage.nbytes()))
        library.ptx_note_allocations(True)
        try:
            yield
        finally:
            library.ptx_note_allocations(False)
            library.ptx_forget_all()

    with host.in_place_of_the_cpu(NAMESPACE, around):
        yield
