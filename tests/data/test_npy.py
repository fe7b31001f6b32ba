"""load_npy against np.load: the same arrays, and one WtalError line for everything else."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.npy import load_npy, open_rows, stream_npy
from wtal.errors import WtalError


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def with_pickle(payload: bytes, shape: tuple[int, ...] = (1,)) -> bytes:
    header = saved(np.empty(shape, dtype=object))
    return header[: 10 + struct.unpack("<H", header[8:10])[0]] + payload


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(WtalError) as caught:
        load_npy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float16).reshape(3, 4)),
        np.arange(5, dtype=">i4"),
        np.array(3.5),
        np.empty((0, 7), dtype=np.float32),
        np.array([b"CliffDiving", b"Diving"]),
        np.array(["a", "längst"]),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_plain_arrays(tmp_path: Path, array: np.ndarray, mmap: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    loaded = load_npy(tmp_path / "a.npy", mmap=mmap)
    assert loaded.dtype == array.dtype
    assert loaded.shape == array.shape
    assert loaded.tolist() == array.tolist()


def test_mapped_array_is_read_only(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    loaded = load_npy(tmp_path / "a.npy", mmap=True)
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_objects_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    array = objects(
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(["x", "yy"]),
        np.array([b"x", b"yy"]),
        np.array([], dtype=np.float64),
        np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        [[1.5, 2.0], [3.0, 4.0]],
        ["Diving", b"CliffDiving"],
        np.float32(2.5),
        np.int64(7),
        objects([1], np.array([2])),
        None,
    )
    (tmp_path / "a.npy").write_bytes(with_pickle(pickle.dumps(array, protocol), array.shape))
    loaded = load_npy(tmp_path / "a.npy")
    reference = np.load(tmp_path / "a.npy", allow_pickle=True)
    for ours, theirs in zip(loaded, reference, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert repr(ours.tolist()) == repr(theirs.tolist())
        else:
            assert ours == theirs


def test_objects_of_python_2(tmp_path: Path) -> None:
    # What Python 2.7 with numpy 1.16 writes: text opcodes (U: SHORT_BINSTRING) where Python 3 has bytes.
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    dtype = lambda code, state: b"cnumpy\ndtype\n(" + text(code) + b"K\x00K\x01tR(K\x03" + state + b"tb"  # noqa: E731
    plain = text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    data = np.array([[1.0, -2.0]], dtype="<f4").tobytes()
    features = array + b"(K\x01(K\x01K\x02t" + dtype(b"f4", plain) + b"I00\n" + text(data) + b"tb"
    objects_state = text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3f"
    labels = b"]" + text(b"Diving") + b"a"
    outer = b"(K\x01(K\x02t" + dtype(b"O8", objects_state) + b"I00\n](" + features + labels + b"etb"
    content = with_pickle(b"\x80\x02" + array + outer + b".", (2,))
    assert b"(2,)" in content
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2,), } ", b"(2L,), }"))
    loaded = load_npy(tmp_path / "a.npy")
    assert loaded.shape == (2,)
    assert loaded[0].dtype == np.float32
    assert loaded[0].tolist() == [[1.0, -2.0]]
    assert loaded[1] == [b"Diving"]
    with pytest.warns(UserWarning, match="header parsing"):
        reference = np.load(tmp_path / "a.npy", allow_pickle=True, encoding="bytes")
    assert reference[0].tolist() == loaded[0].tolist()


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_a_program_is_refused(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    array = objects(np.zeros(2), Runs(f"touch {victim}"))
    message = refused(tmp_path / "a.npy", with_pickle(pickle.dumps(array, protocol), (2,)))
    assert "posix.system" in message
    assert not victim.exists()
    refused(tmp_path / "a.npy", with_pickle(pickle.dumps(Runs(f"touch {victim}"), protocol)))
    assert not victim.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ft" + b"R.",  # a call of the array type: an allocation at will
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftC\x01btR.",
        b"cnumpy\ndtype\n(X\x05\x00\x00\x00f4,i4I00\nI01\ntR.",  # a structured dtype
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntRC\x08aaaaaaaatR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zlitR.",
        b"c_codecs\nencode\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xsb.",  # state into a function
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x8c\x08builtins\x8c\x04exec\x93(X\x01\x00\x00\x001tR.",
        b"Pid\n.",
    ],
)
def test_hostile_pickles_are_refused(tmp_path: Path, payload: bytes) -> None:
    refused(tmp_path / "a.npy", with_pickle(payload))


def test_a_huge_object_shape_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    payload = pickle.dumps(np.empty(1, dtype=object), 2)
    assert payload.count(b"K\x01K\x01\x85") == 1
    message = refused(
        tmp_path / "a.npy", with_pickle(payload.replace(b"K\x01K\x01\x85", b"K\x01J\xff\xff\xff\x7f\x85"))
    )
    assert "1 objects" in message


def test_faults_name_the_file_and_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    good = saved(np.arange(8, dtype=np.float32).reshape(4, 2))
    assert "truncated: 31 bytes of data, expected 32" in refused(path, good[:-1])
    assert "longer than its header" in refused(path, good + b"\0")
    assert "not a .npy file" in refused(path, b"PK\x03\x04" + good)
    assert "not a .npy file" in refused(path, b"")
    assert "version" in refused(path, good[:8])
    assert "version (3, 0)" in refused(path, good[:6] + b"\3" + good[7:])
    assert "header" in refused(path, good[:40])
    assert "truncated: 0 bytes" in refused(path, good[:-32])
    with pytest.raises(WtalError, match="no such file"):
        load_npy(tmp_path / "none.npy")
    with pytest.raises(WtalError, match="cannot be read"):
        load_npy(tmp_path)


def test_a_header_may_not_promise_more_than_the_file_holds(tmp_path: Path) -> None:
    good = saved(np.zeros((4, 2), dtype=np.float32))
    big = good.replace(b"(4, 2), }            ", b"(999999999999, 2), } ")
    assert len(big) == len(good)
    assert "expected 7999999999992" in refused(tmp_path / "a.npy", big)
    overflow = good.replace(b"(4, 2), }                        ", b"(99999999999999999999999, 2), }  ")
    assert "shape" in refused(tmp_path / "a.npy", overflow)
    negative = good.replace(b"(4, 2), } ", b"(-4, -2),}")
    assert "shape" in refused(tmp_path / "a.npy", negative)


def test_flags_of_a_dtype_are_not_taken_from_the_file(tmp_path: Path) -> None:
    """With a flag missing, numpy would take the list's address for the array's objects and crash."""
    payload = pickle.dumps(objects(1.5, "a"), 4)
    flags = payload.index(b"K?t")
    for value in range(256):
        (tmp_path / "a.npy").write_bytes(
            with_pickle(payload[: flags + 1] + bytes([value]) + payload[flags + 2 :], (2,))
        )
        assert load_npy(tmp_path / "a.npy").tolist() == [1.5, "a"]


def test_text_with_characters_that_are_none(tmp_path: Path) -> None:
    good = np.array(["ab", "c"])
    bad = saved(good)[:-4] + b"\xff\xff\xff\x7f"
    assert "character 0x7fffffff, expected Unicode" in refused(tmp_path / "a.npy", bad)
    inside = saved(objects(good, 1)).replace(b"c\0\0\0", b"c\0\0\x7f")
    assert "expected Unicode text" in refused(tmp_path / "a.npy", inside)


def test_structured_arrays_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path / "a.npy", saved(np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])))
    assert "expected an array of numbers" in message


FUZZED = [
    saved(np.arange(6, dtype=np.float32).reshape(3, 2)),
    saved(np.array([b"video_test_0000004", b"x"])),
    saved(objects(np.arange(3.0), [b"Diving", "Billiards"], np.array(["ab", "c"]))),
    with_pickle(pickle.dumps(objects(np.arange(3.0), [[1.5, 2.5]]), 2), (2,)),
]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_files_give_what_numpy_gives_or_one_clear_error(data: st.DataObject, tmp_path_factory) -> None:
    content = bytearray(data.draw(st.sampled_from(FUZZED)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    path.write_bytes(content)
    try:
        loaded = load_npy(path)
    except WtalError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return
    if loaded.dtype == object:
        return  # numpy's own unpickler would run what the damage asks for
    reference = np.load(path)
    assert loaded.dtype == reference.dtype
    assert loaded.shape == reference.shape
    assert loaded.tobytes() == reference.tobytes()


def test_real_annotation_files(test_data: Path) -> None:
    paths = sorted((test_data / "thumos14/wtalc/Thumos14reduced-Annotations").glob("*.npy"))
    assert len(paths) == 9
    for path in paths:
        loaded = load_npy(path)
        reference = np.load(path, allow_pickle=True, encoding="bytes")
        assert loaded.dtype == reference.dtype
        assert loaded.tolist() == reference.tolist()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_streaming_hands_over_one_array_at_a_time(tmp_path: Path, protocol: int) -> None:
    parts = [np.full((200 + row, 16), row, dtype=np.float32) for row in range(5)]
    array = objects(*parts, parts[1], "no array")
    (tmp_path / "a.npy").write_bytes(with_pickle(pickle.dumps(array, protocol), array.shape))
    seen = []
    entries = stream_npy(tmp_path / "a.npy", lambda part: seen.append(part.copy()) or len(seen) - 1)
    assert entries == [0, 1, 2, 3, 4, 1, "no array"]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(seen, parts, strict=True))


def test_streaming_holds_little_more_than_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", objects(*(np.full((256, 1024), row, dtype=np.float32) for row in range(16))))
    tracemalloc.start()
    try:
        stream_npy(tmp_path / "a.npy", lambda part: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_streaming_rows_of_a_plain_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 2, 2))
    assert stream_npy(tmp_path / "a.npy", lambda part: part.sum()) == [6.0, 22.0, 38.0]


def test_streaming_lets_a_full_disk_through(tmp_path: Path) -> None:
    def full(part: np.ndarray) -> None:
        raise OSError("no space left")

    np.save(tmp_path / "a.npy", objects(np.zeros(2), np.zeros(3)))
    with pytest.raises(OSError, match="no space left"):
        stream_npy(tmp_path / "a.npy", full)


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ">f4", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_of_the_array(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.asarray(np.random.default_rng(0).integers(-9, 9, (7, 5)), dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    rows = open_rows(tmp_path / "x.npy")
    assert (len(rows), rows.shape, rows.dtype) == (7, (7, 5), array.dtype)
    for part in (slice(None), slice(2, 5), slice(6, 9), slice(3, 3), slice(5, 2), slice(-2, None)):
        np.testing.assert_array_equal(rows[part], array[part])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_rows_of_nothing(tmp_path: Path, shape: tuple[int, int]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    assert open_rows(tmp_path / "x.npy")[:].shape == shape


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_cut_short_while_it_is_open_is_told(tmp_path: Path, order: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((4000, 8), np.float32, order=order))
    rows = open_rows(path)
    os.truncate(path, 40_000)
    if order == "C":
        assert rows[:1000].all()
    with pytest.raises(WtalError, match=r"x\.npy: has become shorter: \d+ bytes .* files must not change while in use"):
        rows[3000:]
    path.unlink()
    with pytest.raises(WtalError, match=r"x\.npy: cannot be read \(No such file"):
        rows[:1]


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "not a .npy file"), (None, "no such file"), (b"\x93NUMPY\x01\x00", "format version")]
)
def test_rows_of_no_array(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(WtalError, match=told):
        open_rows(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros((3, 3), np.float32))
    os.truncate(tmp_path / "y.npy", 150)
    with pytest.raises(WtalError, match=r"y\.npy: is truncated: 22 bytes of data, expected 36"):
        open_rows(tmp_path / "y.npy")
