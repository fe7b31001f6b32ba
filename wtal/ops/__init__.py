"""The ops: one native kernel each for CPU and CUDA, and one Python face each."""

from wtal.ops.attention import temporal_attention

__all__ = ["temporal_attention"]
