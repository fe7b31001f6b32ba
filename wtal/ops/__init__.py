"""The ops: each has a Python function and native kernels for the CPU and, unless documented otherwise, for CUDA."""

from wtal.ops.attention import temporal_attention, temporal_attention_packed, temporal_attention_rows
from wtal.ops.flow import tvl1_flow
from wtal.ops.matching import match_detections
from wtal.ops.nms import soft_nms
from wtal.ops.proposals import group_proposals

__all__ = [
    "group_proposals",
    "match_detections",
    "soft_nms",
    "temporal_attention",
    "temporal_attention_packed",
    "temporal_attention_rows",
    "tvl1_flow",
]
