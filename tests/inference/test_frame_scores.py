"""Long videos: in parts where the attention has a window, with the logits of the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wtal.api import Model
from wtal.data.batches import Batch
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError
from wtal.inference import frame_scores, long_videos
from wtal.inference.branches import Branches
from wtal.models.cbp import CBP
from wtal.models.text_without_clip import FixedText
from wtal.models.vlp import VLP
from wtal.platform.device import Device
from wtal.report.scores import score_videos
from wtal.settings.config import CBPConfig, RunConfig, VLPConfig

CPU = Device(torch.device("cpu"))


def branches(window: int | None, levels: int = 3, blocks: int = 2) -> Branches:
    torch.manual_seed(0)
    cbp = CBP(6, 3, CBPConfig(dim=8, heads=2, levels=levels, window=window))
    vlp = VLP(FixedText(torch.randn(3, 4)), 4, VLPConfig(blocks=blocks, heads=2, window=window, init_std=0.5))
    facts = {"classes": ["a", "b", "c"], "i3d_dim": 6, "clip_dim": 4}
    facts["grid"] = {"fps": 25.0, "stride": 16.0, "window": 16.0, "clip_fps": None}
    return Branches({"cbp": cbp, "vlp": vlp}, facts).eval()


def snippets(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let a batch, and a part of a longer video, have this many snippets."""
    for module in (frame_scores, long_videos):
        monkeypatch.setattr(module, "SNIPPETS", number)


def videos(folder: Path, lengths: list[int]) -> VideoSet:
    random = np.random.default_rng(0)
    found = []
    for number, length in enumerate(lengths):
        for kind, rows, width in (("i3d", length, 6), ("clip", max(1, length // 2), 4)):
            np.save(folder / f"{kind}{number}.npy", random.standard_normal((rows, width), dtype=np.float32))
        paths = (folder / f"i3d{number}.npy",), folder / f"clip{number}.npy"
        found.append(Video(f"v{number}", "test", ("a",), Timebase(25), *paths))
    return VideoSet("long", "own", ("a", "b", "c"), tuple(found))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    length=st.integers(1, 150),
    part=st.integers(1, 60),
    window=st.integers(0, 6),
    levels=st.integers(1, 4),
    blocks=st.integers(1, 3),
    name=st.sampled_from(["cbp", "vlp"]),
)
def test_parts_give_the_logits_of_the_whole(
    length: int, part: int, window: int, levels: int, blocks: int, name: str, tmp_path_factory, monkeypatch
) -> None:
    data = videos(tmp_path_factory.mktemp("long"), [length])
    model = branches(window, levels, blocks)
    snippets(monkeypatch, 10**6)
    whole = frame_scores.frame_logits(model, name, data, data.videos, CPU)[0]
    snippets(monkeypatch, part)
    split = frame_scores.frame_logits(model, name, data, data.videos, CPU)[0]
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cbp", "vlp"])
def test_a_logit_depends_on_no_more_than_its_reach(name: str) -> None:
    model = branches(2)
    branch = model.reading(name)
    features = torch.randn(1, 120, 6 if name == "cbp" else 4)
    length = torch.tensor([120])
    before = branch(features, length)
    for place in (57, 58, 60, 63):
        changed = features.clone()
        changed[0, place] += 10
        moved = (branch(changed, length) - before).abs().sum(2)[0].nonzero().flatten()
        assert int((moved - place).abs().max()) <= branch.reach
    assert branches(None).reading(name).reach is None


def test_detections_of_long_and_short_videos_are_those_of_each_alone(tmp_path, monkeypatch) -> None:
    data = videos(tmp_path, [5, 90, 30, 200, 1])
    model, config = branches(3), RunConfig()
    config = dataclasses.replace(config, localize=dataclasses.replace(config.localize, theta_cls=0.0))
    for branch in ("cbp", "vlp", "ensemble"):
        snippets(monkeypatch, 10**6)
        alone = {v.id: next(frame_scores.find(model, branch, data, [v], config, CPU)) for v in data}
        snippets(monkeypatch, 64)
        together = {found.video.id: found for found in frame_scores.find(model, branch, data, data.videos, config, CPU)}
        assert together.keys() == alone.keys()
        for video, found in together.items():
            torch.testing.assert_close(found.video_scores, alone[video].video_scores, rtol=1e-4, atol=1e-5)
            best, expected = (sorted(x.detections, key=lambda d: -d.score)[:1] for x in (found, alone[video]))
            assert [d.label for d in best] == [d.label for d in expected]


def test_a_batch_holds_no_more_snippets_than_it_may(tmp_path) -> None:
    from wtal.data.batches import whole_videos

    data = videos(tmp_path, [5, 40, 12, 100, 6, 7, 11])
    batches = list(whole_videos(data, data.videos, 3, snippets=36))
    assert [batch.lengths.tolist() for batch in batches] == [[100], [40], [12, 11, 7], [6, 5]]


def test_without_a_window_a_very_long_video_is_refused_with_advice(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(long_videos, "LONGEST", 50)
    data = videos(tmp_path, [50, 51])
    with pytest.raises(WtalError, match=r"video v1: 51 snippets.* at most 50; train with --cbp\.window N"):
        frame_scores.frame_logits(branches(None), "cbp", data, data.videos, CPU)
    assert len(frame_scores.frame_logits(branches(None), "cbp", data, data.videos[:1], CPU)[0]) == 50
    assert len(frame_scores.frame_logits(branches(4), "cbp", data, data.videos, CPU)[1]) == 51


def by_model(model: Branches, data: VideoSet) -> list[np.ndarray]:
    """Frame scores of CBP from Python, one video at a time."""
    made = Model(model, RunConfig(), CPU)
    return [made.scores(str(video.i3d[0]), branch="cbp").frames for video in data]


def by_report(model: Branches, data: VideoSet) -> list[np.ndarray]:
    """Frame scores of CBP for the report."""
    return [item.frames["cbp"].numpy() for item in score_videos(model, data, data.videos, RunConfig(), CPU)]


def by_evaluation(model: Branches, data: VideoSet) -> list[np.ndarray]:
    """Frame scores of CBP for an evaluation."""
    found = {item.video.id: item for item in frame_scores.find(model, "cbp", data, data.videos, RunConfig(), CPU)}
    return [found[video.id].frame_scores.numpy() for video in data]


@pytest.mark.parametrize("scores", [by_model, by_report, by_evaluation])
def test_whatever_asks_for_scores_gets_them_in_bounded_memory(tmp_path, monkeypatch, scores) -> None:
    data, model = videos(tmp_path, [5, 90, 30, 200, 1]), branches(3)
    whole = scores(model, data)
    snippets(monkeypatch, 64)
    sizes = []
    real = Branches.logits

    def logits(self: Branches, name: str, batch: Batch) -> torch.Tensor:
        sizes.append(batch.lengths.numel() * int(batch.lengths.max()))
        return real(self, name, batch)

    monkeypatch.setattr(Branches, "logits", logits)
    for split, expected in zip(scores(model, data), whole, strict=True):
        np.testing.assert_allclose(split, expected, rtol=1e-4, atol=1e-4)
    stride, reach = model.reading("cbp").stride, model.reading("cbp").reach
    assert max(sizes) <= 64 + stride + 2 * (reach + stride)
    assert max(sizes) < 200


@pytest.mark.parametrize(
    ("scores", "what"), [(by_model, "{folder}/i3d1.npy"), (by_report, "video v1"), (by_evaluation, "video v1")]
)
def test_whatever_asks_for_scores_a_very_long_video_is_refused(tmp_path, monkeypatch, scores, what: str) -> None:
    monkeypatch.setattr(long_videos, "LONGEST", 50)
    data = videos(tmp_path, [50, 51])
    with pytest.raises(WtalError) as caught:
        scores(branches(None), data)
    assert str(caught.value).startswith(f"{what.format(folder=tmp_path)}: 51 snippets, but a branch whose attention")
    assert len(scores(branches(None), dataclasses.replace(data, videos=data.videos[:1]))[0]) == 50
    assert len(scores(branches(4), data)[1]) == 51


def test_text_features_are_computed_once_for_all_batches(tmp_path, monkeypatch) -> None:
    data, model = videos(tmp_path, [20] * 40), branches(3)
    text, calls = model.vision_language.text, 0
    real = text.forward

    def forward() -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real()

    monkeypatch.setattr(text, "forward", forward)
    before = frame_scores.frame_logits(model, "vlp", data, data.videos, CPU)
    assert calls == 1
    with torch.no_grad():
        text.features.mul_(-1)  # nothing is kept from one call to the next
    after = frame_scores.frame_logits(model, "vlp", data, data.videos, CPU)
    assert calls == 2
    assert not torch.equal(before[0], after[0])
