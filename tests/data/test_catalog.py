"""Where data sets are looked for, and what is said where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wtal.data.annotations import read_annotations
from wtal.data.catalog import find_annotations, open_dataset
from wtal.data.open import open_data
from wtal.errors import WtalError


def message(function, *arguments, **named) -> str:
    with pytest.raises(WtalError) as caught:
        function(*arguments, **named)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_places_in_order(
    content, write_layout: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(write_layout("basnet", content), tmp_path / "data" / "thumos14")
    assert open_dataset("thumos14").layout == "basnet"
    shutil.copytree(write_layout("actionformer", content), tmp_path / "shared" / "thumos14")
    monkeypatch.setenv("WTAL_DATA", str(tmp_path / "shared"))
    assert open_dataset("thumos14").layout == "actionformer"
    assert find_annotations("thumos14").layout.NAME == "actionformer"
    monkeypatch.setenv("WTAL_DATA", str(tmp_path / "elsewhere"))
    assert open_dataset("thumos14").layout == "basnet"
    assert "no features of thumos14 found" in message(open_dataset, "thumos14", tmp_path / "elsewhere")


def test_nothing_found_says_where_what_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = message(open_dataset, "thumos14")
    assert f"{tmp_path}/data/thumos14: no such folder" in text
    assert "$WTAL_DATA/thumos14: WTAL_DATA is not set" in text
    assert "Thumos14reduced-Annotations/*.npy and Thumos14reduced-I3D-JOINTFeatures.npy" in text
    assert "gt.json, and features/{train,test}/{rgb,flow}/<video>.npy or {train,test}/<video>.npy" in text
    assert "annotations/thumos14.json, and i3d_features/<video>.npy" in text
    assert "clip/<video>.npy" in text
    assert "--features synthetic" in text
    assert "--dataset synthetic" in text
    monkeypatch.setenv("WTAL_DATA", str(tmp_path))
    assert f"{tmp_path}/activitynet12: no such folder" in message(find_annotations, "activitynet12")


@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
def test_annotations_without_features(layout: str, content, write_layout: Callable[..., Path]) -> None:
    root = write_layout(layout, content)
    for path in (root / "features", root / "i3d_features"):
        shutil.rmtree(path, ignore_errors=True)
    for path in root.glob("*JOINT*"):
        path.unlink()
    text = message(open_dataset, "thumos14", root)
    assert f"{root}: annotations of layout {layout}, no features" in text
    found = find_annotations("thumos14", root)
    assert list(read_annotations(found.truth).videos) == list(content)
    assert layout == found.layout.NAME


def test_unknown_names(tmp_path: Path) -> None:
    assert message(open_dataset, "thumos-14").endswith("did you mean thumos14?")
    assert message(open_dataset, "ActivityNet1.2").endswith("did you mean activitynet12?")
    assert "expected synthetic, thumos14, activitynet12, activitynet13" in message(open_dataset, "charades")
    assert message(open_data, "synthetic", shapes="smal").startswith("--shapes smal: expected one of small, true, ")
    assert "--root goes with a named data set" in message(open_dataset, "a/dataset.toml", tmp_path)
