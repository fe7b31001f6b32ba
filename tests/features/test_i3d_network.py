"""I3D against the published architecture, and against the same arithmetic written down a second time in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wtal.errors import WtalError
from wtal.models.i3d import I3D, MaxPool, load_i3d, same_padding
from wtal.models.i3d_inference import AxisMaxPool, for_inference
from wtal.models.weight_files import read_weights

# GoogLeNet's table 1 (Szegedy et al., 2015): 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 (3x3 in I3D), pool proj.
GOOGLENET = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

# Channels, frames, height and width after each layer, for 16 x 224 x 224, and the parameters in it.
LAYERS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "Conv3d_1a_7x7": ((64, 8, 112, 112), 65_984),
    "MaxPool3d_2a_3x3": ((64, 8, 56, 56), 0),
    "Conv3d_2b_1x1": ((64, 8, 56, 56), 4_224),
    "Conv3d_2c_3x3": ((192, 8, 56, 56), 332_160),
    "MaxPool3d_3a_3x3": ((192, 8, 28, 28), 0),
    "Mixed_3b": ((256, 8, 28, 28), 386_272),
    "Mixed_3c": ((480, 8, 28, 28), 837_888),
    "MaxPool3d_4a_3x3": ((480, 4, 14, 14), 0),
    "Mixed_4b": ((512, 4, 14, 14), 737_760),
    "Mixed_4c": ((512, 4, 14, 14), 904_464),
    "Mixed_4d": ((512, 4, 14, 14), 1_103_664),
    "Mixed_4e": ((528, 4, 14, 14), 1_356_672),
    "Mixed_4f": ((832, 4, 14, 14), 1_799_168),
    "MaxPool3d_5a_2x2": ((832, 2, 7, 7), 0),
    "Mixed_5b": ((832, 2, 7, 7), 1_974_272),
    "Mixed_5c": ((1024, 2, 7, 7), 2_784_736),
}


def test_shapes_and_parameters_layer_by_layer() -> None:
    with torch.device("meta"), torch.inference_mode():
        model = I3D(3).eval()
        x = torch.empty(1, 3, 16, 224, 224)
        assert [name for name, _ in model.named_children()] == [*LAYERS, "logits"]
        for name, (shape, parameters) in LAYERS.items():
            layer = model.get_submodule(name)
            inputs = x.shape[1]
            x = layer(x)
            assert tuple(x.shape) == (1, *shape), name
            assert sum(weight.numel() for weight in layer.parameters()) == parameters, name
            if name in GOOGLENET:
                b0, b1a, b1b, b2a, b2b, b3b = GOOGLENET[name]
                ones, cubes = inputs * (b0 + b1a + b2a + b3b), 27 * (b1a * b1b + b2a * b2b)
                assert parameters == ones + cubes + 2 * sum(GOOGLENET[name]), name
        flow = I3D(2).eval()
        x = torch.empty(2, 2, 16, 224, 224)
        assert tuple(flow(x).shape) == (2, 1024)
        assert tuple(flow.classify(flow(x)).shape) == (2, 400)
    features = sum(parameters for _, parameters in LAYERS.values())
    assert features == 12_287_264  # "12 M" in the paper's table
    assert sum(weight.numel() for weight in model.parameters()) == features + 1024 * 400 + 400
    assert sum(weight.numel() for weight in flow.parameters()) == features + 1024 * 400 + 400 - 64 * 343


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """Their documentation: two cases, the odd zero at the end; the output is ceil(size / stride)."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    ((before, after),) = same_padding([size], [kernel], [stride])
    assert (before, after) == (total // 2, total - total // 2)
    assert after - before in (0, 1)
    assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network from its weights alone: zeros written around the input, sums over windows, nothing shared with it."""

    def padded(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
        for axis in range(3):
            size = x.shape[2 + axis]
            missing = max((math.ceil(size / stride[axis]) - 1) * stride[axis] + kernel[axis] - size, 0)
            shape = list(x.shape)
            for side, count in enumerate((missing // 2, missing - missing // 2)):
                shape[2 + axis] = count
                zeros = x.new_zeros(shape)
                x = torch.cat([zeros, x] if side == 0 else [x, zeros], dim=2 + axis)
        return x

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        x = F.conv3d(padded(x, list(weight.shape[2:]), [stride] * 3), weight, stride=stride)
        part = {key: state[f"{name}.bn.{key}"][:, None, None, None] for key in ("running_mean", "running_var")}
        scale = state[f"{name}.bn.weight"][:, None, None, None] / (part["running_var"] + 1e-3).sqrt()
        return ((x - part["running_mean"]) * scale + state[f"{name}.bn.bias"][:, None, None, None]).clamp(min=0)

    def pool(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
        x = padded(x, kernel, stride)
        for axis in range(3):
            x = x.unfold(2 + axis, kernel[axis], stride[axis])
        return x.amax(dim=(5, 6, 7))

    def mixed(name: str, x: Tensor) -> Tensor:
        left, right = unit(f"{name}.b1a", x), unit(f"{name}.b2a", x)
        pooled = pool(x, [3, 3, 3], [1, 1, 1])
        parts = [unit(f"{name}.b0", x), unit(f"{name}.b1b", left), unit(f"{name}.b2b", right)]
        return torch.cat([*parts, unit(f"{name}.b3b", pooled)], dim=1)

    x = pool(unit("Conv3d_1a_7x7", x, 2), [1, 3, 3], [1, 2, 2])
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), [1, 3, 3], [1, 2, 2])
    x = pool(mixed("Mixed_3c", mixed("Mixed_3b", x)), [3, 3, 3], [2, 2, 2])
    for letter in "bcdef":
        x = mixed(f"Mixed_4{letter}", x)
    x = mixed("Mixed_5c", mixed("Mixed_5b", pool(x, [2, 2, 2], [2, 2, 2])))
    return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize(("channels", "size"), [(3, (16, 48, 48)), (2, (9, 51, 38))])
def test_float64_reference_of_the_same_weights(make_i3d, channels: int, size: tuple[int, int, int]) -> None:
    model = make_i3d(channels)
    x = torch.rand(1, channels, *size) * 2 - 1
    with torch.no_grad():
        found = model(x)
        double = {key: value.double() for key, value in model.state_dict().items()}
        exact = reference(double, x.double())
    assert exact.std() > 0.01  # features that say something
    assert (found - exact).norm() / exact.norm() < 1e-5
    assert (model.classify(found) - model.double().classify(exact)).abs().max() < 1e-3


@pytest.mark.parametrize(("channels", "size"), [(3, (16, 48, 48)), (2, (9, 51, 38)), (3, (1, 32, 32))])
def test_inference_changes_rounding_alone(make_i3d, channels: int, size: tuple[int, int, int]) -> None:
    """In float64 nothing else is left; in float32 the features are as far from those as the plain ones."""
    model = make_i3d(channels)
    for name, buffer in model.named_buffers():  # statistics of every size
        if name.endswith("running_var"):
            buffer.mul_(torch.rand_like(buffer) * 2 + 0.01)
        elif name.endswith("running_mean"):
            buffer.add_(torch.randn_like(buffer) * 0.1)
    state = model.state_dict()
    x = torch.rand(1, *size, channels).permute(0, 4, 1, 2, 3) * 2 - 1

    def network(dtype: torch.dtype, faster: bool) -> I3D:
        made = I3D(channels).eval().requires_grad_(False)
        made.load_state_dict(state)
        return for_inference(made.to(dtype)) if faster else made.to(dtype)

    with torch.inference_mode():
        exact = reference({key: value.double() for key, value in state.items()}, x.double())
        double = network(torch.float64, True)(x.double())
        errors = [(network(torch.float32, faster)(x).double() - exact).norm() for faster in (False, True)]
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network(torch.float32, True).modules())
    assert exact.std() > 0.01
    assert (double - exact).norm() <= 1e-11 * exact.norm()
    assert errors[1] <= 2 * errors[0] + 1e-6 * exact.norm()


@given(
    size=st.tuples(*[st.integers(1, 12)] * 3),
    kernel=st.tuples(*[st.integers(1, 5)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    innermost=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_pooling_axis_by_axis_has_the_same_values(
    size: tuple[int, ...],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    dtype: torch.dtype,
    innermost: bool,
    seed: int,
) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).relu().to(dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d) if innermost else x
    before, plain = x.clone(), MaxPool(kernel, stride)
    expected = plain(x.float()).to(dtype)
    assert torch.equal(AxisMaxPool(plain)(x), expected)
    assert torch.equal(x, before)


def test_the_average_is_the_checkpoints_own_pooling(make_i3d) -> None:
    model = make_i3d(2)
    x = torch.rand(1, 2, 16, 224, 224) * 2 - 1
    with torch.inference_mode():
        found = model(x)
        for name, layer in model.named_children():
            if name != "logits":
                x = layer(x)
        pooled = F.avg_pool3d(x, (2, 7, 7), 1)
    assert pooled.shape == (1, 1024, 1, 1, 1)
    assert torch.allclose(found, pooled[:, :, 0, 0, 0], rtol=1e-5, atol=1e-6)


def test_old_checkpoints_load(i3d_weights, make_i3d) -> None:
    """As they are: not zipped, without batch counts; also with another classifier, or from several GPUs."""
    state = read_weights(i3d_weights["i3d_rgb"], "--i3d-rgb")
    assert not any(key.endswith("num_batches_tracked") for key in state)
    model = load_i3d(state, 3, "f")
    wanted = make_i3d(3).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
    assert not any(weight.requires_grad for weight in model.parameters())
    charades = {
        **state,
        "logits.conv3d.weight": torch.zeros(157, 1024, 1, 1, 1),
        "logits.conv3d.bias": torch.zeros(157),
    }
    assert load_i3d(charades, 3, "f").classify(torch.zeros(1, 1024)).shape == (1, 157)
    headless = {key: value.half() for key, value in state.items() if not key.startswith("logits.")}
    assert load_i3d(headless, 3, "f").Conv3d_1a_7x7.conv3d.weight.dtype == torch.float32


def test_loading_draws_no_random_numbers(i3d_weights) -> None:
    state = read_weights(i3d_weights["i3d_rgb"])
    before = torch.get_rng_state()
    load_i3d(state, 3, "f")
    assert torch.equal(before, torch.get_rng_state())


def test_other_checkpoints_are_refused(i3d_weights) -> None:
    state = read_weights(i3d_weights["i3d_rgb"])

    def refused(state: dict[str, Tensor], channels: int = 3) -> str:
        with pytest.raises(WtalError) as caught:
            load_i3d(state, channels, "--i3d-rgb w.pt")
        return str(caught.value)

    assert "takes RGB input, expected a checkpoint for flow" in refused(state, 2)
    assert "no I3D checkpoint: it has 'conv3d_1a_7x7.w'" in refused({"conv3d_1a_7x7.w": torch.zeros(1)})
    less = {key: value for key, value in state.items() if not key.startswith("Mixed_5c.b2b")}
    assert "5 of 285 tensors of I3D are missing, the first Mixed_5c.b2b.conv3d.weight" in refused(less)
    wrong = {**state, "Mixed_3b.b0.conv3d.weight": torch.zeros(64, 192, 3, 3, 3)}
    assert "Mixed_3b.b0.conv3d.weight has shape [64, 192, 3, 3, 3], expected [64, 192, 1, 1, 1]" in refused(wrong)
