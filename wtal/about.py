"""Versions of the installed software, facts of the build, and a test run of each op on each device."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

VERSION = "0.1.0"


def versions() -> dict[str, str | None]:
    """Versions of everything that a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from wtal.ops import _library

    facts = _library.build_facts()
    by_name = {
        "wtal": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "built against torch": facts["torch"],
        "compiler": facts["compiler"],
        "CUDA kernels": f"nvcc {facts['cuda']} for {facts['cuda_architectures']}" if facts["cuda"] else "left out",
    }
    for package in ("numpy", "open_clip_torch", "safetensors"):
        try:
            by_name[package] = version(package)
        except PackageNotFoundError:
            by_name[package] = "not installed"
    return by_name


def devices() -> list[str]:
    """The devices that wtal can run on here: the CPU, and every CUDA device if the build has kernels for it."""
    import torch

    from wtal.ops import _library

    count = torch.cuda.device_count() if _library.build_facts()["cuda"] and torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(count))]


def print_version() -> int:
    """What ``--version`` prints; returns 1 if an op fails on any device, else 0."""
    import torch

    for name, version in versions().items():
        print(f"{name:<24} {version}")
    if devices() == ["cpu"]:
        print(f"{'GPU':<24} none found by torch")
    failed = False
    for device in devices():
        where = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
        for op, call in _calls(device).items():
            try:
                call()
                outcome = "ok"
            except Exception as error:
                failed, outcome = True, f"FAILED: {error}"
            print(f"{op:<24} {outcome} on {device} ({where})")
    return int(failed)


def _calls(device: str) -> Mapping[str, Callable[[], object]]:
    """One small call of each op."""
    import numpy as np
    import torch

    from wtal.ops import (
        group_proposals,
        match_detections,
        soft_nms,
        temporal_attention,
        temporal_attention_rows,
        tvl1_flow,
    )

    q = torch.linspace(-1, 1, 2 * 5 * 8, device=device).reshape(1, 2, 5, 8).requires_grad_()
    scores = torch.tensor([0.1, 0.9, 0.8, 0.2, 0.7], device=device).reshape(1, 5, 1)
    segments = torch.tensor([[0.0, 4.0], [1.0, 5.0]], device=device)

    qkv = torch.linspace(-1, 1, 9 * 3 * 2 * 8, device=device).reshape(9, 3, 2, 8).requires_grad_()
    starts, lengths = torch.tensor([0, 6], device=device), torch.tensor([5, 3], device=device)

    def attend() -> None:
        temporal_attention(q, q, q).sum().backward()

    def attend_rows() -> None:
        temporal_attention_rows(qkv, starts, lengths, 2).sum().backward()

    calls: dict[str, Callable[[], object]] = {
        "temporal_attention": attend,
        "temporal_attention_rows": attend_rows,
        "group_proposals": lambda: group_proposals(scores, torch.tensor([0.5], device=device)),
        "soft_nms": lambda: soft_nms(
            segments, torch.tensor([0.9, 0.8], device=device), torch.tensor([0, 2], device=device)
        ),
    }
    images = torch.arange(2 * 4 * 5, dtype=torch.uint8, device=device).reshape(2, 1, 4, 5)
    calls["tvl1_flow"] = lambda: tvl1_flow(images[0], images[1])
    if device == "cpu":
        one, zero = np.array([[0.0, 1.0]]), np.array([0])
        calls["match_detections"] = lambda: match_detections(
            one, np.array([1.0]), zero, zero, one, zero, zero, np.array([0.5])
        )
    return calls
