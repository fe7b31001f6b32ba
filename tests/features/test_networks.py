"""What the networks are fed with, and that a feature does not depend on its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wtal.errors import WtalError
from wtal.features.flow import STEPS
from wtal.features.networks import Network, clip_network, flow_network, rgb_network
from wtal.models.clip_image import load_image_encoder
from wtal.platform.device import Device, _cpu_flags, choose_device, describe

CPU = Device(torch.device("cpu"))


def rows(network: Network, pieces: list[np.ndarray]) -> np.ndarray:
    out: list[np.ndarray] = []
    for piece in pieces:
        network.add(piece, out.append)
    network.flush()
    return np.stack(out)


def test_rgb_and_flow_reach_i3d_scaled(i3d_weights: dict[str, Path], make_i3d) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    flow = rng.integers(-STEPS, STEPS + 1, (16, 32, 32, 2)).astype(np.int16)
    for make, weights, channels, piece, scaled in (
        (rgb_network, i3d_weights["i3d_rgb"], 3, rgb, rgb / 127.5 - 1),
        (flow_network, i3d_weights["i3d_flow"], 2, flow, flow / STEPS),
    ):
        found = rows(make(weights, CPU, 1), [piece])
        assert found.shape == (1, 1024)
        x = torch.from_numpy(scaled.astype(np.float32)).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            wanted = make_i3d(channels)(x).numpy()
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_bf16_on_a_cpu_that_has_it(i3d_weights: dict[str, Path], small_clip: tuple[str, Path]) -> None:
    """Half a percent of the features, with these weights; and it is no float32 under another name."""
    try:
        device = choose_device("cpu", "bf16", cpu_bf16=True)
    except WtalError as error:
        assert "neither AVX512_BF16 nor AMX" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    rng = np.random.default_rng()
    rgb = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    for make, piece in (
        (lambda device: rgb_network(i3d_weights["i3d_rgb"], device, 1), rgb),
        (lambda device: clip_network(*small_clip, device, 1), rgb[0]),
    ):
        exact, found = (rows(make(where), [piece]).astype(np.float64) for where in (CPU, device))
        assert 1e-5 < np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.03


def test_bf16_is_refused_where_a_cpu_only_emulates_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for flags, works in (("avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16", True)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} sse\n")
        found = _cpu_flags(tmp_path / "cpuinfo")
        monkeypatch.setattr("wtal.platform.device._cpu_flags", lambda found=found: found)
        if works:
            device = choose_device("cpu", "bf16", cpu_bf16=True)
            assert device.bf16
            assert describe(device).endswith(", bf16 autocast")
        else:
            with pytest.raises(WtalError, match=r"--precision bf16: this CPU has neither AVX512_BF16 nor AMX"):
                choose_device("cpu", "bf16", cpu_bf16=True)
    assert not choose_device("cpu", "auto", cpu_bf16=True).bf16
    with pytest.raises(WtalError, match="needs a CUDA device"):
        choose_device("cpu", "bf16")  # what training offers
    assert not _cpu_flags(tmp_path / "none")


def test_neighbours_in_a_batch_do_not_matter(i3d_weights: dict[str, Path]) -> None:
    rng = np.random.default_rng(1)
    pieces = [rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8) for _ in range(3)]
    network = rgb_network(i3d_weights["i3d_rgb"], CPU, 2)
    together = rows(network, pieces)
    assert np.array_equal(rows(network, [pieces[2], pieces[1]]), together[[2, 1]])
    alone = rows(rgb_network(i3d_weights["i3d_rgb"], CPU, 1), pieces)
    assert np.abs(alone - together).max() <= 1e-4 * np.abs(alone).max()


def test_clip_encodes_what_open_clip_encodes(clip_weights: Path) -> None:
    import open_clip
    import safetensors.torch
    from PIL import Image

    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    model = open_clip.CLIP(**config).eval()
    state = safetensors.torch.load_file(clip_weights)
    model.load_state_dict({key: value.float() for key, value in state.items()})
    image = np.random.default_rng(2).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    transform = open_clip.image_transform(224, is_train=False)
    with torch.no_grad():
        wanted = model.encode_image(transform(Image.fromarray(image))[None]).numpy()
    network = clip_network("ViT-B-16-quickgelu", clip_weights, CPU, 1)
    found = rows(network, [image])
    assert found.shape == (1, 512)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert rows(network, [image[:56, :56]]).shape == (1, 512)  # other sizes are brought to its own


def test_other_clip_weights_are_refused(clip_weights: Path, tmp_path: Path) -> None:
    import safetensors.torch

    state = safetensors.torch.load_file(clip_weights)
    path = tmp_path / "w.safetensors"

    def refused(changed: dict[str, torch.Tensor], name: str = "ViT-B-16-quickgelu") -> str:
        safetensors.torch.save_file(changed, path)
        with pytest.raises(WtalError) as caught:
            load_image_encoder(name, path)
        return str(caught.value)

    image = {key: value for key, value in state.items() if key.startswith("visual.")}
    safetensors.torch.save_file(image, path)
    assert load_image_encoder("ViT-B-16-quickgelu", path).size == (224, 224)  # the text half is not needed
    assert "visual.proj is missing" in refused({k: v for k, v in image.items() if k != "visual.proj"})
    assert "visual.proj has shape (768, 256), expected (768, 512)" in refused(
        image | {"visual.proj": torch.zeros(768, 256)}
    )
    further = {"visual.transformer.resblocks.12.ln_1.bias": torch.zeros(768)}
    assert "a layer too many" in refused(image | further)
    assert "expected --clip-model ViT-B-16-quickgelu" in refused(
        image | {"input_resolution": torch.tensor(224)}, "ViT-B-16"
    )
    with pytest.raises(WtalError, match="did you mean ViT-B-16-quick"):
        load_image_encoder("ViT-B-16-quickglue", path)
