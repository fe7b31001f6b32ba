"""Fail unless every op of torch.ops.wtal has its kernels: on the CPU, and on CUDA if the build says so.

``check_kernels.py --cuda`` fails for a build without CUDA kernels as well. Prints one line: torch and its CUDA,
whether torch has the CUDA stream function that the kernels ask for (a CPU-only torch has not), and how many ops
have a kernel for which device.
"""

from __future__ import annotations

import ctypes
import sys

import torch

from wtal import _native
from wtal.ops import _library


def main(cuda_required: bool) -> int:
    """Count, print, and return the exit code."""
    ops = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("wtal::"))
    lacking = {
        device: [op for op in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(op, device)]
        for device in ("CPU", "CUDA")
    }
    # Looked up as the loader does for the module: in it and in what it links against.
    stream = hasattr(ctypes.CDLL(_native.__file__), "aoti_torch_get_current_cuda_stream")
    counts = ", ".join(f"{device} {len(ops) - len(lacking[device])}/{len(ops)}" for device in lacking)
    print(
        f"torch {torch.__version__:<13}  its CUDA {torch.version.cuda or 'none':<5}  "
        f"stream function {'found' if stream else 'null':<6}  kernels {counts}"
    )
    if not cuda_required and _library.build_facts()["cuda"] is None:
        lacking.pop("CUDA")
    for device, without in lacking.items():
        for op in without:
            print(f"error: {op} has no {device} kernel", file=sys.stderr)
    if not ops:
        print("error: no op is registered under wtal::", file=sys.stderr)
    return int(not ops or any(lacking.values()))


if __name__ == "__main__":
    sys.exit(main(cuda_required="--cuda" in sys.argv[1:]))
