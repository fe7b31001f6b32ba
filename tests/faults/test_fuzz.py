"""Every reader on damaged and hostile files: a WtalError or a right result, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_readers import OWN, READERS, ROWS, npy, text

from wtal.data.annotations import parse_annotations
from wtal.data.catalog import DATASETS
from wtal.data.dataset_toml import open_own
from wtal.data.predictions import Detection, read_predictions, write_predictions
from wtal.data.synthetic.full_size import synthetic_features
from wtal.errors import WtalError

pytestmark = pytest.mark.usefixtures("little_memory")

NUMBERS = [b"-1", b"1e400", b"NaN", b"9" * 20, b"9" * 5000, b"\xff" * 4, b"\x7f" + b"\xff" * 7]
TOKENS = [
    b"\0",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\\ud800",
    b"../",
    b"\xed\xa0\x80",
    b"[" * 3000,
    b"\xe2\x80\xa8",
    b",",
    b"\n",
]


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """A valid file with a few bytes changed, cut out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(data)))
        stop = min(len(data), place + draw(st.integers(1, 24)))
        kind = draw(st.sampled_from(["set", "cut", "repeat", "put", "end"]))
        if kind == "set":
            data[place:stop] = draw(st.binary(min_size=stop - place, max_size=stop - place))
        elif kind == "cut":
            del data[place:stop]
        elif kind == "repeat":
            data[place:place] = data[place:stop]
        elif kind == "put":
            data[place:place] = draw(st.sampled_from([*NUMBERS, *TOKENS, *words]))
        else:
            del data[place:]
    return bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_accepted(name: str, tmp_path) -> None:
    reader = READERS[name]
    path = reader.prepare(tmp_path)
    if name == "npy":  # features must be [T, D] of floats; the other seeds are there for load_npy
        assert reader.try_on(path, npy(ROWS))
    else:
        assert all(reader.try_on(path, seed) for seed in reader.seeds)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, record, long_form, tmp_path) -> None:
    reader = READERS[name]
    folder = tmp_path / "inside" / "folder"
    path = reader.prepare(folder)
    tried = accepted = 0

    @settings(
        max_examples=500 if long_form else 40, suppress_health_check=list(HealthCheck), deadline=20_000, database=None
    )
    @given(damaged(reader.seeds, reader.words))
    def fuzz(data: bytes) -> None:
        nonlocal tried, accepted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles before it refuses them
            accepted += reader.try_on(path, data)
        tried += 1

    fuzz()
    assert os.listdir(tmp_path) == ["inside"]
    assert os.listdir(tmp_path / "inside") == ["folder"]
    record("damaged file", f"{name}: {tried} tried", f"{accepted} still valid, the others one WtalError each")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
JSON_READERS = [name for name, reader in READERS.items() if reader.name.endswith(".json") and name != "metrics-json"]


@pytest.mark.parametrize("name", JSON_READERS)
def test_json_of_another_shape(name: str, long_form, tmp_path) -> None:
    """Any value in the place of any other."""
    reader = READERS[name]
    path = reader.prepare(tmp_path)

    @settings(max_examples=1000 if long_form else 30, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        root = {"": json.loads(data.draw(st.sampled_from(reader.seeds)))}
        places: list[tuple[object, object]] = []

        def walk(container: object) -> None:
            for key in list(container) if isinstance(container, dict) else range(len(container)):
                places.append((container, key))
                if isinstance(container[key], dict | list):
                    walk(container[key])

        walk(root)
        container, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        container[key] = data.draw(ANY_JSON)
        reader.try_on(path, text(root[""]))

    fuzz()


HOSTILE = ["../outside", "a/../../outside", "/tmp/outside", "..", "a/b", "a\\..\\b", "a\0b", "\ud800", "", "x" * 300]


@pytest.mark.parametrize("name", HOSTILE)
def test_ids_that_name_other_files(name: str, record, tmp_path) -> None:
    folder = tmp_path / "inside"
    path = READERS["dataset-toml"].prepare(folder)
    path.write_bytes(OWN["own-json.toml"])
    (folder / "labels.json").write_bytes(text({"a": ["Hop"], "b": ["跳"], name: ["Hop"]}))
    with pytest.raises(WtalError):
        open_own(path, allow_missing=True)
    record_ = {"subset": "test", "annotations": [{"segment": [0, 1], "label": "Hop"}]}
    truth = folder / "gt.json"
    truth.write_bytes(text({"database": {name: record_, "b": {**record_, "subset": "train"}}}))
    with pytest.raises(WtalError):
        generate(truth, folder / "made" / "here")
    assert os.listdir(tmp_path) == ["inside"]
    assert not (folder / "made" / "here").exists()
    record(
        "hostile video id", repr(name) if len(name) < 20 else f"{len(name)} characters", "one error; nothing written"
    )


def generate(truth: Path, target: Path) -> None:
    """Features for the annotations of a file."""
    annotations = parse_annotations(json.loads(truth.read_bytes()), truth)
    synthetic_features(annotations, ("Hop",), target, 0, DATASETS["thumos14"], "basnet")


def test_a_duration_does_not_decide_how_much_memory_is_taken(tmp_path) -> None:
    record_ = {"subset": "test", "annotations": [{"segment": [0, 1e12], "label": "Hop"}]}
    truth = tmp_path / "gt.json"
    truth.write_bytes(text({"database": {"a": record_}}))
    with pytest.raises(WtalError, match=r"'a' would have \d+ snippets"):
        generate(truth, tmp_path / "made")


names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
@given(classes=st.lists(names, min_size=2, max_size=4, unique=True))
@example(classes=["a\u2028b", "x\x85y"])
@example(classes=["[bold]", "[/nothing]"])
@example(classes=["é", "e\u0301"])
@example(classes=['"', ",", "\u202egnp"])
def test_class_names_of_any_unicode(classes: list[str], tmp_path_factory) -> None:
    classes = [name.replace("\x85", "") or "-" for name in classes]
    if len(set(classes)) < len(classes):
        return
    folder = tmp_path_factory.mktemp("names")
    READERS["dataset-toml"].prepare(folder)
    toml = OWN["own-json.toml"].decode().replace('["Hop", "跳"]', json.dumps(classes, ensure_ascii=False))
    toml = toml.replace('text_features = "text.npy"\n', "").replace('segments = "segments.json"\n', "")
    (folder / "own-json.toml").write_text(toml, encoding="utf-8")
    (folder / "labels.json").write_text(json.dumps({"a": classes, "b": classes[:1], "c": classes[1:]}))
    opened = open_own(folder / "own-json.toml")
    assert opened.classes == tuple(classes)
    assert opened.videos[0].labels == tuple(classes)
    if all(name == name.strip() and ";" not in name for name in classes):  # what a CSV cell of labels can hold
        table = io.StringIO()
        csv.writer(table).writerows([("video", "label"), *(("a", name) for name in classes), ("b", classes[0])])
        (folder / "labels.csv").write_text(table.getvalue(), encoding="utf-8", newline="")
        (folder / "own-csv.toml").write_text(toml.replace("labels.json", "labels.csv"), encoding="utf-8")
        assert open_own(folder / "own-csv.toml").videos[0].labels == tuple(classes)
    found = {"a": [Detection(0.0, 1.0, name, 0.5) for name in classes]}
    stripped = all(name == name.strip() for name in classes)  # spaces around a cell of a CSV file do not count
    for out in ("p.json", "p.csv") if stripped else ("p.json",):
        write_predictions(folder / out, found)
        assert read_predictions(folder / out) == found


def test_headers_that_promise_more_than_there_is(record, tmp_path) -> None:
    """Each would take far more memory than the test has, if it were believed."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (500000000, 4), }".ljust(117) + b"\n"
    tensors = b'{"a":{"dtype":"F32","shape":[2147483648],"data_offsets":[0,8589934592]}}'
    objects = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    huge = {
        "npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header,
        "npy-objects": b"\x93NUMPY\x01\x00" + (len(header)).to_bytes(2, "little") + header.replace(b"<f4", b"|O "),
        "npy-objects: bytearray": objects + b"\x80\x05\x96" + (2**33).to_bytes(8, "little") + b".",
        "checkpoint": (2**33).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[2147483648],"data_offsets":[0,8589934592]}}',
        "clip-weights-safetensors": (2**33).to_bytes(8, "little") + tensors,
    }
    for name, data in huge.items():
        reader = READERS[name.split(":")[0]]
        assert not reader.try_on(reader.prepare(tmp_path / name), data)
        record("header promises GB", name, "one error; nothing allocated")
    facts = json.loads(READERS["checkpoint-facts"].seeds[0])
    for section, key, value in (("cbp", "dim", 10**9), ("cbp", "levels", 10**9), ("vlp", "blocks", 10**9)):
        hostile = json.loads(json.dumps(facts))
        hostile["config"][section][key] = value
        reader = READERS["checkpoint-facts"]
        assert not reader.try_on(reader.prepare(tmp_path / "facts"), text(hostile))
        record("checkpoint promises GB", f"{section}.{key} = {value}", "one error; nothing allocated")


def test_a_zip_of_zeros_is_not_unpacked(record, tmp_path) -> None:
    """64 KB that would be 64 MB, and could as well be GBs: weights are never compressed."""
    import zipfile

    reader = READERS["clip-weights-torchscript"]
    path = reader.prepare(tmp_path)
    seed = io.BytesIO(reader.seeds[0])
    bomb = io.BytesIO()
    with zipfile.ZipFile(seed) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            with target.open(entry, "w") as file:
                if "/data/" in entry:
                    file.write(bytes(2**25))
                else:
                    file.write(source.read(entry))
    path.write_bytes(bomb.getvalue())
    assert path.stat().st_size < 2**17
    with pytest.raises(WtalError, match="it is compressed"):
        reader.read(path)
    record("zip bomb", "--clip-weights", "one error; not unpacked")


def test_a_memo_index_does_not_decide_how_much_memory_is_taken(tmp_path) -> None:
    """The pickle of a TorchScript archive, and one whose objects have 2**60 paths through them."""
    import zipfile

    paths = b"\x80\x02" + b"c__torch__\nM\n)\x81"
    for _ in range(60):
        paths += b"q\x01c__torch__\nM\n)\x81}(X\x01\0\0\0ah\x01X\x01\0\0\0bh\x01ub"
    hostile = {"memo": b"\x80\x02c__torch__\nM\n)\x81r\xff\xff\xff\x7f.", "diamond": paths + b"."}
    for name, pickled in hostile.items():
        path = tmp_path / f"{name}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", pickled)
            archive.writestr("m/constants.pkl", b"\x80\x02).")
        with pytest.raises(WtalError, match="holds no tensor"):
            READERS["clip-weights-torchscript"].read(path)
