"""Arrays made to hang a reader, or to take memory that no file accounts for."""

from __future__ import annotations

import codecs
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_readers import READERS, npy, objects

from wtal.platform.fields import shown

pytestmark = pytest.mark.usefixtures("little_memory")


def diamond(kind: type = list, depth: int = 60) -> object:
    """Two parts that are one, level on level: little in memory, and 2**60 paths through it."""
    inner: object = kind()
    for _ in range(depth):
        inner = kind((inner, inner))
    return inner


class Calls:
    """Pickles as a call of ``function``, and a state."""

    def __init__(self, function: object, arguments: tuple[object, ...], *state: object) -> None:
        self.reduced = (function, arguments, *state)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def diamonds() -> dict[str, bytes]:
    """Pickles with a diamond wherever the unpickler takes an object of the pickle's choice."""
    made, single = np.array([1.0]).__reduce__()[0], np.float32(1).__reduce__()[0]
    empty = (np.ndarray, (0,), b"b")
    stacked = pickle.dumps(diamond(tuple), 2)[2:-1]  # leaves it on the stack
    return {
        "entry": pickle.dumps(objects(diamond()), 2),
        "dtype": pickle.dumps(Calls(np.dtype, (diamond(), False, True)), 2),
        "dtype state": pickle.dumps(Calls(np.dtype, ("f4", False, True), (3, diamond(), *[None] * 3, -1, -1, 0)), 2),
        "dtype state's form": pickle.dumps(Calls(np.dtype, ("f4", False, True), diamond(tuple)), 2),
        "scalar": pickle.dumps(Calls(single, (diamond(), b"")), 2),
        "array": pickle.dumps(Calls(made, (np.ndarray, diamond(tuple), b"b")), 2),
        "array's type": pickle.dumps(Calls(made, (diamond(), (0,), b"b")), 2),
        "array's shape": pickle.dumps(Calls(made, empty, (1, diamond(tuple), np.dtype("f4"), False, b"")), 2),
        "array's dtype": pickle.dumps(Calls(made, empty, (1, (1,), diamond(), False, b"")), 2),
        "array's data": pickle.dumps(Calls(made, empty, (1, (1,), np.dtype("f4"), False, diamond())), 2),
        "encoding": pickle.dumps(Calls(codecs.encode, ("a", diamond())), 2),
        "persistent id": pickle.dumps(diamond(), 2)[:-1] + b"Q.",
        "key of a dict": b"\x80\x02}" + stacked + b"K\x01s.",
        "keys of a dict": b"\x80\x02}(" + stacked + b"K\x01u.",
        "keys of a dict in one go": b"\x80\x02(" + stacked + b"K\x01d.",
        "set": b"\x80\x04\x8f(" + stacked + b"\x90.",
        "frozen set": b"\x80\x04(" + stacked + b"\x91.",
    }


def in_time(read: Callable[[], object], seconds: int = 20) -> None:
    """Do it in a process of its own, which ends at the latest after some time: what hangs in C hears no signal."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        code = 1
        try:
            read()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**90), "x" * 10**6, b"x" * 10**6, [0] * 10**5, {str(n): n for n in range(1000)}, diamond(tuple)],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_shown_on_a_short_line(value: object) -> None:
    for wrapped in (value, [value], {"a": value}, objects(value, value)):
        in_time(lambda wrapped=wrapped: shown(wrapped))
        assert len(shown(wrapped)) <= 80
        assert "\n" not in shown(wrapped)


@pytest.mark.parametrize("name", diamonds())
def test_objects_with_endless_paths_through_them(name: str, record, tmp_path) -> None:
    header = npy(objects(None))[:128]
    reader = READERS["npy-objects"]
    path = reader.prepare(tmp_path / "x")
    in_time(lambda: reader.try_on(path, header + diamonds()[name]))
    record("pickle with 2**60 paths", name, "read or one error, at once")


@pytest.mark.parametrize("name", [name for name in READERS if name.startswith("wtalc-")])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: [[value, value]]])
def test_annotations_with_endless_paths_through_them(name: str, wrap, record, tmp_path) -> None:
    reader = READERS[name]
    path = reader.prepare(tmp_path)

    def read() -> None:
        for value in (diamond(), objects(diamond(), diamond()), {"a": diamond()}):
            assert not reader.try_on(path, npy(objects(wrap(value), wrap(value))))

    in_time(read)


@pytest.mark.parametrize(
    "shape", [(2**62, 0), (10**26, 0), (0, 2**63 - 1, 2), (1,) * 70, (0,) * 65, (2**64, 0), (2**40, 0)]
)
@pytest.mark.parametrize("dtype", ["<f4", "|O", "|S0", "<U1"])
def test_shapes_that_numpy_refuses(shape: tuple[int, ...], dtype: str, record, tmp_path) -> None:
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(1013) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    for name in ("npy", "npy-objects"):
        for payload in (b"", bytes(4), pickle.dumps(objects())):
            assert not READERS[name].try_on(READERS[name].prepare(tmp_path / name), data + payload)
    record("impossible shape", f"{dtype}, {len(shape)} dimensions", "one error")


def test_text_of_no_width_takes_no_memory(tmp_path) -> None:
    """numpy makes it one wide."""
    header = repr({"descr": "|S0", "fortran_order": False, "shape": (2**40,)}).encode().ljust(1013) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    assert not READERS["npy"].try_on(READERS["npy"].prepare(tmp_path), data)


def test_a_single_value_is_no_list_of_videos(tmp_path) -> None:
    for array in (np.array(3.0), np.array(None, dtype=object)):
        assert not READERS["npy-objects"].try_on(READERS["npy-objects"].prepare(tmp_path), npy(array))
