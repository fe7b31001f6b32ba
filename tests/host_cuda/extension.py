"""Builds csrc/cuda with the host compiler, and lets its ops take the place of the CPU kernels.

The build is one shared library a variant under build/host_cuda, compiled by the C++ compiler that built wtal ($CXX or
c++), each source anew when it or a header it includes has changed. It happens within the tests, so that plain
``pip install '.[dev]' && pytest`` has it, and a wheel never does.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent
NAMESPACE = "wtal_on_host"
Around = Callable[[tuple], contextlib.AbstractContextManager]

FLAGS = [
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-include", "host_cuda.h", "-Itests/host_cuda/include", "-Icsrc", "-isystem", f"{TORCH / 'include'}"),
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
]
VARIANTS = {
    "plain": ["-O2"],
    # Headers of few_blocks come first: a launch has at most two blocks, which take all the work in turns.
    "few_blocks": ["-O2", "-iquotetests/host_cuda/few_blocks"],
    # Reports to stderr and ends the process. The library must be loaded into a process that has libasan preloaded.
    "sanitized": ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
}

SANITIZER_OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def contraction(source: Path) -> list[str]:
    """As nvcc treats the source: a * b + c becomes one rounding, unless its build says -fmad=false."""
    name = re.escape(f"{source.parent.name}/{source.name}")
    build = (ROOT / "csrc" / "CMakeLists.txt").read_text()
    if re.search(rf"set_property\(SOURCE {name} [^)]*-fmad=false", build):
        return ["-ffp-contract=off"]
    return ["-ffp-contract=fast", *fma_flag()]


@functools.cache
def fma_flag() -> list[str]:
    """What lets the compiler use the fused multiply-add of this machine, if it has one."""
    with contextlib.suppress(OSError):
        if re.search(r"^flags.* fma ", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return ["-mfma"]
    return []


def digest(path: str | Path) -> str:
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


def compile_source(source: Path, folder: Path, flags: list[str]) -> Path:
    """Object file of one source; see made_by."""
    source, target = source.relative_to(ROOT), folder.relative_to(ROOT) / f"{source.stem}.o"
    command = [*compiler(), *flags, "-MMD", "-MF", f"{target}.d"]
    return made_by([*command, "-x", "c++", "-c", str(source), "-o", str(target)], target, torch.__version__)


def made_by(command: list[str], target: Path, version: str) -> Path:
    """The target of a compiler's command, which writes its dependencies beside it, as its name and ``.d``.

    Kept while the command, the version and every file of this tree it read are the same. All paths are relative to the
    tree, so a copy of it can begin with a copy of its objects.
    """
    record, dependencies = Path(f"{target}.json"), Path(f"{target}.d")
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((ROOT / record).read_text())
        if known["command"] == [*command, version] and all(
            digest(path) == seen for path, seen in known["files"].items()
        ):
            return target
    (ROOT / record).unlink(missing_ok=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
    files = (ROOT / dependencies).read_text().replace("\\\n", " ").split(":", 1)[1].split()
    (ROOT / record).write_text(
        json.dumps({"command": [*command, version], "files": {path: digest(path) for path in files}})
    )
    return target


@contextlib.contextmanager
def building() -> Iterator[None]:
    """One process at a time builds below build/host_cuda; the others wait, and find what it has made."""
    folder = ROOT / "build" / "host_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(variant: str = "plain") -> Path:
    """Compile what has changed of the ops and link; returns the shared library."""
    sources = [HERE / "schemas.cpp", *sorted((ROOT / "csrc" / "cuda").glob("*.cu"))]
    return _link("wtal_on_host", variant, sources, ["-shared", f"-L{TORCH / 'lib'}", "-ltorch", "-ltorch_cpu"])


def build_program(variant: str) -> Path:
    """The small kernels of planted.cpp: a shared library, or a program where sanitizers watch."""
    return _link("planted", variant, [HERE / "planted.cpp"], ["-shared"] if variant == "plain" else [])


def _link(name: str, variant: str, sources: list[Path], options: list[str]) -> Path:
    folder = ROOT / "build" / "host_cuda" / variant
    folder.mkdir(parents=True, exist_ok=True)
    with building(), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(
            pool.map(lambda s: compile_source(s, folder, [*FLAGS, *VARIANTS[variant], *contraction(s)]), sources)
        )
        return link(folder, name, objects, [*VARIANTS[variant], *options])


def link(folder: Path, name: str, objects: list[Path], options: list[str]) -> Path:
    """A shared library or a program of the objects; kept while they are the same."""
    stamp = hashlib.sha256("".join(digest(path) for path in objects).encode()).hexdigest()[:16]
    target = folder / f"{name}-{stamp}.so"
    if not target.exists():
        for old in folder.glob(f"{name}-*.so"):
            old.unlink()
        partial = target.with_suffix(f".{os.getpid()}")
        subprocess.run([*compiler(), *map(str, objects), *options, "-o", str(partial)], cwd=ROOT, check=True)
        partial.rename(target)
    return target


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    """Once a process: its ops cannot be registered again, and another process may have linked the file anew."""
    return ctypes.CDLL(str(build(variant)))


def load(variant: str = "plain", seed: int = 1) -> ctypes.CDLL:
    """The library, its ops registered as torch.ops.wtal_on_host; seed decides the order of threads and blocks."""
    library = _library(variant)
    library.host_cuda_shuffle(ctypes.c_uint64(seed))
    return library


@contextlib.contextmanager
def in_place_of_the_cpu(namespace: str = NAMESPACE, around: Around = contextlib.nullcontext) -> Iterator[None]:
    """Within it, torch.ops.wtal.* on CPU tensors run the CUDA kernels on the host; load() first.

    What the ops allocate and do not write holds NaN. Each call happens within around(its arguments).
    """
    library = torch.library.Library("wtal", "IMPL")
    try:
        for name in torch._C._dispatch_get_all_op_names():
            if name.startswith(f"{namespace}::"):
                op = name.removeprefix(f"{namespace}::")
                function = getattr(getattr(torch.ops, namespace), op).default
                library.impl(op, _on_host(function, around), "CPU", allow_override=True)
        yield
    finally:
        library._destroy()


def _on_host(function: Callable, around: Around) -> Callable:
    def call(*arguments):
        before = torch.are_deterministic_algorithms_enabled()
        torch._C._set_deterministic_algorithms(True)  # fills new memory
        try:
            with torch._C._AutoDispatchBelowAutograd(), around(arguments):
                return function(*arguments)
        finally:
            torch._C._set_deterministic_algorithms(before)

    return call
