"""What this device can do at most: a copy for bytes, matrix products for operations. All floors rest on these."""

from __future__ import annotations

import torch

from gpu_check.hardware import Bench


def measure(bench: Bench) -> list[str]:
    """Bytes a second of a copy, read and written counted; operations a second of square matrix products."""
    count = 2**22 if bench.dry else 2**30
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    timing = bench.seconds(lambda: target.copy_(source))
    bench.found(what="copy", bytes=2 * count, rate=2 * count / timing["seconds"], **timing)

    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.float32,) if bench.dry else (torch.bfloat16, torch.float16, torch.float32):
        size = 256 if bench.dry else 8192 if dtype != torch.float32 else 4096
        a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        timing = bench.seconds(lambda a=a, b=b: a @ b)
        flops = 2 * size**3
        bench.found(what="matrix product", dtype=name(dtype), size=size, rate=flops / timing["seconds"], **timing)
    return []


def name(dtype: torch.dtype) -> str:
    """Without 'torch.'."""
    return str(dtype).removeprefix("torch.")
