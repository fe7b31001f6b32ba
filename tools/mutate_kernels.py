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
for name in {ops}:
    source = extension.ROOT / 'csrc' / 'cuda' / f'{{name}}.cu'
    command = [*extension.compiler(), *extension.FLAGS, '-E', '-P', '-x', 'c++', str(source)]
    program = subprocess.run(command, cwd=extension.ROOT, capture_output=True, check=True).stdout
    print(hashlib.sha256(program).hexdigest())
"""
SOUND = "passes without any fault"
PYTEST = "import sys, pytest; sys.exit(pytest.main({arguments}))"
# Runs what it is sent, each in a process that is forked after the slow imports and that compiles or tests.
SERVER = """
import json, os, sys
import numpy, pytest, torch
for line in sys.stdin:
    code, environment, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        for n, name in ((1, 'stdout'), (2, 'stderr')):
            os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), n)
        sys.stdin = open(os.devnull)
        os.environ.update(environment)
        sys.argv = ['-c']
        try:
            exec(compile(code, 'sent', 'exec'), {'__name__': '__main__'})
            ended = 0
        except SystemExit as end:
            ended = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback
            traceback.print_exc()
            ended = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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
    left_out: tuple[str, ...] = ()  # of the sources, names in [leave_out] of LIST
    entries: str = ""  # of the PTX, a regular expression; empty: the fault is one for cuda-on-host

    @property
    def build(self) -> tuple[str, tuple[str, ...]]:
        """What is compiled for it."""
        return self.entries, self.left_out


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


def tests_for(file: str, listed: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Test file, -k and what is left out for a fault in `file`: as listed, else all of the ops that include it."""
    if file in listed:
        return [tuple(listed[file])]
    paths = [path for op in ops_that_include(file) for path in sorted((ROOT / "tests" / "ops").glob(f"test_{op}*.py"))]
    return [(str(path.relative_to(ROOT)), "not compiles and not opcheck") for path in paths]


def make_fault(what: str, span: tuple[str, int, int], text: str, tests: list[tuple[str, ...]], entries: str) -> Fault:
    """One of the faults; `tests` as tests_for gives them."""
    left_out = tuple(name for test in tests for name in test[2:])
    return Fault(what, *span, text, tuple(test[:2] for test in tests), left_out, entries)


def listed_faults() -> list[Fault]:
    """Those of the lists; ends the program where one no longer matches."""
    data, on_ptx = tomllib.loads(LIST.read_text()), tomllib.loads(PTX_LIST.read_text())
    of_soft_nms = tomllib.loads(LIST.with_name("soft_nms_mutations.toml").read_text())
    asm = [
        entry | {"kind": f"asm: {entry['kind']}"} | on_ptx["of"][entry.get("of", "bfloat16")]
        for entry in on_ptx["fault"]
    ]
    faults, wrong = [], []
    for name, edits in data["leave_out"].items():
        for file, find, _ in edits:
            if (count := (ROOT / file).read_text().count(find)) != 1:
                wrong.append(f"{file}: without {name}: found {count} times, expected once: {find!r}")
    for entry in data["fault"] + of_soft_nms["fault"] + asm:
        text = (ROOT / entry["file"]).read_text()
        count = text.count(entry["find"])
        if count != 1:
            wrong.append(f"{entry['file']}: {entry['kind']}: found {count} times, expected once: {entry['find']!r}")
            continue
        begin = text.index(entry["find"])
        tests = [tuple(entry["tests"])] if "tests" in entry else tests_for(entry["file"], data["tests"])
        line = text.count("\n", 0, begin) + 1
        what = f"{entry['file']}:{line}: {entry['kind']}"
        span = (entry["file"], begin, begin + len(entry["find"]))
        faults.append(make_fault(what, span, entry["replace"], tests, entry.get("entries", "")))
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
            faults.append(make_fault(f"{file}:{line}: {found[0]} removed", span, ";", tests, ""))
            if "wait_group" in found[0]:
                weaker = re.sub(r"\d+", lambda n: str(int(n[0]) + 1), found[0])
                faults.append(make_fault(f"{file}:{line}: {found[0]} weakened to {weaker}", span, weaker, tests, ""))
    return faults


def copied_files() -> list[str]:
    """What a copy of the tree is made of."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "csrc", "tests", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Record:
    """Verdicts on disk, a JSON line each; one holds as long as nothing that it depends on has changed.

    That is every file of the copy but pages to read, the lists of faults, and other tests than the fault's own.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.files = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in copied_files()}
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.known = {(entry["what"], entry["by"] == SOUND, entry["of"]): entry for entry in map(json.loads, lines)}

    def digest(self, tests: tuple[tuple[str, str], ...], *more: object) -> str:
        """Of all that a verdict of these tests depends on."""
        used = {path for path, _ in tests}
        files = [
            (name, digest)
            for name, digest in self.files.items()
            if name in used or not (name.endswith((".md", "mutations.toml")) or Path(name).name.startswith("test_"))
        ]
        return hashlib.sha256(repr((files, tests, *more)).encode()).hexdigest()

    def of(self, fault: Fault) -> str:
        """The digest for one fault."""
        return self.digest(fault.tests, fault.file, fault.begin, fault.end, fault.text, fault.build)

    def has_caught(self, fault: Fault) -> bool:
        """Whether an earlier run has."""
        entry = self.known.get((fault.what, False, self.of(fault)))
        return entry is not None and entry["caught"]

    def add(self, what: str, caught: bool, by: str, seconds: float, digest: str) -> None:
        """Append; the line is on disk when this returns."""
        if self.path:
            entry = {"what": what, "caught": caught, "by": by, "seconds": round(seconds), "of": digest}
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Copy:
    """A copy of the tree in which one fault at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: dict[object, str] = {}  # of a build and a file, host_program without any fault
        for name in copied_files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        for objects in (Path("build", "host_cuda", kind) for kind in ("plain", "few_blocks", "ptx")):
            if (ROOT / objects).is_dir():
                shutil.copytree(ROOT / objects, folder / objects)
        self.changed: set[str] = set()  # files that are not those of ROOT, or have been others
        self.output = folder / "build" / "output"
        self.output.mkdir(parents=True, exist_ok=True)
        self.server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, code: str, entries: str = "") -> subprocess.CompletedProcess[str]:
        """Python code in the copy, in a process of its own."""
        environment = {"HYPOTHESIS_PROFILE": "quick", "WTAL_PTX_ENTRIES": entries}
        print(json.dumps([code, environment, str(self.output)]), file=self.server.stdin, flush=True)
        ended = self.server.stdout.readline()
        if not ended:
            sys.exit(f"the process that runs the tests in {self.folder} has ended")
        return subprocess.CompletedProcess(
            code, int(ended), *((self.output / name).read_text() for name in ("stdout", "stderr"))
        )

    def close(self) -> None:
        """End the process that runs code."""
        self.server.stdin.close()
        self.server.wait()

    def write(self, left_out: tuple[str, ...], fault: Fault | None = None) -> None:
        """The sources, without what is to be left out and with a fault."""
        edits = [edit for name in left_out for edit in tomllib.loads(LIST.read_text())["leave_out"][name]]
        for name in self.changed | {file for file, _, _ in edits} | ({fault.file} if fault else set()):
            text = (ROOT / name).read_text()
            if fault and fault.file == name:
                text = text[: fault.begin] + fault.text + text[fault.end :]
            for _, find, replace in (edit for edit in edits if edit[0] == name):
                text = text.replace(find, replace)
            (self.folder / name).write_text(text)
            self.changed.add(name)

    def build(self, entries: str = "") -> subprocess.CompletedProcess[str]:
        """Compile what has changed."""
        return self.run(BUILD.format(package="ptx" if entries else "host_cuda"), entries)

    def failing(self, tests: tuple[tuple[str, str], ...], entries: str = "") -> str:
        """The first failing test, or how the run ended; empty if all passed."""
        for path, selection in tests:
            marker = ("-m", "cuda_on_ptx" if entries else "cuda_on_host and not gpu", "-k", selection)
            arguments = ["-x", "-q", "-p", "no:cacheprovider", *marker, path]
            done = self.run(PYTEST.format(arguments=arguments), entries)
            if done.returncode in (4, 5):
                sys.exit(f"no test is selected by {path} -k '{selection}':\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                found = re.search(r"^(?:FAILED|ERROR) (?:\S*::)?(.*)$", done.stdout, re.MULTILINE)
                return found[1] if found else f"the run ended with {done.returncode}"
        return ""

    def host_program(self, file: str) -> str:
        """What the host compiler makes of the ops that include a file, as digests of the preprocessed sources."""
        done = self.run(PREPROCESS.format(ops=ops_that_include(file)))
        if done.returncode != 0:
            sys.exit(done.stderr)
        return done.stdout

    def keep_host_objects(self, file: str) -> None:
        """Let the objects of the host's program, which is the same as before, pass for those of the changed file."""
        now = hashlib.sha256((self.folder / file).read_bytes()).hexdigest()
        for path in (self.folder / "build" / "host_cuda" / "ptx").glob("*.o.json"):
            known = json.loads(path.read_text())
            if file in known["files"]:
                known["files"][file] = now
                path.write_text(json.dumps(known))

    def refused_by_ptxas(self, entries: str, file: str) -> str:
        """What ptxas says against the entries of the ops that include a file; empty if nothing."""
        for op in ops_that_include(file):
            path = self.folder / "build" / "host_cuda" / "ptx" / f"{op}.ptx"
            names = [name for name in re.findall(r"\.entry (\w+)", path.read_text()) if re.search(entries, name)]
            if names:
                command = ["ptxas", "-arch=sm_86", "--entry", ",".join(names), str(path), "-o", os.devnull]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode != 0:
                    return done.stderr[-1500:]
        return ""

    def plant(self, fault: Fault) -> tuple[bool, str]:
        """Whether the fault is caught, and by what."""
        program = (*fault.build, fault.file)
        if fault.entries and program not in self.programs:
            self.write(fault.left_out)
            self.build(fault.entries)
            self.programs[program] = self.host_program(fault.file)
        self.write(fault.left_out, fault)
        if fault.entries:
            if self.host_program(fault.file) != self.programs[program]:
                return False, f"the host compiler sees it too: it belongs into {LIST.name} of host_cuda"
            self.keep_host_objects(fault.file)
        built = self.build(fault.entries)
        if built.returncode != 0:
            return False, "does not compile:\n" + built.stderr[-1500:]
        if fault.entries and (refused := self.refused_by_ptxas(fault.entries, fault.file)):
            return False, "ptxas refuses it:\n" + refused
        caught = self.failing(fault.tests, fault.entries)
        return bool(caught), caught or "NOT CAUGHT"


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
    if before := sum(record.has_caught(fault) for fault in faults):
        print(f"{before} of {len(faults)} faults were caught by an earlier run")
        faults = [fault for fault in faults if not record.has_caught(fault)]
    faults.sort(key=lambda fault: fault.build)  # those of one build in a row

    with tempfile.TemporaryDirectory() as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        first = Copy(Path(folder) / "0")
        for entries, left_out in sorted({fault.build for fault in faults}):
            tests = sorted({test for fault in faults if fault.build == (entries, left_out) for test in fault.tests})
            digests = {test: record.digest((test,), entries, left_out) for test in tests}
            tests = [test for test in tests if (" ".join(test), True, digests[test]) not in record.known]
            if not tests:
                continue
            first.write(left_out)
            built = first.build(entries)
            if built.returncode:
                sys.exit(f"without any fault planted: {built.stderr}")
            for test in tests:
                since = time.monotonic()
                if failed := first.failing((test,), entries):
                    sys.exit(f"without any fault planted: {failed}")
                record.add(" ".join(test), False, SOUND, time.monotonic() - since, digests[test])
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
            record.add(fault.what, caught, by, seconds, record.of(fault))
            print(f"{'caught' if caught else 'ERROR '}  {seconds:4.0f} s  {fault.what}\n        {by}")
            sys.stdout.flush()
            return caught

        with ThreadPoolExecutor(options.workers) as pool:
            results = list(pool.map(tried, faults))
        while not copies.empty():
            copies.get().close()
    print(f"{sum(results)} of {len(results)} planted faults were caught")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
