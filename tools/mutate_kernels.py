"""Plant faults in a copy of the CUDA sources, one at a time, and see that the tests catch each.

The faults are those of tests/host_cuda/*mutations.toml, and for every .cuh the removal of each barrier and wait, and
each wait_group made weaker by one: tests on cuda-on-host must catch them. Where there is nvcc, those of
tests/ptx/mutations.toml as well, in the inline asm: ptxas must accept each, the host's program must stay the same, and
tests on cuda-on-ptx must catch it. The sources themselves are never touched: every worker has a copy, into which a
fault is written and taken out again. Exits with 1 if a fault goes unnoticed, no longer matches, or does not compile.

    python tools/mutate_kernels.py                 # all of them; minutes
    python tools/mutate_kernels.py soft_nms        # those whose description contains the word
    python tools/mutate_kernels.py asm             # those of the inline asm
    python tools/mutate_kernels.py --record FILE   # notes each verdict there; a second run goes on after the first
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "host_cuda" / "mutations.toml"
PTX_LIST = ROOT / "tests" / "ptx" / "mutations.toml"
STATEMENTS = r"__syncthreads\(\);|__syncwarp\([^;]*\);|(?:\w+::)*cp_async_wait_group<\d+>\(\);"
BUILD = "import sys; sys.path.insert(0, 'tests'); from {package} import extension; extension.build()"
PREPROCESS = """
import hashlib, subprocess, sys
sys.path.insert(0, 'tests')
from host_cuda import extension
for source in sorted((extension.ROOT / 'csrc' / 'cuda').glob('*.cu')):
    command = [*extension.compiler(), *extension.FLAGS, '-E', '-P', '-x', 'c++', str(source)]
    program = subprocess.run(command, cwd=extension.ROOT, capture_output=True, check=True).stdout
    print(hashlib.sha256(program).hexdigest())
"""


@dataclasses.dataclass(frozen=True)
class Fault:
    """Characters begin .. end of the file become `text`; then pytest runs `tests`, and one of them must fail."""

    what: str
    file: str
    begin: int
    end: int
    text: str
    tests: tuple[tuple[str, str], ...]
    entries: str = ""  # of the PTX, a regular expression; empty: the fault is one for cuda-on-host


def ops_that_include(file: str) -> list[str]:
    """Names of the ops whose .cu includes a header, directly or not."""
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "csrc").rglob("*.[ch]u*")}
    reached, before = {file}, set()
    while reached != before:
        before = set(reached)
        for name, text in sources.items():
            if any(f'"{other.removeprefix("csrc/")}"' in text for other in before):
                reached.add(name)
    return sorted(Path(name).stem for name in reached if name.endswith(".cu"))


def tests_for(file: str, listed: dict[str, list[str]]) -> tuple[tuple[str, str], ...]:
    """Test file and -k for a fault in `file`: as listed, else all of the ops that include it."""
    if file in listed:
        path, selection = listed[file]
        return ((path, selection),)
    paths = [path for op in ops_that_include(file) for path in sorted((ROOT / "tests" / "ops").glob(f"test_{op}*.py"))]
    return tuple((str(path.relative_to(ROOT)), "not compiles and not opcheck") for path in paths)


def listed_faults() -> list[Fault]:
    """Those of the lists; ends the program where one no longer matches."""
    data, on_ptx = tomllib.loads(LIST.read_text()), tomllib.loads(PTX_LIST.read_text())
    of_soft_nms = tomllib.loads(LIST.with_name("soft_nms_mutations.toml").read_text())
    asm = [
        entry | {"kind": f"asm: {entry['kind']}", "tests": on_ptx["tests"], "entries": on_ptx["entries"]}
        for entry in on_ptx["fault"]
    ]
    faults, wrong = [], []
    for entry in data["fault"] + of_soft_nms["fault"] + asm:
        text = (ROOT / entry["file"]).read_text()
        count = text.count(entry["find"])
        if count != 1:
            wrong.append(f"{entry['file']}: {entry['kind']}: found {count} times, expected once: {entry['find']!r}")
            continue
        begin = text.index(entry["find"])
        tests = (tuple(entry["tests"]),) if "tests" in entry else tests_for(entry["file"], data["tests"])
        line = text.count("\n", 0, begin) + 1
        what = f"{entry['file']}:{line}: {entry['kind']}"
        span = (entry["file"], begin, begin + len(entry["find"]))
        faults.append(Fault(what, *span, entry["replace"], tests, entry.get("entries", "")))
    if wrong:
        sys.exit("\n".join(["these faults no longer match:", *wrong]))
    return faults


def automatic_faults() -> list[Fault]:
    """Every barrier and wait of every .cuh removed; every wait_group weakened by one."""
    listed = tomllib.loads(LIST.read_text())["tests"]
    faults = []
    for path in sorted((ROOT / "csrc" / "cuda").glob("*.cuh")):
        file, text = str(path.relative_to(ROOT)), path.read_text()
        for found in re.finditer(STATEMENTS, text):
            line, tests = text.count("\n", 0, found.start()) + 1, tests_for(file, listed)
            span = (file, found.start(), found.end())
            faults.append(Fault(f"{file}:{line}: {found[0]} removed", *span, ";", tests))
            if "wait_group" in found[0]:
                weaker = re.sub(r"\d+", lambda n: str(int(n[0]) + 1), found[0])
                faults.append(Fault(f"{file}:{line}: {found[0]} weakened to {weaker}", *span, weaker, tests))
    return faults


def copied_files() -> list[str]:
    """What a copy of the tree is made of."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "csrc", "tests", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Record:
    """Verdicts on disk, a JSON line each; one holds as long as no file of the copy has changed."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        tree = hashlib.sha256()
        for name in copied_files():
            tree.update(name.encode() + b"\0" + hashlib.sha256((ROOT / name).read_bytes()).digest())
        self.tree = tree.hexdigest()
        lines = path.read_text().splitlines() if path and path.exists() else []
        known = [json.loads(line) for line in lines]
        self.caught = {entry["what"] for entry in known if entry["caught"] and entry["tree"] == self.tree}

    def add(self, fault: Fault, caught: bool, by: str, seconds: float) -> None:
        """Append; the line is on disk when this returns."""
        if self.path:
            entry = {"what": fault.what, "caught": caught, "by": by, "seconds": round(seconds), "tree": self.tree}
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Copy:
    """A copy of the tree in which one fault at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in copied_files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        for objects in (Path("build", "host_cuda", kind) for kind in ("plain", "few_blocks", "ptx")):
            if (ROOT / objects).is_dir():
                shutil.copytree(ROOT / objects, folder / objects)

    def run(self, *command: str, entries: str = "") -> subprocess.CompletedProcess[str]:
        """Python with these arguments, in the copy."""
        environment = os.environ | {"HYPOTHESIS_PROFILE": "quick", "WTAL_PTX_ENTRIES": entries}
        return subprocess.run(
            [sys.executable, "-P", *command], cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def build(self, entries: str = "") -> subprocess.CompletedProcess[str]:
        """Compile what has changed."""
        return self.run("-c", BUILD.format(package="ptx" if entries else "host_cuda"), entries=entries)

    def failing(self, tests: tuple[tuple[str, str], ...], entries: str = "") -> str:
        """The first failing test, or how the run ended; empty if all passed."""
        for path, selection in tests:
            marker = ("-m", "cuda_on_ptx" if entries else "cuda_on_host and not gpu", "-k", selection)
            done = self.run("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *marker, path, entries=entries)
            if done.returncode in (4, 5):
                sys.exit(f"no test is selected by {path} -k '{selection}':\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                found = re.search(r"^(?:FAILED|ERROR) (?:\S*::)?(.*)$", done.stdout, re.MULTILINE)
                return found[1] if found else f"the run ended with {done.returncode}"
        return ""

    def host_program(self) -> str:
        """What the host compiler makes of the kernels, as digests of the preprocessed sources."""
        done = self.run("-c", PREPROCESS)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return done.stdout

    def refused_by_ptxas(self, entries: str) -> str:
        """What ptxas says against the entries of any source; empty if nothing."""
        for path in sorted((self.folder / "build" / "host_cuda" / "ptx").glob("*.ptx")):
            names = [name for name in re.findall(r"\.entry (\w+)", path.read_text()) if re.search(entries, name)]
            if names:
                command = ["ptxas", "-arch=sm_86", "--entry", ",".join(names), str(path), "-o", os.devnull]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode != 0:
                    return done.stderr[-1500:]
        return ""

    def plant(self, fault: Fault) -> tuple[bool, str]:
        """Whether the fault is caught, and by what."""
        path = self.folder / fault.file
        original = path.read_text()
        host_program = self.host_program() if fault.entries else ""
        path.write_text(original[: fault.begin] + fault.text + original[fault.end :])
        try:
            built = self.build(fault.entries)
            if built.returncode != 0:
                return False, "does not compile:\n" + built.stderr[-1500:]
            if fault.entries and self.host_program() != host_program:
                return False, f"the host compiler sees it too: it belongs into {LIST.name} of host_cuda"
            if fault.entries and (refused := self.refused_by_ptxas(fault.entries)):
                return False, "ptxas refuses it:\n" + refused
            caught = self.failing(fault.tests, fault.entries)
            return bool(caught), caught or "NOT CAUGHT"
        finally:
            path.write_text(original)


def main() -> int:
    """Plant, run, restore, print a line a fault, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose description contains one of them")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="note verdicts here, leave out what it says is caught"
    )
    options = parser.parse_args()
    faults = [
        fault
        for fault in listed_faults() + automatic_faults()
        if not options.words or any(word in fault.what for word in options.words)
    ]
    if shutil.which("nvcc") is None and not options.list:
        print(f"without nvcc the {sum(bool(fault.entries) for fault in faults)} faults in asm are left out")
        faults = [fault for fault in faults if not fault.entries]
    if options.list:
        print("\n".join(fault.what for fault in faults))
        return 0
    record = Record(options.record)
    if before := sum(fault.what in record.caught for fault in faults):
        print(f"{before} of {len(faults)} faults were caught by an earlier run")
        faults = [fault for fault in faults if fault.what not in record.caught]

    with tempfile.TemporaryDirectory() as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        first = Copy(Path(folder) / "0")
        for entries in sorted({fault.entries for fault in faults}):
            tests = tuple(sorted({test for fault in faults if fault.entries == entries for test in fault.tests}))
            built = first.build(entries)
            if sound := built.stderr if built.returncode else first.failing(tests, entries):
                sys.exit(f"without any fault planted: {sound}")
        copies.put(first)
        for i in range(1, options.workers):
            copies.put(Copy(Path(folder) / str(i)))

        def tried(fault: Fault) -> bool:
            copy, since = copies.get(), time.monotonic()
            try:
                caught, by = copy.plant(fault)
            finally:
                copies.put(copy)
            seconds = time.monotonic() - since
            record.add(fault, caught, by, seconds)
            print(f"{'caught' if caught else 'ERROR '}  {seconds:4.0f} s  {fault.what}\n        {by}")
            sys.stdout.flush()
            return caught

        with ThreadPoolExecutor(options.workers) as pool:
            results = list(pool.map(tried, faults))
    print(f"{sum(results)} of {len(results)} planted faults were caught")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
