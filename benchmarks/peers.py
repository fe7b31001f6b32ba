"""What wtal is compared with: the post-processing of other projects, written to their algorithms, and tuned ones.

Everything here takes and gives what wtal's own functions do, so that a benchmark can check that results are equal
before it times them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
FLAGS = ["-O3", "-std=c++20", "-shared", "-fPIC", "-ffp-contract=off"]
NO_LIMIT = 2**62


# ---- soft-NMS -------------------------------------------------------------------------------------------------------
@functools.cache
def _library() -> ctypes.CDLL:
    """plain_nms.cpp, compiled once a process."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("the C++ loops that soft_nms is compared with need a C++ compiler on PATH")
    target = Path(tempfile.mkdtemp()) / "plain_nms.so"
    include = f"-I{HERE.parent / 'csrc'}"
    subprocess.run([compiler, *FLAGS, include, str(HERE / "plain_nms.cpp"), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def loop_soft_nms(
    segments: Tensor,
    scores: Tensor,
    offsets: Tensor,
    sigma: float = 0.5,
    min_score: float = 0.001,
    limit: int | None = None,
    tuned: bool = False,
    exact: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """ActionFormer's C++ loop (``libs/utils/csrc/nms_cpu.cpp``), one group after the other, float32, one thread.

    ``tuned`` stops at the limit and skips segments that do not overlap. ``exact``: see plain_nms.cpp.
    """
    segments, scores, groups = segments.contiguous(), scores.contiguous(), len(offsets) - 1
    keep, kept, counts = (
        torch.empty_like(scores, dtype=torch.int64),
        torch.empty_like(scores),
        offsets.new_empty(groups),
    )
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (segments, scores, offsets, keep, kept, counts)]
    limit = NO_LIMIT if limit is None else limit
    _library().plain_soft_nms(
        *pointers[:3],
        ctypes.c_int64(groups),
        ctypes.c_float(sigma),
        ctypes.c_float(min_score),
        ctypes.c_int64(limit),
        int(tuned),
        int(exact),
        *pointers[3:],
    )
    place = torch.arange(len(scores)) - offsets[:-1].repeat_interleave(offsets.diff())
    taken = place < counts.repeat_interleave(offsets.diff())
    return keep[taken], kept[taken], torch.cat([offsets.new_zeros(1), counts.cumsum(0)])


def numpy_soft_nms(
    segments: np.ndarray, scores: np.ndarray, sigma: float, min_score: float, limit: int
) -> tuple[list[int], list[float]]:
    """Soft-NMS of one group as weakly supervised projects have it: a Python loop over selections, NumPy inside.

    After BMN's ``soft_nms`` (``BMN/post_processing.py``), which loops over the others in Python too; here that is
    NumPy, which favours it.
    """
    index, score = np.flatnonzero(scores >= min_score), scores[scores >= min_score].copy()
    start, end = segments[index, 0], segments[index, 1]
    length = end - start + np.float32(1e-6)
    keep, kept = [], []
    while len(score) and len(keep) < limit:
        best = int(score.argmax())
        keep.append(int(index[best]))
        kept.append(float(score[best]))
        inter = np.maximum(np.minimum(end, end[best]) - np.maximum(start, start[best]), 0)
        overlap = inter / (length + length[best] - inter)
        score = score * np.exp(-(overlap * overlap) / np.float32(sigma))
        score[best] = -1
        alive = score >= min_score
        index, score, start, end, length = index[alive], score[alive], start[alive], end[alive], length[alive]
    return keep, kept


def peer_module(file: str) -> ModuleType:
    """A compiled ``nms_1d_cpu`` of ActionFormer or a project that took it over."""
    spec = importlib.util.spec_from_file_location("nms_1d_cpu", file)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"--peer-module {file} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_soft_nms(
    module: ModuleType, segments: Tensor, scores: Tensor, sigma: float = 0.5, min_score: float = 0.001
) -> tuple[Tensor, Tensor]:
    """One group through ActionFormer's extension as its ``SoftNMSop`` calls it: rows kept, and their scores."""
    dets = segments.new_empty((len(scores), 3))
    keep = module.softnms(segments, scores.clone(), dets, 0.5, sigma, min_score, 2)
    return keep, dets[: len(keep), 2]


# ---- grouping -------------------------------------------------------------------------------------------------------
def numpy_grouping(scores: np.ndarray, thresholds: np.ndarray) -> list[list[tuple[int, int, float]]]:
    """Proposals (start, end, maximum) of each class of one video, no segment twice: ``scores`` ``[T, C]``.

    The loops of BaSNet's and W-TALC's descendants (``utils.grouping``: split where indices jump), over classes and
    thresholds.
    """
    found: list[list[tuple[int, int, float]]] = []
    for column in scores.T:
        proposals, seen = [], set()
        for threshold in thresholds:
            above = np.where(column > threshold)[0]
            if not len(above):
                continue
            for run in np.split(above, np.where(np.diff(above) != 1)[0] + 1):
                segment = (int(run[0]), int(run[-1]) + 1)
                if segment not in seen:
                    seen.add(segment)
                    proposals.append((*segment, column[run].max()))
        found.append(proposals)
    return found


def torch_grouping(scores: Tensor, thresholds: Tensor, unique: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Segments ``[P, 2]``, owner ``[P, 2]`` = (class, threshold) and maximum ``[P]`` of one video, without a loop.

    ``scores`` ``[T, C]``; ``thresholds`` rising. Edges alternate between start and end, so one ``nonzero`` finds both.
    """
    columns = scores.T.contiguous()  # [C, T]
    above = columns[:, None] > thresholds[:, None]  # [C, K, T]
    edge = torch.nn.functional.pad(above, (1, 1))
    edge = edge[..., 1:] != edge[..., :-1]  # [C, K, T + 1]
    edges = edge.nonzero()
    owner, start, end = edges[::2, :2], edges[::2, 2], edges[1::2, 2]
    inside = columns[:, None].expand_as(above)[above]  # the runs, one after the other
    maximum = torch.segment_reduce(inside, "max", lengths=end - start, unsafe=True)
    if unique:  # a run that the next lower threshold gives too has both its edges there
        lower = (owner[:, 1] - 1).clamp(min=0)
        again = edge[owner[:, 0], lower, start] & edge[owner[:, 0], lower, end] & (owner[:, 1] > 0)
        owner, start, end, maximum = owner[~again], start[~again], end[~again], maximum[~again]
    return torch.stack([start, end], 1), owner, maximum


# ---- scores to detections -------------------------------------------------------------------------------------------
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # (video, class) [N, 2], segments [N, 2], scores [N]


def numpy_detect(
    videos: list[np.ndarray], video_scores: np.ndarray, thresholds: np.ndarray, sigma: float, limit: int
) -> Detections:
    """All classes of all videos, scores ``[T, C]`` each, with NumPy and Python loops."""
    rows, segments, scores = [], [], []
    for video, frames in enumerate(videos):
        low, high = frames.min(0), frames.max(0)
        proposals = numpy_grouping((frames - low) / np.maximum(high - low, np.finfo(np.float32).tiny), thresholds)
        for label, listed in enumerate(proposals):
            if not listed:
                continue
            table = np.array(listed, np.float32)
            score = table[:, 2] * video_scores[video, label]
            keep, kept = numpy_soft_nms(table[:, :2], score, sigma, 0.001, limit)
            rows += [(video, label)] * len(keep)
            segments.append(table[keep, :2])
            scores += kept
    return np.array(rows), np.concatenate(segments), np.array(scores, np.float32)


def torch_detect(
    videos: list[Tensor], video_scores: Tensor, thresholds: Tensor, sigma: float, limit: int, exact: bool = False
) -> Detections:
    """The same with :func:`torch_grouping` a video, without padding, and the tuned C++ loop."""
    classes = video_scores.shape[1]
    rows, segments, scores = [], [], []
    for video, frames in enumerate(videos):
        low, high = frames.amin(0), frames.amax(0)
        scaled = (frames - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        segment, owner, score = torch_grouping(scaled, thresholds, unique=True)
        label = owner[:, 0].contiguous()
        offsets = torch.searchsorted(label, torch.arange(classes + 1))
        score = score * video_scores[video][label]
        kept, score, _ = loop_soft_nms(segment.float(), score, offsets, sigma, 0.001, limit, tuned=True, exact=exact)
        rows.append(torch.stack([torch.full_like(label[kept], video), label[kept]], 1))
        segments.append(segment[kept])
        scores.append(score)
    return torch.cat(rows).numpy(), torch.cat(segments).numpy(), torch.cat(scores).numpy()


# ---- evaluation -----------------------------------------------------------------------------------------------------
def official_map(
    found: Detections, truth_rows: np.ndarray, truth_segments: np.ndarray, tiou: np.ndarray, classes: int
) -> np.ndarray:
    """Average precision ``[C, K]`` after ``Evaluation/eval_detection.py`` of ActivityNet, loop for loop.

    ``truth_rows`` ``[G, 2]`` = (video, class). The official code selects a video's ground truth from a pandas group-by
    for each detection and class; here a dictionary holds it, which favours it. Its sort by falling score is made
    stable.
    """
    rows, segments, scores = found
    values = np.zeros((classes, len(tiou)))
    for label in range(classes):
        own = np.flatnonzero(rows[:, 1] == label)
        own = own[np.argsort(-scores[own], kind="stable")]
        truth = np.flatnonzero(truth_rows[:, 1] == label)
        by_video: dict[int, list[int]] = {}
        for place, index in enumerate(truth):
            by_video.setdefault(int(truth_rows[index, 0]), []).append(place)
        lock = np.full((len(tiou), len(truth)), -1)
        hit, miss = np.zeros((len(tiou), len(own))), np.zeros((len(tiou), len(own)))
        for place, detection in enumerate(own):
            there = by_video.get(int(rows[detection, 0]))
            if there is None:
                miss[:, place] = 1
                continue
            overlaps = _segment_iou(segments[detection].astype(np.float64), truth_segments[truth[there]])
            falling = overlaps.argsort(kind="stable")[::-1]
            for k, threshold in enumerate(tiou):
                for candidate in falling:
                    if overlaps[candidate] < threshold:
                        miss[k, place] = 1
                        break
                    if lock[k, there[candidate]] >= 0:
                        continue
                    hit[k, place] = 1
                    lock[k, there[candidate]] = place
                    break
                if hit[k, place] == 0 and miss[k, place] == 0:
                    miss[k, place] = 1
        true, false = hit.cumsum(1), miss.cumsum(1)
        for k in range(len(tiou)):
            if len(truth) and len(own):
                values[label, k] = _interpolated(true[k] / (true[k] + false[k]), true[k] / len(truth))
    return values


def _segment_iou(target: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    inter = (np.minimum(target[1], candidates[:, 1]) - np.maximum(target[0], candidates[:, 0])).clip(0)
    return inter / ((candidates[:, 1] - candidates[:, 0]) + (target[1] - target[0]) - inter)


def _interpolated(precision: np.ndarray, recall: np.ndarray) -> float:
    precision, recall = np.hstack([[0], precision, [0]]), np.hstack([[0], recall, [1]])
    for i in range(len(precision) - 1)[::-1]:
        precision[i] = max(precision[i], precision[i + 1])
    jump = np.where(recall[1:] != recall[:-1])[0] + 1
    return float(np.sum((recall[jump] - recall[jump - 1]) * precision[jump]))
