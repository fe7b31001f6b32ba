"""Check before training that settings which need CLIP features have them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig

OF_VLP = {
    "": ("clip_model", "clip_weights"),
    "schedule": ("rounds", "b_epochs", "online_ema"),
    "distill": ("b_foreground", "b_background", "ensemble"),
}
"""Options that change nothing where CBP is trained alone, beside the whole section ``vlp``."""


def check_clip(data: VideoSet, setup: Setup, config: RunConfig, given: Collection[str] = ()) -> str | None:
    """Whether the settings go with the CLIP features that a run has, or lacks.

    Args:
        data: the run's videos, without CLIP features where schedule ``cbp`` reads none.
        setup: for the name of the data set.
        config: the run's settings.
        given: which options were written out, ``<name>`` or ``<section>.<name>``.

    Returns:
        a note for the user where CBP is trained alone, None otherwise.

    Raises:
        WtalError: something needs VLP, and there is no VLP.
    """
    if data.has_clip:
        return None
    schedule = config.schedule
    if schedule.kind == "cbp":
        why, way = "--schedule.kind cbp trains no VLP branch", "auto, alternating and online do"
    else:
        why, way = f"{_place(setup)} has no CLIP features", _missing(setup)
    names = sorted(name.replace("_", "-") for name in given if _of_vlp(name))
    if schedule.kind in ("alternating", "online"):
        names = [f"schedule.kind {schedule.kind}"]
    elif schedule.ensemble_epochs:
        names = [f"schedule.ensemble-epochs {schedule.ensemble_epochs}"]
    elif config.localize.branch != "cbp":
        names = [f"localize.branch {config.localize.branch}"]
    if names:
        raise WtalError(f"--{names[0]} needs the VLP branch, but {why}: {way}")
    taught = sorted(name.replace("_", "-") for name in given if name == "schedule.f_epochs" or "distill." in name)
    if taught and not schedule.self_training:
        raise WtalError(f"--{taught[0]} needs steps with a teacher, but {why}: --schedule.self-training N has some")
    notes = [] if schedule.kind == "cbp" else [f"{why}: CBP is trained alone"]
    if schedule.control and "schedule.control" in given and not schedule.self_training:
        notes.append("no step has a teacher, so there is no control; --schedule.self-training N has such steps")
    return "; ".join(notes) or None


def _of_vlp(name: str) -> bool:
    """Whether an option changes nothing without VLP."""
    section, _, key = name.rpartition(".")
    return section == "vlp" or key in OF_VLP.get(section, ())


def _place(setup: Setup) -> str:
    return setup.dataset if setup.dataset.endswith(".toml") else f"data set {setup.dataset}"


def _missing(setup: Setup) -> str:
    """What to add so that there are CLIP features."""
    if setup.dataset.endswith(".toml"):
        return f"no 'clip' in {Path(setup.dataset).name}, expected a folder of <video>.npy with CLIP features"
    return "expected clip/<video>.npy beside the I3D features"
