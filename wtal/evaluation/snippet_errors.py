"""Snippet errors: compares the snippets on which a branch fires with the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wtal.data.npy import load_npy
from wtal.data.snippet_truth import snippet_truth
from wtal.data.synthetic.events import SnippetKind
from wtal.data.video import VideoSet
from wtal.inference.frame_scores import VideoResult
from wtal.inference.localize import FIRES


def error_rates(data: VideoSet, results: Sequence[VideoResult]) -> dict[str, float | None]:
    """Error rates over the labelled classes of all videos.

    Returns:
        ``false_negative``: the share of action snippets on which the branch does not fire. ``false_positive``: the
        share of other snippets on which it fires. For generated videos also the share on which it fires of ``core``,
        ``non_core`` (onset and offset) and ``context`` (the scene without its action). None if there is no such
        snippet.
    """
    fires: dict[str, list[np.ndarray]] = {
        name: [] for name in ("action", "rest", *(("core", "non_core", "context") if data.kinds else ()))
    }
    for item in results:
        truth = snippet_truth(data, item.video, len(item.frame_scores)).numpy()
        kinds = None if data.kinds is None else load_npy(data.kinds / f"{item.video.id}.npy")
        for label in item.video.labels:
            index = data.classes.index(label)
            fired, action = item.frame_scores[:, index].numpy() > FIRES, truth[:, index]
            fires["action"].append(fired[action])
            fires["rest"].append(fired[~action])
            if kinds is not None:
                fires["core"].append(fired[action & (kinds == SnippetKind.CORE)])
                fires["non_core"].append(fired[action & (kinds == SnippetKind.PHASE)])
                fires["context"].append(fired[~action & (kinds == SnippetKind.CONTEXT)])
    share = {name: _share(parts) for name, parts in fires.items()}
    on_action, on_rest = share.pop("action"), share.pop("rest")
    return {"false_negative": None if on_action is None else 1.0 - on_action, "false_positive": on_rest, **share}


def _share(parts: list[np.ndarray]) -> float | None:
    together = np.concatenate(parts) if parts else np.zeros(0)
    return float(together.mean()) if together.size else None
