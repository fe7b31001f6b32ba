"""Checks what has changed since a run was interrupted: some options may change, data and settings may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from wtal.data.features import feature_lengths
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.platform.fields import shown
from wtal.runs.checkpoint import Checkpoint
from wtal.runs.setup import CHANGEABLE, Setup, moved
from wtal.settings.config import RunConfig


def training_facts(data: VideoSet) -> list[list[Any]]:
    """The id, the number of snippets and the class indices of each training video, as a checkpoint stores them."""
    videos = data.subset("train")
    place = {name: index for index, name in enumerate(data.classes)}
    return [
        [video.id, int(snippets), [place[label] for label in video.labels]]
        for video, snippets in zip(videos, feature_lengths(videos), strict=True)
    ]


def check_same(checkpoint: Checkpoint, now: Mapping[str, Any], config: RunConfig) -> None:
    """Check that training can continue from a checkpoint with the current data and settings.

    Args:
        checkpoint: the checkpoint. Facts that an older checkpoint lacks are not compared.
        now: the facts that a new checkpoint would store.
        config: the current settings of the run.

    Raises:
        WtalError: something differs; the message names the first difference.
    """
    was = {**now, **checkpoint.facts}
    if was["classes"] != now["classes"]:
        raise WtalError(f"{checkpoint.path}: was trained on other classes than the data set has now")
    for kind, key in (("I3D", "i3d_dim"), ("CLIP", "clip_dim")):
        if was[key] != now[key]:
            before = f"on {kind} features {was[key]} wide, now {now[key]}"
            if was[key] is None or now[key] is None:
                there = ("without", "some") if was[key] is None else ("with", "none")
                before = f"{there[0]} {kind} features, now there are {there[1]}"
            raise WtalError(f"{checkpoint.path}: was trained {before}")
    if difference := _videos_differ(was["training"], now["training"], now["classes"]):
        raise WtalError(f"{checkpoint.path}: was trained on other data than there are now: {difference}")
    for section, has in asdict(config).items():
        if section not in ("cbp", "vlp"):
            continue
        for key, value in checkpoint.facts["config"].get(section, {}).items():
            if key in has and has[key] != value:
                raise WtalError(
                    f"{checkpoint.path}: was trained with {section}.{key} {value}, the run's settings have {has[key]} "
                    "now; start a new run, or put it back"
                )


def _videos_differ(was: list[list[Any]], now: list[list[Any]], classes: list[str]) -> str | None:
    """A text that describes the first difference between two results of :func:`training_facts`; None if equal."""
    if was == now:
        return None
    before, after = ({video: (snippets, labels) for video, snippets, labels in facts} for facts in (was, now))
    if gone := [video for video in before if video not in after]:
        return f"{len(gone)} of {len(was)} training videos are missing, the first is {gone[0]}"
    if new := [video for video in after if video not in before]:
        return f"{len(new)} training videos are new, the first is {new[0]}"
    for video, (snippets, labels) in before.items():
        if after[video][0] != snippets:
            return f"training video {video} had {snippets} snippets, now {after[video][0]}"
        if after[video][1] != labels:
            had, has = (", ".join(classes[index] for index in indices) for indices in (labels, after[video][1]))
            return f"training video {video} was labelled {had}, now {has}"
    return "the training videos are in another order"


def resumed_setup(
    before: Setup,
    setup: Setup,
    *,
    before_config: RunConfig,
    config: RunConfig,
    given: Collection[str],
) -> Setup:
    """The setup of a resumed run: its stored setup, with the given options that may change.

    Args:
        before: the stored setup of the run.
        setup: the setup from the command line.
        before_config: the stored settings of the run.
        config: the settings from the command line.
        given: the options given on the command line, ``<name>`` or ``<section>.<name>``.

    Raises:
        WtalError: an option that may not change is given with another value.
    """
    for name in sorted(set(given) - {*CHANGEABLE, "root"}):
        section, _, key = name.rpartition(".")
        was, asked = (
            getattr(getattr(own, section), key) if section else getattr(of, key)
            for own, of in ((before_config, before), (config, setup))
        )
        if was != asked:
            option = name.replace("_", "-")
            raise WtalError(f"--{option} does not go with --resume: the run has {shown(was)}, which holds")
    before = moved(before, setup.root if "root" in given else None)  # check_same compares the data
    return replace(before, **{name: getattr(setup, name) for name in CHANGEABLE if name in given})
