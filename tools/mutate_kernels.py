"""Plant faults in a copy of the CUDA sources, one at a time, and see that the tests on cuda-on-host catch each.

The faults are those of tests/host_cuda/mutations.toml, and for every .cuh the removal of each barrier and wait, and
each wait_group made weaker by one. The sources themselves are never touched: every worker has a copy, into which a
fault is written and taken out again. Exits with 1 if a fault goes unnoticed, no longer matches, or does not compile.

    python tools/mutate_kernels.py                 # all of them; minutes
    python tools/mutate_kernels.py soft_nms        # those whose description contains the word
"""

from __future__ import annotations

import argparse
import dataclasses
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
STATEMENTS = r"__syncthreads\(\);|__syncwarp\([^;]*\);|(?:\w+::)*cp_async_wait_group<\d+>\(\);"
BUILD = "import sys; sys.path.insert(0, 'tests'); from host_cuda import extension; extension.build()"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Characters begin .. end of the file become `text`; then pytest runs `tests`, and one of them must fail."""

    what: str
    file: str
    begin: int
    end: int
    text: str
    tests: tuple[tuple[str, str], ...]


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
    return tuple((f"tests/ops/test_{op}.py", "not compiles and not opcheck") for op in ops_that_include(file))


def listed_faults() -> list[Fault]:
    """Those of the list; ends the program where one no longer matches."""
    data = tomllib.loads(LIST.read_text())
    faults, wrong = [], []
    for entry in data["fault"]:
        text = (ROOT / entry["file"]).read_text()
        count = text.count(entry["find"])
        if count != 1:
            wrong.append(f"{entry['file']}: {entry['kind']}: found {count} times, expected once: {entry['find']!r}")
            continue
        begin = text.index(entry["find"])
        tests = (tuple(entry["tests"]),) if "tests" in entry else tests_for(entry["file"], data["tests"])
        line = text.count("\n", 0, begin) + 1
        what = f"{entry['file']}:{line}: {entry['kind']}"
        faults.append(Fault(what, entry["file"], begin, begin + len(entry["find"]), entry["replace"], tests))
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


class Copy:
    """A copy of the tree in which one fault at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "csrc", "tests", "pyproject.toml"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in files.stdout.splitlines():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        objects = Path("build", "host_cuda", "plain")
        if (ROOT / objects).is_dir():
            shutil.copytree(ROOT / objects, folder / objects)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, in the copy."""
        environment = os.environ | {"HYPOTHESIS_PROFILE": "quick"}
        return subprocess.run(
            [sys.executable, "-P", *command], cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def build(self) -> subprocess.CompletedProcess[str]:
        """Compile what has changed."""
        return self.run("-c", BUILD)

    def failing(self, tests: tuple[tuple[str, str], ...]) -> str:
        """The first failing test, or how the run ended; empty if all passed."""
        for path, selection in tests:
            marker = ("-m", "cuda_on_host and not gpu", "-k", selection)
            done = self.run("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *marker, path)
            if done.returncode in (4, 5):
                sys.exit(f"no test is selected by {path} -k '{selection}':\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                found = re.search(r"^(?:FAILED|ERROR) (?:\S*::)?(.*)$", done.stdout, re.MULTILINE)
                return found[1] if found else f"the run ended with {done.returncode}"
        return ""

    def plant(self, fault: Fault) -> tuple[bool, str]:
        """Whether the fault is caught, and by what."""
        path = self.folder / fault.file
        original = path.read_text()
        path.write_text(original[: fault.begin] + fault.text + original[fault.end :])
        try:
            built = self.build()
            if built.returncode != 0:
                return False, "does not compile:\n" + built.stderr[-1500:]
            caught = self.failing(fault.tests)
            return bool(caught), caught or "NOT CAUGHT"
        finally:
            path.write_text(original)


def main() -> int:
    """Plant, run, restore, print a line a fault, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose description contains one of them")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    faults = [
        fault
        for fault in listed_faults() + automatic_faults()
        if not options.words or any(word in fault.what for word in options.words)
    ]
    if options.list:
        print("\n".join(fault.what for fault in faults))
        return 0

    with tempfile.TemporaryDirectory() as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        first = Copy(Path(folder) / "0")
        built = first.build()
        sound = built.stderr if built.returncode else first.failing(tuple(sorted({t for f in faults for t in f.tests})))
        if sound:
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
            print(f"{'caught' if caught else 'ERROR '}  {time.monotonic() - since:4.0f} s  {fault.what}\n        {by}")
            sys.stdout.flush()
            return caught

        with ThreadPoolExecutor(options.workers) as pool:
            results = list(pool.map(tried, faults))
    print(f"{sum(results)} of {len(results)} planted faults were caught")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
