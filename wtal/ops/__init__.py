"""The ops: one native kernel each for CPU and CUDA, and one Python face each."""

from wtal.ops.nms import soft_nms
from wtal.ops.proposals import group_proposals

__all__ = ["group_proposals", "soft_nms"]
