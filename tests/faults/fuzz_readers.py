"""Every reader of wtal as a function of one file's bytes, with valid files to start from.

A reader may return or raise WtalError. Anything else is a fault that the fuzzing is there to find.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from wtal import evaluate
from wtal.data.annotations import read_annotations
from wtal.data.dataset_toml import open_own
from wtal.data.features import read_features
from wtal.data.npy import load_npy, stream_npy
from wtal.data.predictions import read_predictions, write_predictions
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.errors import WtalError
from wtal.inference.branches import restore_branches
from wtal.models.cbp import CBP
from wtal.models.text_without_clip import FixedText
from wtal.models.vlp import VLP
from wtal.models.weight_files import read_weights
from wtal.runs.checkpoint import load_checkpoint, save_checkpoint
from wtal.runs.run import Run
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: of the file to be fuzzed, as the reader expects it.
        seeds: valid contents.
        read: reads the file at a path in a folder that holds what else it needs.
        beside: other files in that folder.
        words: what a fuzzer should know of the format.
    """

    name: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    beside: dict[str, bytes] = field(default_factory=dict)
    words: tuple[bytes, ...] = ()

    def prepare(self, folder: Path) -> Path:
        """Write what lies beside the file; returns where the file goes."""
        for name, data in self.beside.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def try_on(self, path: Path, data: bytes) -> bool:
        """Read these bytes; returns whether they were accepted. A fault raises."""
        path.write_bytes(data)
        try:
            self.read(path)
        except WtalError as error:
            str(error).encode()  # can be printed
            cause: BaseException | None = error
            while cause is not None:
                assert not isinstance(cause, MemoryError), "memory was asked for before the file was looked at"
                cause = cause.__cause__ or cause.__context__
            return False
        return True


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def text(value: object) -> bytes:
    return json.dumps(value).encode()


# ---- arrays --------------------------------------------------------------------------------------

PLAIN = [
    npy(np.arange(12, dtype=np.float32).reshape(3, 4)),
    npy(np.asfortranarray(np.ones((2, 3), np.float16))),
    npy(np.array(["Hop", "跳"])),
    npy(np.array([b"a", b"bc"])),
    npy(np.array(3)),
    npy(np.zeros((0, 4), ">f8")),
]
ROWS = np.ones((3, 4), np.float32)
OBJECTS = [npy(objects(ROWS, ROWS[:2])), npy(objects([[1.0, 2.5]], [])), npy(objects([b"Hop"], ["跳", 3]))]


def read_plain(path: Path) -> None:
    array, mapped = load_npy(path), load_npy(path, mmap=True)
    assert array.shape == mapped.shape
    assert array.dtype == mapped.dtype
    assert array.nbytes <= path.stat().st_size or array.dtype == object
    features = read_features(Video("v", "test", (), Timebase(25), (path,)))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def read_objects(path: Path) -> None:
    array = load_npy(path)
    stored = stream_npy(path, lambda entry: entry.shape)
    assert len(stored) == (len(array) if array.ndim else 1)


# ---- annotations and predictions -----------------------------------------------------------------

RECORD = {"subset": "test", "annotations": [{"segment": ["1.0", "2.5"], "label": "Hop"}]}
DATABASE = {
    "a": RECORD,
    "b": {"subset": "train", "duration": 60, "fps": 25.0, "annotations": [{"segment": [0, 1], "label": "跳"}]},
}
BSN = {
    "v_a": {"duration_second": 10.0, "duration_frame": 250, "annotations": [{"segment": [1, 2], "label": "Hop"}]},
    "v_b": {"duration_second": 5.0, "annotations": []},
}
TRUTH = [text({"database": DATABASE}), text({"database": {"a": RECORD}, "taxonomy": []}), text(BSN)]
RESULTS = {"version": "1", "results": {"a": [{"score": 0.5, "segment": [1.0, 2.0], "label": "Hop"}], "x": []}}
JSON_WORDS = (b'"segment"', b'"label"', b'"subset"', b'"annotations"', b"null", b"1e999", b"NaN", b"[[", b'"\\ud800"')
WTALC = {
    "videoname.npy": npy(np.array([b"a", b"b"])),
    "classlist.npy": npy(np.array([b"Hop", b"Skip"])),
    "subset.npy": npy(np.array([b"validation", b"test"])),
    "segments.npy": npy(objects([[1.0, 2.0]], [[0.5, 0.75]])),
    "labels.npy": npy(objects([b"Hop"], [b"Skip"])),
    "labels_all.npy": npy(objects([b"Hop"], [b"Skip"])),
    "duration.npy": npy(np.array([[10.0], [20.0]])),
}


def read_truth(path: Path) -> None:
    annotations = read_annotations(path if path.suffix == ".json" else path.parent)
    for video in annotations.videos.values():
        annotations.split_of(video)
        for found in video.instances or ():
            assert 0 <= found.end - found.start < float("inf")
            found.label.encode()
        video.id.encode()
    annotations.split("test")


def read_bsn_subsets(path: Path) -> None:
    read_truth(path.with_name("truth.json"))


def read_detections(path: Path) -> None:
    found = read_predictions(path)
    for suffix in (".json", ".csv"):
        again = path.with_name(f"again{suffix}")
        write_predictions(again, found)
        back = read_predictions(again)
        assert {v: d for v, d in back.items() if d} == {v: d for v, d in found.items() if d}
    evaluate(path, path.with_name("truth.json"))


# ---- a user's own data ---------------------------------------------------------------------------

FEATURES = npy(np.ones((5, 4), np.float32))
TOML = (
    'name = "mine"\nclasses = ["Hop", "跳"]\ni3d = ["i3d"]\nclip = "i3d"\nlabels = "labels.csv"\n'
    'segments = "segments.csv"\ntext_features = "text.npy"\nfps = 25\nstride = 16\nwindow = 16\n'
    'clip_fps = 1.5\ntest = ["b"]\n'
).encode()
OWN = {
    "dataset.toml": TOML,
    "labels.csv": "video,label\na,Hop;跳\nb,跳\nc,Hop\n".encode(),
    "segments.csv": "video,start,end,label\na,1,2.5,Hop\nb,0,1,跳\n".encode(),
    "labels.json": text({"a": ["Hop", "跳"], "b": ["跳"], "c": ["Hop"]}),
    "segments.json": text({"a": [{"segment": [1, 2.5], "label": "Hop"}], "b": [{"segment": [0, 1], "label": "跳"}]}),
    "test.txt": b"b\n",
    "text.npy": npy(np.eye(2, 4, dtype=np.float32)),
    "i3d/a.npy": FEATURES,
    "i3d/b.npy": FEATURES,
    "i3d/c.npy": FEATURES,
    "own-json.toml": TOML.replace(b".csv", b".json").replace(b'["b"]', b'"test.txt"'),
}


def read_own(path: Path) -> None:
    folder = path if path.is_dir() else path.parent
    opened = open_own(folder / ("own-json.toml" if path.suffix in (".json", ".txt") else "dataset.toml"))
    for video in opened:
        assert all(part.resolve().is_relative_to(part.parent.resolve()) for part in video.i3d)
        opened.multi_hot(video)


# ---- what a run leaves behind --------------------------------------------------------------------


def model() -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Tensors and facts of the smallest checkpoint."""
    config = {
        "cbp": {"dim": 4, "heads": 1, "levels": 2, "mlp_ratio": 1.0},
        "vlp": {"blocks": 1, "heads": 1, "mlp_ratio": 1.0},
    }
    from wtal.settings.recipe import from_table

    full = from_table(config, RunConfig(), "fuzz")
    text_features = torch.eye(2, 4)
    branches = {"cbp": CBP(3, 2, full.cbp), "vlp": VLP(FixedText(text_features), 4, full.vlp)}
    tensors = {
        f"{name}.{key}": value for name, branch in branches.items() for key, value in branch.state_dict().items()
    }
    facts = {
        "config": config,
        "classes": ["Hop", "跳"],
        "i3d_dim": 3,
        "clip_dim": 4,
        "stage": 1,
        "epoch": 0,
        "rows": [],
    }
    return {**tensors, "text_features": text_features}, facts


MODEL = model()


def saved_model() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        save_checkpoint(path, *MODEL)
        return path.read_bytes()


def read_checkpoint(path: Path) -> None:
    restore_branches(load_checkpoint(path))


def read_facts(path: Path) -> None:
    """The fuzzed file is what a checkpoint says of itself; its checksum is right."""
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(facts, dict):
        save_checkpoint(path.with_suffix(".safetensors"), MODEL[0], {**facts, "format": 2})
        read_checkpoint(path.with_suffix(".safetensors"))


RUN_TOML = b'[run]\ndataset = "synthetic"\nseed = 3\nkeep_checkpoints = 2\nallow_missing = false\n\n[cbp]\ndim = 64\n'
RECIPE = b'extends = "thumos14"\n[cbp]\ndim = 64\n[localize]\ntheta_loc = [0.1, 0.5]\n[source.cbp]\ndim = "ours"\n'


def read_run(path: Path) -> None:
    run = Run.open(path.parent)
    run.rows()
    run.checkpoints.load(str)


# ---- weights of CLIP -----------------------------------------------------------------------------


def torch_file(**how: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"module.a": torch.ones(2, 2), "b": torch.ones(3, dtype=torch.float16)}}, file, **how)
    return file.getvalue()


def torchscript() -> bytes:
    module = torch.nn.Module()
    module.inner = torch.nn.Linear(2, 2)
    file = io.BytesIO()

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Sequential(module.inner)), file)
    return file.getvalue()


READERS = {
    "npy": Reader("x.npy", PLAIN, read_plain, words=(b"<f4", b"fortran_order", b"True", b"|O", b"-1", b"99999999999")),
    "npy-objects": Reader("x.npy", OBJECTS, read_objects, words=(b"cnumpy\nndarray\n", b"\x80\x04", b"R", b"b.")),
    "annotations-json": Reader("truth.json", TRUTH, read_truth, words=JSON_WORDS),
    "annotations-csv": Reader(
        "video_info_new.csv",
        [b"video,subset\nv_a,training\nv_b,testing\n"],
        read_bsn_subsets,
        {"truth.json": TRUTH[2]},
        (b'"', b",", b"\r"),
    ),
    **{
        f"wtalc-{name.removesuffix('.npy')}": Reader(name, [data], read_truth, {**WTALC})
        for name, data in WTALC.items()
        if name in ("segments.npy", "labels_all.npy", "videoname.npy")
    },
    "predictions-json": Reader("p.json", [text(RESULTS)], read_detections, {"truth.json": TRUTH[0]}, JSON_WORDS),
    "predictions-csv": Reader(
        "p.csv", [b"video,start,end,label,score\na,1,2,Hop,0.5\n"], read_detections, {"truth.json": TRUTH[0]}
    ),
    "dataset-toml": Reader("dataset.toml", [TOML], read_own, OWN, (b"[", b"'''", b"inf", b"nan", b"1e400", b"../")),
    **{
        f"own-{name.replace('.', '-')}": Reader(name, [OWN[name]], read_own, OWN)
        for name in ("labels.csv", "segments.csv", "labels.json", "segments.json", "test.txt", "text.npy")
    },
    "recipe-toml": Reader("r.toml", [RECIPE], load_recipe, words=(b"extends", b"[source", b"inf", b"{")),
    "run-toml": Reader("config.toml", [RUN_TOML], read_run),
    "metrics-json": Reader(
        "metrics.json", [b'{"rows": [{"name": "a", "mean": NaN}]}'], read_run, {"config.toml": RUN_TOML}
    ),
    "checkpoint": Reader("c.safetensors", [saved_model()], read_checkpoint),
    "checkpoint-facts": Reader("facts.json", [text(MODEL[1])], read_facts, words=JSON_WORDS),
    "clip-weights-torch": Reader(
        "w.pt", [torch_file(), torch_file(_use_new_zipfile_serialization=False)], read_weights
    ),
    "clip-weights-torchscript": Reader("w.pt", [torchscript()], read_weights),
    "clip-weights-safetensors": Reader("w.safetensors", [safetensors.torch.save({"a": torch.ones(2)})], read_weights),
}
