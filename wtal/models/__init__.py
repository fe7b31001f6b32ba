"""The two branches, CBP and VLP, and the blocks that they share."""

from wtal.models.blocks import TransformerBlock
from wtal.models.cbp import CBP
from wtal.models.mil import video_logits
from wtal.models.text_without_clip import FixedText, PromptedTextFeatures
from wtal.models.vlp import VLP

__all__ = ["CBP", "VLP", "FixedText", "PromptedTextFeatures", "TransformerBlock", "video_logits"]
