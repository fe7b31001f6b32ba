"""temporal_attention against its plain definition: an explicit mask, softmax, and PyTorch's own gradients."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from host_cuda import extension
from host_cuda.backends import CPU, CUDA_DEVICES, CUDA_ON_HOST, CUDA_ON_PTX, DEVICES, at_most
from hypothesis import given
from hypothesis import strategies as st
from ops.attention_rounding import biggest, float32_may_lose
from torch import Tensor

from wtal.ops import temporal_attention, temporal_attention_packed

OP = torch.ops.wtal.temporal_attention
BACKWARD = torch.ops.wtal.temporal_attention_backward
PACKED = torch.ops.wtal.temporal_attention_packed
PACKED_BACKWARD = torch.ops.wtal.temporal_attention_packed_backward
NAN = float("nan")


def seen(total: int, lengths: Tensor, window: int | None) -> Tensor:
    """Which key each query sees, [B, 1, T, T]; rows beyond a video see nothing."""
    index = torch.arange(total, device=lengths.device)
    inside = index < lengths[:, None]  # [B, T]
    mask = inside[:, :, None] & inside[:, None, :]
    if window is not None:
        mask &= (index[:, None] - index).abs() <= window
    return mask[:, None]


def definition(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """What the op is meant to compute: out [B, H, T, D] and log-sum-exp [B, H, T]."""
    batch, _, total, _ = q.shape
    if lengths is None:
        lengths = torch.full((batch,), total, device=q.device)
    mask = seen(total, lengths, window)
    live = mask.any(-1)  # [B, 1, T]
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask, float("-inf"))
    scores = scores.masked_fill(~live[..., None], 0.0)  # keeps NaN out of the rows that see nothing
    weights = scores.softmax(-1) * live[..., None]
    return weights @ v, scores.logsumexp(-1) * live


@dataclasses.dataclass
class Case:
    """Everything one call of the op takes, and gradients for both of its outputs."""

    q: Tensor
    k: Tensor
    v: Tensor
    lengths: Tensor | None
    window: int | None
    scale: float
    grad_out: Tensor
    grad_lse: Tensor

    def options(self) -> tuple[Tensor | None, int | None, float]:
        return self.lengths, self.window, self.scale

    def to(self, dtype: torch.dtype) -> Case:
        names = ("q", "k", "v", "grad_out", "grad_lse")
        return dataclasses.replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    def outputs(self, function=OP) -> list[Tensor]:
        """Out, lse and the gradients for q, k, v (of leaves that keep the inputs' strides)."""
        leaves = [x.detach().requires_grad_() for x in (self.q, self.k, self.v)]
        out, lse = function(*leaves, *self.options())
        grads = torch.autograd.grad([out, lse], leaves, [self.grad_out.to(out.dtype), self.grad_lse.to(lse.dtype)])
        return [out.detach(), lse.detach(), *grads]


def make_case(
    batch: int,
    heads: int,
    total: int,
    dim: int,
    lengths: list[int] | None = None,
    window: int | None = None,
    scale: float = 0.4,
    layout: str = "plain",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    if layout == "packed":  # a projection's [B, T, 3, H, D]
        q, k, v = randn(batch, total, 3, heads, dim).permute(2, 0, 3, 1, 4)
    elif layout == "sliced":  # every stride odd, the base not aligned
        q, k, v = (randn(batch + 1, heads, 2 * total + 1, dim + 3)[1:, :, 1::2, 1 : dim + 1] for _ in range(3))
    else:
        q, k, v = (randn(batch, heads, total, dim) for _ in range(3))
    grad_out = randn(batch, heads, total, dim)
    if layout == "packed":
        grad_out = randn(batch, total, dim, heads).permute(0, 3, 1, 2)  # a gradient need not be contiguous in D
    tensor = None if lengths is None else torch.tensor(lengths, dtype=torch.int64, device=device)
    return Case(q, k, v, tensor, window, scale, grad_out, randn(batch, heads, total))


@st.composite
def cases(draw: st.DrawFn, max_total: int = 200, max_dim: int = 70, **fixed: object) -> Case:
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    total = draw(st.one_of(st.sampled_from([1, 63, 64, 65, 128, 129]), st.integers(1, max_total)))
    dim = draw(st.one_of(st.sampled_from([1, 32, 64]), st.integers(1, max_dim)))
    one_length = st.one_of(st.sampled_from([0, 1, total]), st.integers(0, total))
    lengths = draw(st.none() | st.lists(one_length, min_size=batch, max_size=batch))
    window = draw(st.none() | st.sampled_from([0, 1, total, 10**12]) | st.integers(0, total))
    layout = draw(st.sampled_from(["plain", "packed", "sliced"]))
    scale = draw(st.sampled_from([1.0, 0.125, -0.3, 0.0]))
    seed = draw(st.integers(0, 2**31))
    return make_case(batch, heads, total, dim, lengths, window, scale, layout, seed=seed, **fixed)


NAMES = ("out", "lse", "grad_q", "grad_k", "grad_v")


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        size = 1.0 + (b.abs().max().item() if b.numel() else 0.0)
        error = (a.double() - b.double()).abs().max().item() if b.numel() else 0.0
        assert error <= tolerance * size, f"{name}: error {error:.2e} at size {size:.2e}"


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert torch.equal(a, b), name  # false wherever there is a NaN


# ---- values --------------------------------------------------------------------------------------------------------
@at_most(60)
@given(case=cases(dtype=torch.float64))
def test_equals_the_definition_in_float64(case: Case) -> None:
    assert_close(case.outputs(), case.outputs(definition), 1e-12)


@pytest.mark.parametrize("device", [CPU, CUDA_ON_HOST, CUDA_ON_PTX])
@at_most(40)
@given(case=cases())
def test_equals_the_definition_in_float32(device: str, case: Case) -> None:
    assert_close(case.outputs(), case.to(torch.float64).outputs(definition), 3e-5)


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@at_most(40)
@given(data=st.data())
def test_cuda_is_as_exact_as_plain_pytorch_in_the_same_precision(
    dtype: torch.dtype, device: str, data: st.DataObject
) -> None:
    case = data.draw(cases(max_dim=128, device=device)).to(dtype)
    exact = case.to(torch.float64).outputs(definition)
    plain = case.outputs(definition)
    doubled = case.to(torch.float64)
    sums = dataclasses.replace(doubled, grad_out=doubled.grad_out.abs()).outputs(definition)[NAMES.index("grad_v")]
    lost = float32_may_lose(case.scale, case.q, case.k, case.v, case.grad_out, case.grad_lse, sums)
    for name, found, low, reference in zip(NAMES, case.outputs(), plain, exact, strict=True):
        error = biggest(found.double() - reference)
        allowed = 2 * biggest(low.double() - reference)
        tiny = 2 * torch.finfo(found.dtype).eps * (1 + biggest(reference)) + lost[name]
        assert error <= allowed + tiny, f"{name}: error {error:.2e}, plain PyTorch's {allowed / 2:.2e}"


@pytest.mark.parametrize("device", DEVICES)
def test_large_scores_neither_overflow_nor_lose_the_peak(device: str) -> None:
    case = make_case(2, 2, 150, 16, [150, 70], device=device)
    case = dataclasses.replace(case, q=case.q * 60, k=case.k * 60)  # scores in the tens of thousands
    found, expected = case.outputs()[:2], case.to(torch.float64).outputs(definition)[:2]
    assert all(x.isfinite().all() for x in found)
    torch.testing.assert_close(found[1].double(), expected[1], rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("device", DEVICES)
def test_nan_inside_a_video_is_not_hidden(bad: float, device: str) -> None:
    case = make_case(2, 1, 80, 8, device=device)
    case.k[0, 0, 70, 3] = bad
    out, _ = OP(case.q, case.k, case.v, *case.options())
    assert out[0].isnan().any()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("batch", "total"), [(0, 7), (3, 0), (0, 0)])
def test_no_video_and_no_snippet(batch: int, total: int, device: str) -> None:
    found = make_case(batch, 2, total, 8, [0] * batch, device=device).outputs()
    assert [list(x.shape) for x in found] == [
        [batch, 2, total, 8],
        [batch, 2, total],
        *[[batch, 2, total, 8]] * 3,
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_window_zero_gives_back_v(device: str) -> None:
    case = make_case(2, 2, 70, 5, [70, 3], window=0, device=device)
    out = temporal_attention(case.q, case.k, case.v, case.lengths, 0)
    inside = torch.arange(70, device=device) < case.lengths[:, None]
    torch.testing.assert_close(out, case.v * inside[:, None, :, None])


@pytest.mark.parametrize("device", DEVICES)
def test_default_scale_is_one_over_root_d(device: str) -> None:
    case = make_case(1, 2, 9, 16, device=device)
    assert torch.equal(temporal_attention(case.q, case.k, case.v), OP(case.q, case.k, case.v, None, None, 0.25)[0])


@at_most(10)
@given(dim=st.integers(129, 400), seed=st.integers(0, 999))
def test_cpu_takes_any_head_size(dim: int, seed: int) -> None:
    case = make_case(1, 1, 70, dim, [66], 40, scale=0.05, dtype=torch.float64, seed=seed)
    assert_close(case.outputs(), case.outputs(definition), 1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_outputs_are_contiguous_whatever_the_input(device: str) -> None:
    found = make_case(2, 3, 10, 8, layout="packed", device=device).outputs()
    assert all(x.is_contiguous() for x in found)


# ---- what lies beyond a video --------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@at_most(25)
@given(data=st.data())
def test_padding_is_never_read(device: str, data: st.DataObject) -> None:
    assert_padding_is_never_read(data.draw(cases(device=device)))


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@at_most(10)
@given(data=st.data())
def test_padding_is_never_read_in_half_precision(dtype: torch.dtype, device: str, data: st.DataObject) -> None:
    assert_padding_is_never_read(data.draw(cases(max_dim=128, device=device)).to(dtype))


def assert_padding_is_never_read(case: Case) -> None:
    if case.lengths is None:
        case = dataclasses.replace(case, lengths=torch.zeros(len(case.q), dtype=torch.int64, device=case.q.device))
    total = case.q.shape[2]
    beyond = torch.arange(total, device=case.q.device) >= case.lengths[:, None]  # [B, T]
    spoilt = {name: getattr(case, name).clone() for name in ("q", "k", "v", "grad_out", "grad_lse")}
    for tensor in spoilt.values():
        tensor.transpose(1, 2)[beyond] = NAN
    clean, dirty = case.outputs(), dataclasses.replace(case, **spoilt).outputs()
    assert_same_bits(dirty, clean)
    assert all((x.transpose(1, 2)[beyond] == 0).all() for x in dirty)


@pytest.mark.parametrize("device", DEVICES)
def test_appended_rows_change_no_bit(device: str) -> None:
    case = make_case(2, 2, 150, 24, [150, 97], 40, device=device)
    longer = {}
    for name in ("q", "k", "v", "grad_out", "grad_lse"):
        tensor = getattr(case, name)
        rest = tensor.new_full((*tensor.shape[:2], 500, *tensor.shape[3:]), NAN)
        longer[name] = torch.cat([tensor, rest], dim=2)
    found = [x[:, :, :150] for x in dataclasses.replace(case, **longer).outputs()]
    assert_same_bits(found, case.outputs())


def test_one_thread_and_two_give_the_same_bits() -> None:
    case = make_case(3, 2, 200, 20, [200, 130, 5], 90)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.outputs()
        torch.set_num_threads(2)
        assert_same_bits(case.outputs(), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_cuda_gives_the_same_bits_again_and_clamps_lengths(device: str) -> None:
    case = make_case(3, 2, 80, 40, [80, 53, 0], 36, device=device)
    first = case.outputs()
    assert_same_bits(case.outputs(), first)
    wild = dataclasses.replace(case, lengths=torch.tensor([10**9, 53, -4], device=device))
    assert_same_bits(wild.outputs(), first)


@pytest.mark.parametrize("level", ["default", "avx2"])
def test_narrower_vectors_compute_the_same(level: str, tmp_path: Path) -> None:
    """What machines without AVX-512 run, chosen as torch chooses its own kernels."""
    shapes = [(2, 2, 150, 64, [150, 97], 19), (1, 2, 200, 20, [131], None), (2, 1, 70, 32, [70, 1], 3)]
    cases = [make_case(*shape, dtype=dtype) for shape in shapes for dtype in (torch.float32, torch.float64)]
    torch.save(
        [(case.q, case.k, case.v, case.grad_out, case.grad_lse, case.options()) for case in cases], tmp_path / "in"
    )
    code = f"""
import torch, wtal.ops
results = []
for q, k, v, grad_out, grad_lse, options in torch.load({str(tmp_path / "in")!r}):
    out, lse = torch.ops.wtal.temporal_attention(q, k, v, *options)
    grads = torch.ops.wtal.temporal_attention_backward(grad_out, grad_lse, q, k, v, out, lse, *options)
    results.append([out, lse, *grads])
torch.save(results, {str(tmp_path / "out")!r})
"""
    subprocess.run([sys.executable, "-P", "-c", code], env=os.environ | {"ATEN_CPU_CAPABILITY": level}, check=True)
    for case, found in zip(cases, torch.load(tmp_path / "out"), strict=True):
        exact = case.to(torch.float64).outputs(definition)
        assert_close(found, exact, 3e-5 if case.q.dtype == torch.float32 else 1e-12)


# ---- the packed projection -----------------------------------------------------------------------------------------
def packed_case(case: Case) -> tuple[Tensor, Tensor]:
    """Qkv [B, T, 3, H, D] and grad_out [B, T, H, D] of the same numbers."""
    return torch.stack([case.q, case.k, case.v]).permute(1, 3, 0, 2, 4).contiguous(), case.grad_out.transpose(1, 2)


@pytest.mark.parametrize("device", DEVICES)
@at_most(25)
@given(data=st.data())
def test_packed_gives_the_same_bits_as_its_three_parts(device: str, data: st.DataObject) -> None:
    case = data.draw(cases(device=device))
    qkv, grad_out = packed_case(case)
    qkv.requires_grad_()
    out, lse = PACKED(qkv, *case.options())
    (grad,) = torch.autograd.grad([out, lse], qkv, [grad_out, case.grad_lse])
    parts = grad.permute(2, 0, 3, 1, 4)
    assert_same_bits([out.detach().transpose(1, 2), lse.detach(), *parts], case.outputs())
    assert out.is_contiguous()
    assert grad.is_contiguous()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_packed_opcheck(device: str) -> None:
    case = make_case(2, 2, 6, 4, [5, 0], 3, device=device)
    qkv, grad_out = packed_case(case)
    torch.library.opcheck(PACKED, (qkv.requires_grad_(), *case.options()))
    out, lse = PACKED(qkv.detach(), *case.options())
    torch.library.opcheck(PACKED_BACKWARD, (grad_out, None, qkv.detach(), out, lse, *case.options()))


def test_packed_default_scale_and_second_derivative() -> None:
    qkv = torch.randn(1, 9, 3, 2, 16, requires_grad=True)
    out = temporal_attention_packed(qkv)
    assert torch.equal(out, PACKED(qkv, None, None, 0.25)[0])
    (grad,) = torch.autograd.grad(out.sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("qkv", "options", "message"),
    [
        (torch.zeros(2, 5, 12), {}, r"qkv has shape \[2, 5, 12\], expected \[B, T, 3, H, D\]"),
        (torch.zeros(2, 5, 2, 1, 4), {}, r"qkv has shape \[2, 5, 2, 1, 4\], expected \[B, T, 3, H, D\]"),
        (torch.zeros(2, 5, 3, 1, 4).half(), {}, r"(q|qkv) has dtype \S+, expected .*float32.*float64"),
        (torch.zeros(2, 5, 3, 4, 2).mT, {}, r"(q|qkv) has stride.*, expected .*contiguous\(\)"),
        (torch.zeros(2, 5, 3, 1, 4), {"lengths": torch.tensor([5])}, r"lengths has shape \[1\].*, expected int64"),
        (torch.zeros(2, 5, 3, 1, 4), {"window": -1}, "window is -1, expected a number of snippets >= 0, or None"),
    ],
)
def test_packed_names_a_wrong_argument(qkv: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        temporal_attention_packed(qkv, **options)
    with pytest.raises(RuntimeError, match=message):
        PACKED(qkv, options.get("lengths"), options.get("window"), 1.0)


# ---- gradients, fake kernels, compilation --------------------------------------------------------------------------
@pytest.mark.parametrize("window", [None, 2])
def test_gradcheck_of_both_outputs(window: int | None) -> None:
    case = make_case(2, 1, 7, 3, [7, 4], window, layout="packed", dtype=torch.float64)
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    assert torch.autograd.gradcheck(lambda *x: OP(*x, *case.options()), leaves)


@pytest.mark.parametrize("used", [0, 1])
def test_gradient_of_either_output_alone(used: int) -> None:
    case = make_case(2, 2, 20, 6, [20, 11], dtype=torch.float64)
    grads = []
    for function in (OP, definition):
        leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
        loss = function(*leaves, *case.options())[used].square().sum()
        grads.append(torch.autograd.grad(loss, leaves, materialize_grads=True))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradient_of_sum_comes_with_stride_zero() -> None:
    q = torch.randn(1, 2, 9, 4, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(temporal_attention(q, q, q).sum(), q)[0]
    expected = torch.autograd.grad(definition(q, q, q, None, None, 0.5)[0].sum(), q)[0]
    torch.testing.assert_close(found, expected)


def test_differentiating_twice_is_an_error() -> None:
    q = torch.randn(1, 1, 4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(temporal_attention(q, q, q).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck looks, on views
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lengths", [None, [5, 0]])
def test_opcheck(lengths: list[int] | None, device: str) -> None:
    case = make_case(2, 2, 6, 4, lengths, 3, layout="packed", device=device)
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    torch.library.opcheck(OP, (*leaves, *case.options()))
    out, lse = OP(case.q, case.k, case.v, *case.options())
    for grad_lse in (None, case.grad_lse):
        args = (case.grad_out, grad_lse, case.q, case.k, case.v, out, lse, *case.options())
        torch.library.opcheck(BACKWARD, args)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_a_graph_break(backend: str, device: str) -> None:
    def loss(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        return (temporal_attention(q * 2, k, v, lengths, window=5) * 3).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for total in (11, 12, 13):  # the second makes T symbolic
        case = make_case(2, 2, total, 8, [total, 4], layout="packed", device=device)
        values = []
        for function in (loss, compiled):
            leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
            value = function(*leaves, case.lengths)
            values.append([value.detach(), *torch.autograd.grad(value, leaves)])
        torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-4)


# ---- errors --------------------------------------------------------------------------------------------------------
def qkv(*shape: int, **options: object) -> dict[str, Tensor]:
    return {name: torch.zeros(*shape, **options) for name in ("q", "k", "v")}


GOOD = qkv(2, 1, 5, 4)
WRONG = {
    "rank": (qkv(2, 5, 4), r"q has shape \[2, 5, 4\], expected \[B, H, T, D\]"),
    "no D": (qkv(2, 1, 5, 0), r"q has shape \[2, 1, 5, 0\], expected \[B, H, T, D\] with D >= 1"),
    "k shape": (GOOD | {"k": torch.zeros(2, 1, 6, 4)}, r"k has shape \[2, 1, 6, 4\], expected q's shape"),
    "v shape": (GOOD | {"v": torch.zeros(1, 1, 5, 4)}, r"v has shape \[1, 1, 5, 4\], expected q's shape"),
    "v dtype": (GOOD | {"v": torch.zeros(2, 1, 5, 4).double()}, r"v has dtype \S+, expected q's dtype \S+"),
    "half": (qkv(2, 1, 5, 4, dtype=torch.float16), r"q has dtype \S+, expected .*float32.*float64"),
    "integers": (qkv(2, 1, 5, 4, dtype=torch.int64), r"q has dtype \S+, expected .*float32.*float64"),
    "stride": (GOOD | {"v": torch.zeros(2, 1, 4, 5).mT}, r"v has stride.*, expected .*contiguous\(\)"),
    "lengths shape": (GOOD | {"lengths": torch.tensor([5])}, r"lengths has shape \[1\].*, expected int64"),
    "lengths dtype": (
        GOOD | {"lengths": torch.tensor([5.0, 1])},
        r"lengths has .* dtype \S+, expected int64",
    ),
    "window": (GOOD | {"window": -1}, r"window is -1, expected a number of snippets >= 0, or None"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected(fault: str) -> None:
    args, message = WRONG[fault]
    with pytest.raises(ValueError, match="^" + message):
        temporal_attention(**args)
    with pytest.raises(RuntimeError, match=message):  # the raw op guards its memory itself
        OP(*(args[name] for name in "qkv"), args.get("lengths"), args.get("window"), 1.0)


@pytest.mark.parametrize("scale", [torch.nan, torch.inf, -torch.inf])
def test_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale is -?(nan|inf), expected a finite number, or None"):
        temporal_attention(**GOOD, scale=scale)
    with pytest.raises(ValueError, match=r"^scale is -?(nan|inf), expected a finite number, or None"):
        temporal_attention_packed(torch.zeros(2, 5, 3, 1, 4), scale=scale)


@pytest.mark.parametrize("lengths", [[5, 6], [-1, 0]])
def test_a_length_outside_the_video_is_an_error_on_the_cpu(lengths: list[int]) -> None:
    with pytest.raises(RuntimeError, match=r"lengths\[\d\] is -?\d, expected 0 to T = 5"):
        temporal_attention(**GOOD, lengths=torch.tensor(lengths))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("grad_out", torch.zeros(2, 1, 5, 3), r"grad_out has shape \[2, 1, 5, 3\], expected q's shape"),
        ("out", torch.zeros(2, 1, 5, 4).double(), r"out has dtype Double, expected q's dtype Float"),
        ("lse", torch.zeros(2, 1, 4), r"lse has shape \[2, 1, 4\], expected \[B, H, T\] of q"),
        ("lse", torch.zeros(2, 1, 5).double(), r"lse has dtype Double, expected Float"),
        ("grad_lse", torch.zeros(2, 5), r"grad_lse has shape \[2, 5\], expected \[B, H, T\] of q"),
    ],
)
def test_the_backward_op_checks_what_it_reads(name: str, value: Tensor, message: str) -> None:
    args = {"grad_out": GOOD["q"], "grad_lse": None, **GOOD, "out": GOOD["q"], "lse": torch.zeros(2, 1, 5)}
    with pytest.raises(RuntimeError, match=message):
        BACKWARD(*(args | {name: value}).values(), None, None, 1.0)


def test_a_device_of_its_own_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"k is on meta, expected q's device cpu"):
        temporal_attention(**GOOD | {"k": GOOD["k"].to("meta")})
    with pytest.raises(ValueError, match=r"lengths is on meta, expected q's device cpu"):
        temporal_attention(**GOOD, lengths=torch.tensor([1, 2], device="meta"))


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [20, 24, 64, 128])
def test_cuda_reads_rows_wherever_they_lie(dim: int, dtype: torch.dtype, device: str) -> None:
    """The same bits, read by 16 bytes at a time or, if they are no float32, by numbers; what lies between is NaN.

    Of float32 the products for delta are rounded, by a fused multiply-add or without, as the compiler has it.
    """
    case = make_case(2, 2, 72, dim, [72, 33], 5, dtype=dtype, device=device)

    def among_nan(x: Tensor, before: int, after: int, step: int = 1) -> Tensor:
        wide = torch.full((2, 2, 72, before + step * dim + after), NAN, dtype=dtype, device=device)
        return wide[..., before : before + step * dim : step].copy_(x)

    by_16_bytes = {
        "rows apart by a multiple of 16 bytes": lambda x: among_nan(x, 0, 16 - dim % 8),
        "heads inside": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    }
    by_numbers = {
        "rows apart by less than 16 bytes": lambda x: among_nan(x, 0, 1),
        "a base that is not aligned": lambda x: among_nan(x, 1, 7),
    }
    columns_apart = {  # only a gradient's may be
        "by 16 bytes or 32": lambda x: among_nan(x, 0, 0, 8),
        "by a head": lambda x: x.mT.contiguous().mT,
    }
    expected = case.outputs()
    for layout, place in (by_16_bytes | by_numbers | columns_apart).items():
        of_the_gradient = dataclasses.replace(case, grad_out=place(case.grad_out))
        others = [of_the_gradient]
        if layout not in columns_apart:
            placed = {name: place(getattr(case, name)) for name in "qkv"}
            others.append(dataclasses.replace(of_the_gradient, **placed))
        for other in others:
            if layout in by_16_bytes or dtype != torch.float32:
                assert_same_bits(other.outputs(), expected)
            else:
                assert_close(other.outputs(), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_snippets_than_32_bits_can_count_are_an_error_on_cuda(dtype: torch.dtype) -> None:
    extension.load()
    q = torch.zeros(1, 1, 1, 1, dtype=dtype).expand(1, 1, 2**29, 1)  # results are allocated, but never touched
    with pytest.raises(RuntimeError, match=r"q has T \(or R\) = 536870912, expected less than 2\^29 on CUDA"):
        torch.ops.wtal_on_host.temporal_attention(q, q, q, None, None, 1.0)


@pytest.mark.gpu
def test_mixed_devices_and_large_heads_are_errors_on_cuda() -> None:
    on_cuda = {name: tensor.cuda() for name, tensor in GOOD.items()}
    for name in ("q", "k", "v"):
        with pytest.raises(ValueError, match=r"is on (cpu|cuda:0), expected q's device"):
            temporal_attention(**on_cuda | {name: GOOD[name]})
        with pytest.raises(RuntimeError, match=r"is on (cpu|cuda:0)"):
            OP(*(on_cuda | {name: GOOD[name]}).values(), None, None, 1.0)
    with pytest.raises(ValueError, match=r"lengths is on cpu, expected q's device cuda:0"):
        temporal_attention(**on_cuda, lengths=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"expected D <= 128 on CUDA"):
        temporal_attention(**qkv(1, 1, 2, 129, device="cuda"))
