"""The ops: one native kernel each for CPU and CUDA, and one Python face each."""
