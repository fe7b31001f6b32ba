"""Real clips and what becomes of them in other containers and codecs, counted by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import damaged, encode, lossless, number, numbered

from wtal.errors import WtalError
from wtal.features.decode import VideoReader, import_av, probe_seconds


def read(path: Path, fps: float | Fraction = 25, short_side: int = 32, **options: bool) -> list[np.ndarray]:
    return list(VideoReader(path, Fraction(fps), short_side, **options))


def numbers(path: Path, fps: float | Fraction = 25) -> list[int]:
    return [number(frame) for frame in read(path, fps)]


@pytest.mark.parametrize(
    ("name", "source", "frames", "shape"),
    [
        ("bigbuckbunny", 132, 132, (256, 455, 3)),
        ("bikes", 250, 250, (256, 602, 3)),
        ("carphone_pristine", 120, 100, (256, 313, 3)),  # 120 frames at 29.97 a second are 4.004 s
        ("carphone_distorted", 120, 100, (256, 313, 3)),
    ],
)
def test_the_real_clips(clips: Path, name: str, source: int, frames: int, shape: tuple[int, int, int]) -> None:
    reader = VideoReader(clips / f"{name}.mp4", Fraction(25), 256)
    found = list(reader)
    assert len(found) == frames == reader.facts.frames
    assert {(frame.shape, frame.dtype) for frame in found} == {(shape, np.dtype(np.uint8))}
    assert (reader.facts.source_frames, reader.facts.damaged_packets) == (source, 0)
    assert probe_seconds(clips / f"{name}.mp4") == pytest.approx(reader.facts.seconds)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"bf": "3"}),
        ("libx264", "mkv", {}),
        ("libx264", "ts", {}),
        ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8"}),
        ("libsvtav1", "mp4", {"preset": "12"}),
        ("mpeg4", "avi", {}),
    ],
)
def test_codecs_and_containers(tmp_path: Path, codec: str, container: str, options: dict[str, str]) -> None:
    size = (64, 96) if codec == "libsvtav1" else (32, 48)
    path = encode(tmp_path / f"v.{container}", numbered(40, *size), codec=codec, options=options)
    assert numbers(path) == list(range(40))


def test_60_to_25_frames_a_second(tmp_path: Path) -> None:
    path = lossless(tmp_path / "v.mkv", numbered(60), 60)
    wanted = [max(k for k in range(60) if int(k * 25 / 60 + 0.5) <= n) for n in range(25)]
    assert numbers(path) == wanted
    assert wanted[:6] == [1, 3, 5, 8, 10, 13]


def test_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 0.2, 0.24, 0.28, 1.0, 1.04]
    path = lossless(tmp_path / "v.mkv", numbered(6), stamps=stamps)
    found = numbers(path)
    assert found[:25] == [0] * 5 + [1, 2] + [3] * 18
    assert found[25:27] == [4, 5]


def test_negative_time_stamps(tmp_path: Path) -> None:
    keep = {"avoid_negative_ts": "disabled"}
    path = lossless(tmp_path / "v.mkv", numbered(10), stamps=[n / 25 - 0.2 for n in range(10)], container_options=keep)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts == -200
    assert numbers(path) == list(range(10))


def test_missing_time_stamps(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.h264", numbered(20), options={"bf": "0"})
    with av.open(str(path)) as container:
        assert all(packet.pts is None for packet in container.demux(video=0) if packet.size)
    assert numbers(path) == list(range(20))


PATCHES = np.array([[[250, 5, 5], [5, 250, 5]], [[5, 5, 250], [250, 250, 250]]], np.uint8)


def patches(frame: np.ndarray) -> np.ndarray:
    """Which of the four colours is where: ``[2, 2]``."""
    height, width = frame.shape[:2]
    corners = frame[height // 4 :: height // 2, width // 4 :: width // 2][:2, :2].astype(int)
    return np.abs(corners[:, :, None] - PATCHES.reshape(4, 3)).sum(axis=3).argmin(axis=2)


UPRIGHT = np.array([[0, 1], [2, 3]])


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_rotation_tags(tmp_path: Path, turn: int) -> None:
    picture = PATCHES.repeat(32, axis=0).repeat(48, axis=1)
    path = encode(tmp_path / "v.mp4", [picture] * 3, rotation=turn)
    frames = read(path, short_side=64)
    assert len(frames) == 3
    assert frames[0].shape == ((96, 64, 3) if turn in (90, -90) else (64, 96, 3))
    assert patches(frames[0]).tolist() == np.rot90(UPRIGHT, turn // 90).tolist()


@pytest.mark.parametrize(("matrix", "wanted"), [([-1, 0, 0, 1], [[1, 0], [3, 2]]), ([0, 1, 1, 0], [[0, 2], [1, 3]])])
def test_mirrored_tags(tmp_path: Path, matrix: list[int], wanted: list[list[int]]) -> None:
    picture = PATCHES.repeat(32, axis=0).repeat(48, axis=1)
    a, b, c, d = (value << 16 for value in matrix)
    path = encode(tmp_path / "v.mp4", [picture] * 3, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    assert patches(read(path, short_side=64)[0]).tolist() == wanted


@pytest.mark.parametrize(("height", "width"), [(33, 47), (47, 33), (5, 301), (31, 31), (2, 2)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frame = np.full((height, width, 3), 90, np.uint8)
    frames = read(lossless(tmp_path / "v.mkv", [frame] * 3), short_side=24)
    assert len(frames) == 3
    assert min(frames[0].shape[:2]) == 24
    assert max(frames[0].shape[:2]) == round(24 * max(height, width) / min(height, width))
    assert np.abs(frames[0].astype(int) - 90).max() <= 1


def test_grey_ten_bit_and_transparent_pixels(tmp_path: Path) -> None:
    for index, pix_fmt in enumerate(("gray", "yuv422p10le", "yuva420p")):
        path = encode(tmp_path / f"{index}.mkv", numbered(3), codec="ffv1", pix_fmt=pix_fmt)
        assert numbers(path) == [0, 1, 2], pix_fmt


def refused(path: Path, **options: bool) -> str:
    with pytest.raises(WtalError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert "no video stream (streams: audio)" in refused(tmp_path / "v.mp4")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"nothing like a video " * 50)
    assert "cannot be opened" in refused(tmp_path / "v.mp4")
    (tmp_path / "v.mp4").write_bytes(b"")
    assert "cannot be opened" in refused(tmp_path / "v.mp4")


def test_truncated_files(tmp_path: Path) -> None:
    frames = [np.random.default_rng(n).integers(0, 256, (32, 48, 3), dtype=np.uint8) for n in range(100)]
    whole = encode(tmp_path / "v.mp4", frames)
    data = whole.read_bytes()
    cut = tmp_path / "no-index.mp4"
    cut.write_bytes(data[: len(data) // 2])  # its index is at the end, so nothing can be found
    assert "cannot be opened" in refused(cut)
    indexed = encode(tmp_path / "w.mp4", frames, container_options={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / "index.mp4"
    cut.write_bytes(indexed[: len(indexed) // 2])
    told = refused(cut)
    assert "truncated: " in told
    assert "of 4.0 s could be decoded; --allow-truncated" in told
    reader = VideoReader(cut, Fraction(25), 32, allow_truncated=True)
    half = len(list(reader))
    assert 30 < half < 70
    assert reader.facts.missing_seconds == pytest.approx(4 - half / 25, abs=0.05)
    stream = encode(tmp_path / "x.mkv", frames).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(stream[: len(stream) // 2])
    assert "truncated: " in refused(cut)


def with_sound(path: Path, codec: str, sound: str, seconds: int = 2, late: float = 0.0) -> Path:
    """Noise of both kinds; the pictures begin ``late`` seconds after the sound."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream(codec, rate=25), container.add_stream(sound, rate=48000)
        video.width, video.height, video.pix_fmt, audio.layout = 48, 32, "yuv420p", "mono"
        for n in range(25 * seconds):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8), format="rgb24")
            picture.pts, picture.time_base = n + round(25 * late), Fraction(1, 25)
            container.mux(video.encode(picture))
            noise = av.AudioFrame.from_ndarray(
                rng.uniform(-0.1, 0.1, (1, 1920)).astype(np.float32), "flt" if sound == "libopus" else "fltp", "mono"
            )
            noise.sample_rate, noise.pts = 48000, 1920 * n
            container.mux(audio.encode(noise))
        container.mux([*video.encode(), *audio.encode()])
    return path


@pytest.mark.parametrize(
    ("name", "codec", "sound"), [("v.mkv", "libx264", "aac"), ("v.webm", "libvpx", "libopus"), ("v.flv", "flv", "aac")]
)
def test_truncated_files_with_sound(tmp_path: Path, name: str, codec: str, sound: str) -> None:
    path = with_sound(tmp_path / name, codec, sound)
    whole = path.read_bytes()
    untagged = whole.replace(b"DURATION", b"DURATIOX")  # other programs write one length for all streams, if any
    for data in {whole, untagged}:
        path.write_bytes(data)
        assert len(read(path)) == 50
        path.write_bytes(data[: len(data) // 2])
        assert "truncated: " in refused(path)
        assert 15 < len(read(path, allow_truncated=True)) < 40


def test_pictures_that_begin_after_the_sound_are_whole(tmp_path: Path) -> None:
    assert len(read(with_sound(tmp_path / "v.mkv", "libx264", "aac", late=1.5))) == 50


def test_a_short_video_may_lack_a_tenth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(48)]
    whole = encode(tmp_path / "v.mp4", frames, container_options={"movflags": "faststart"}, options={"bf": "0"})
    data = whole.read_bytes()
    for share in (0.6, 0.8, 0.98):
        (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
        if share < 0.9:
            assert "of 1.9 s could be decoded" in refused(tmp_path / "cut.mp4")
        else:
            assert 44 <= len(read(tmp_path / "cut.mp4")) < 48


def test_a_video_that_has_lost_many_frames_is_refused(tmp_path: Path) -> None:
    few = VideoReader(damaged(tmp_path / "few.mp4", numbered(100), 20), Fraction(25), 32)
    assert len(list(few)) == 100
    assert (few.facts.damaged_packets, few.facts.filled_frames) == (5, 5)
    many = damaged(tmp_path / "many.mp4", numbered(100), 5)
    assert "damaged: 19 of 100 frames are lost; --allow-truncated" in refused(many)
    assert len(read(many, allow_truncated=True)) == 100


def test_a_hole_in_the_file_is_damage_too(tmp_path: Path) -> None:
    """The demuxer passes over it without a word; frames after it lack what they refer to."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(100)]
    path = encode(tmp_path / "v.mkv", frames, options={"bf": "0", "threads": "1"})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[places[30] - 20 : places[60]] = bytes(places[60] - places[30] + 20)
    path.write_bytes(data)
    reader = VideoReader(path, Fraction(25), 32, allow_truncated=True)
    shown = list(reader)
    assert reader.facts.damaged_packets > 0
    assert reader.facts.filled_frames == sum(frame is before for before, frame in itertools.pairwise(shown)) > 20
    assert "frames are lost" in refused(path)


def test_gaps_of_a_variable_rate_are_no_damage(tmp_path: Path) -> None:
    reader = VideoReader(lossless(tmp_path / "v.mkv", numbered(4), stamps=[0, 0.6, 1.2, 2.0]), Fraction(25), 32)
    assert len(list(reader)) > 50
    assert reader.facts.filled_frames == 0


def test_an_old_pyav_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "__version__", "16.1.0")
    with pytest.raises(
        WtalError, match=r"PyAV 16\.1\.0 is too old, expected 17 or later: pip install 'wtal\[extract\]'"
    ):
        import_av()


def test_damage_in_the_middle_is_counted_and_keeps_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", numbered(100), codec="ffv1", pix_fmt="bgr0")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    reader = VideoReader(path, Fraction(25), 32, allow_truncated=True)
    found = [number(frame) for frame in reader]
    assert len(found) == 100
    assert reader.facts.filled_frames == sum(frame == before for before, frame in itertools.pairwise(found))
    assert found[:40] == list(range(40))
    assert found[-20:] == list(range(80, 100))


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{n}.ts", numbered(30, 32, width)).read_bytes() for n, width in enumerate((48, 64))]
    (tmp_path / "v.ts").write_bytes(b"".join(parts))
    assert "change from 48x32 to 64x32" in refused(tmp_path / "v.ts")


def test_an_unknown_length_is_none(tmp_path: Path) -> None:
    assert probe_seconds(encode(tmp_path / "v.h264", numbered(5))) is None
    assert probe_seconds(tmp_path / "nowhere.mp4") is None
