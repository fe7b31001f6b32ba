"""The branches of a run: builds them for a data set, or restores them from a checkpoint."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wtal.data.batches import Batch
from wtal.data.features import read_clip, read_features
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError, reason
from wtal.models.cbp import CBP, CBPEnsemble, FrameOutputs, build_cbp
from wtal.models.clip_text import PromptedCLIPText
from wtal.models.load_clip_text import load_clip
from wtal.models.text_without_clip import FixedText, PromptedTextFeatures
from wtal.models.vlp import VLP
from wtal.runs.checkpoint import Checkpoint, own_tensors
from wtal.settings.config import RunConfig
from wtal.settings.recipe import from_table


def members(branch: str) -> tuple[str, ...]:
    """The names of the branches in an ensemble ``a+b``; ``ensemble`` is ``cbp+vlp``, and a branch has only itself."""
    return tuple(("cbp+vlp" if branch == "ensemble" else branch).split("+"))


class Branches(nn.ModuleDict):
    """The branches by name: ``cbp``, ``vlp`` if there are CLIP features, and others that a schedule adds.

    Attributes:
        facts: the values that a checkpoint must store so that :func:`restore_branches` can build the same branches.
    """

    def __init__(self, modules: dict[str, nn.Module], facts: dict[str, Any]) -> None:
        super().__init__(modules)
        self.facts = facts

    @property
    def has_vlp(self) -> bool:
        """Whether there is a vision-language branch; CBP can be trained without one."""
        return "vlp" in self

    def check(self, branch: str) -> None:
        """Check that this model can compute the scores of a branch or an ensemble.

        Raises:
            WtalError: VLP is needed, but CBP was trained alone.
        """
        if not self.has_vlp and "vlp" in members(branch):
            raise WtalError(
                f"--branch {branch}: the model was trained without CLIP features and has no VLP branch, expected cbp"
            )

    def reads_clip(self, name: str) -> bool:
        """Whether a branch reads CLIP features; the others read I3D features."""
        return isinstance(self[name], VLP)

    def copy(self, source: str, name: str) -> None:
        """Make branch ``name`` a copy of ``source``; both share the frozen parameters."""
        kept: list[Tensor | nn.Module] = [p for p in self[source].parameters() if not p.requires_grad]
        # CLIP's text encoder is not in parameters().
        kept += [module.encoder for module in self[source].modules() if isinstance(module, PromptedCLIPText)]
        self[name] = copy.deepcopy(self[source], {id(part): part for part in kept})

    def logits(self, name: str, batch: Batch) -> Tensor:
        """Frame logits ``[B, T, C]`` of one branch, zero after the end of each video."""
        return cast(Tensor, self[name](self._features(name, batch), batch.lengths))

    def networks(self, name: str) -> list[nn.Module]:
        """The networks of a branch, which are trained each by itself; all but an ensemble of CBP have one."""
        branch = self[name]
        return list(branch.networks) if isinstance(branch, CBPEnsemble) else [branch]

    def outputs(self, name: str, batch: Batch, embedding: bool = False, network: int = 0) -> FrameOutputs:
        """Frame logits, and the other outputs that losses use, of one network of a branch."""
        features, chosen = self._features(name, batch), self.networks(name)[network]
        if isinstance(chosen, CBP):
            return chosen.outputs(features, batch.lengths, embedding)
        return FrameOutputs(chosen(features, batch.lengths))

    def _features(self, name: str, batch: Batch) -> Tensor:
        """The features of a batch that a branch reads."""
        features = batch.clip if self.reads_clip(name) else batch.i3d
        if features is None:
            raise ValueError(f"the batch lacks the features that branch {name!r} reads")
        return features

    def reading(self, name: str) -> CBP | CBPEnsemble | VLP:
        """One branch, typed, for its ``reach`` and ``stride``."""
        return cast("CBP | CBPEnsemble | VLP", self[name])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors for a checkpoint: learned tensors, and text features, so that prediction does not need CLIP."""
        stored = {
            f"{name}.{key}": tensor for name, branch in self.items() for key, tensor in own_tensors(branch).items()
        }
        if self.has_vlp:
            with torch.no_grad():
                stored["text_features"] = self.vision_language.text()
        return stored

    @property
    def classification(self) -> CBP | CBPEnsemble:
        """The classification branch."""
        return cast("CBP | CBPEnsemble", self["cbp"])

    @property
    def vision_language(self) -> VLP:
        """The vision-language branch."""
        return cast(VLP, self["vlp"])


def build_branches(data: VideoSet, config: RunConfig, clip_model: str, clip_weights: Path | None) -> Branches:
    """New branches for a data set, initialised from torch's global random generator.

    Without CLIP features there is only CBP, and no text encoder is loaded.

    Args:
        data: the data set, which gives the classes, the feature widths, and possibly text features.
        config: the settings of the branches.
        clip_model: the open_clip architecture; used if the data set has no text features.
        clip_weights: a file with CLIP's weights; None lets open_clip download them.
    """
    first = data.videos[0]
    i3d_dim = read_features(first).shape[1]
    facts: dict[str, Any] = {
        "config": asdict(config),
        "classes": list(data.classes),
        "i3d_dim": i3d_dim,
        "clip_dim": None,
        "text_encoder": None,
        "grid": common_grid(data.videos),
    }
    if not data.has_clip:
        return Branches({"cbp": build_cbp(i3d_dim, len(data.classes), config.cbp)}, facts)
    clip_dim = read_clip(first).shape[1]
    prompts = (config.vlp.prompts_before, config.vlp.prompts_after, config.vlp.init_std)
    if data.text_features is not None:
        text: nn.Module = PromptedTextFeatures(torch.from_numpy(data.text_features), *prompts)
        encoder = "text features of the data set"
    else:
        clip, tokenizer = load_clip(clip_model, clip_weights)
        names = [readable(name) for name in data.classes]
        text = PromptedCLIPText(clip, tokenizer, names, *prompts)
        encoder = clip_model
    facts |= {"clip_dim": clip_dim, "text_encoder": encoder}
    modules: dict[str, nn.Module] = {
        "cbp": build_cbp(i3d_dim, len(data.classes), config.cbp),
        "vlp": VLP(text, clip_dim, config.vlp),
    }
    return Branches(modules, facts)


def common_grid(videos: Sequence[Video]) -> dict[str, float | None]:
    """``fps``, ``stride``, ``window`` and ``clip_fps`` of all videos; None if a value differs or is unknown."""
    grids = [{**asdict(video.timebase), "clip_fps": video.clip_fps} for video in videos]
    return {key: grids[0][key] if len({grid[key] for grid in grids}) == 1 else None for key in grids[0]}


def restore_branches(checkpoint: Checkpoint) -> tuple[Branches, RunConfig]:
    """The branches of a checkpoint, for prediction. Text features are stored in it, so CLIP is not needed.

    Raises:
        WtalError: the checkpoint lacks something, or its tensors have wrong shapes.
    """
    facts = checkpoint.facts
    try:
        config = from_table(facts["config"], RunConfig(), str(checkpoint.path))
        if max(config.cbp.networks, config.cbp.levels, config.vlp.blocks) > len(checkpoint.tensors):
            raise WtalError("more networks or layers than tensors")
        if not all(isinstance(name, str) for name in facts["classes"]):
            raise WtalError(f"classes {facts['classes']!r}")
        with torch.device("meta"):  # needs no memory, even if the facts have wrong sizes
            modules: dict[str, nn.Module] = {"cbp": build_cbp(facts["i3d_dim"], len(facts["classes"]), config.cbp)}
        stored = {"cbp": checkpoint.part("cbp")}
        if facts["clip_dim"] is not None:
            features = checkpoint.tensors["text_features"]
            with torch.device("meta"):
                text = FixedText(torch.empty_like(features, device="meta"))
                modules["vlp"] = VLP(text, facts["clip_dim"], config.vlp)
            if text.num_classes != len(facts["classes"]):
                raise WtalError(f"{text.num_classes} text features for classes {facts['classes']!r}")
            stored["vlp"] = {key: value for key, value in checkpoint.part("vlp").items() if not key.startswith("text.")}
            stored["vlp"]["text.features"] = features  # already of unit norm; to scale them again would change bits
        for name, branch in modules.items():
            if wrong := [key for key, tensor in stored[name].items() if tensor.dtype != torch.float32]:
                raise WtalError(f"{wrong[0]} is {stored[name][wrong[0]].dtype}")
            branch.load_state_dict(stored[name], assign=True)
    # A wrong or missing fact can raise any error, such as a KeyError or a RuntimeError of torch.
    except Exception as error:
        raise WtalError(f"{checkpoint.path}: not a whole model ({type(error).__name__}: {reason(error)})") from error
    return Branches({name: branch.eval() for name, branch in modules.items()}, facts), config


def readable(name: str) -> str:
    """A class name as words for the text encoder: ``CleanAndJerk`` -> ``clean and jerk``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", name)
    return " ".join(words.lower().split())
