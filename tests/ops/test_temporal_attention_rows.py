"""temporal_attention_rows against its plain definition: all rows at once, under a mask of who sees whom."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from host_cuda.backends import CUDA_DEVICES, DEVICES, at_most
from hypothesis import given
from hypothesis import strategies as st
from ops.attention_rounding import biggest, float32_may_lose
from torch import Tensor

from wtal.ops import temporal_attention_packed, temporal_attention_rows

OP = torch.ops.wtal.temporal_attention_rows
BACKWARD = torch.ops.wtal.temporal_attention_rows_backward
NAN = float("nan")
NAMES = ("out", "lse", "grad_qkv")


def inside(rows: int, starts: Tensor, lengths: Tensor) -> Tensor:
    """Which rows each video has, [B, R]."""
    row = torch.arange(rows, device=starts.device)
    return (row >= starts[:, None]) & (row < (starts + lengths)[:, None])


def definition(qkv: Tensor, starts: Tensor, lengths: Tensor, window: int | None, scale: float) -> tuple[Tensor, Tensor]:
    """What the op is meant to compute: out [R, H, D] and log-sum-exp [H, R]."""
    row = torch.arange(len(qkv), device=qkv.device)
    members = inside(len(qkv), starts, lengths)
    seen = (members[:, :, None] & members[:, None, :]).any(0)  # [R, R]: both in one video
    if window is not None:
        seen &= (row[:, None] - row).abs() <= window
    live = members.any(0)
    q, k, v = qkv.permute(1, 2, 0, 3)  # [H, R, D] each
    scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, float("-inf"))
    scores = scores.masked_fill(~live[:, None], 0.0)  # keeps NaN out of the rows that see nothing
    weights = scores.softmax(-1) * live[:, None]
    return (weights @ v).transpose(0, 1), scores.logsumexp(-1) * live


@dataclasses.dataclass
class Case:
    """Everything one call of the op takes, and gradients for both of its outputs."""

    qkv: Tensor
    starts: Tensor
    lengths: Tensor
    window: int | None
    scale: float
    grad_out: Tensor
    grad_lse: Tensor

    def options(self) -> tuple[Tensor, Tensor, int | None, float]:
        return self.starts, self.lengths, self.window, self.scale

    def to(self, dtype: torch.dtype) -> Case:
        names = ("qkv", "grad_out", "grad_lse")
        return dataclasses.replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    def outputs(self, function=OP) -> list[Tensor]:
        """Out, lse and the gradient of a leaf that keeps the input's strides."""
        leaf = self.qkv.detach().requires_grad_()
        out, lse = function(leaf, *self.options())
        (grad,) = torch.autograd.grad([out, lse], leaf, [self.grad_out.to(out.dtype), self.grad_lse.to(lse.dtype)])
        return [out.detach(), lse.detach(), grad]

    @property
    def of_no_video(self) -> Tensor:
        return ~inside(len(self.qkv), self.starts, self.lengths).any(0)


def make_case(
    gaps: list[int],
    lengths: list[int],
    heads: int,
    dim: int,
    window: int | None = None,
    scale: float = 0.4,
    layout: str = "plain",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    """Videos of the lengths with `gaps` before them and, one gap more, after the last."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    starts, rows = [], gaps[0]
    for length, gap in zip(lengths, gaps[1:], strict=True):
        starts.append(rows)
        rows += length + gap
    if layout == "sliced":  # every stride odd, the base not aligned
        qkv = randn(2 * rows + 1, 3, heads + 1, dim + 3)[1::2, :, 1:, 1 : dim + 1]
    elif layout == "wide":  # part of a wider projection: vectors can be loaded, rows lie further apart
        qkv = randn(rows, 4, heads, dim)[:, 1:]
    else:
        qkv = randn(rows, 3, heads, dim)
    grad_out = randn(rows, heads, dim)
    if layout == "sliced":
        grad_out = randn(rows, dim, heads).transpose(1, 2)  # a gradient need not be contiguous in D
    integers = [torch.tensor(values, dtype=torch.int64, device=device) for values in (starts, lengths)]
    if layout == "sliced":  # nor are these
        integers = [torch.stack([x, x - 999], 1)[:, 0] for x in integers]
    return Case(qkv, *integers, window, scale, grad_out, randn(heads, rows))


@st.composite
def cases(draw: st.DrawFn, max_length: int = 150, max_dim: int = 70, **fixed: object) -> Case:
    videos = draw(st.one_of(st.integers(0, 4), st.just(40)))
    if videos == 40:  # more than a warp can look at at once
        max_length = 6
    one = st.one_of(st.sampled_from([0, 1]), st.sampled_from([63, 64, 65, 128]), st.integers(0, max_length))
    one = one.map(lambda length: min(length, max_length))
    lengths = draw(st.lists(one, min_size=videos, max_size=videos))
    gap = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, max_length))
    gaps = draw(st.lists(gap, min_size=videos + 1, max_size=videos + 1))
    heads = draw(st.integers(1, 2))
    dim = draw(st.one_of(st.sampled_from([1, 32, 64]), st.integers(1, max_dim)))
    window = draw(st.none() | st.sampled_from([0, 1, 10**12]) | st.integers(0, max_length))
    scale = draw(st.sampled_from([1.0, 0.125, -0.3, 0.0]))
    layout = draw(st.sampled_from(["plain", "wide", "sliced"]))
    seed = draw(st.integers(0, 2**31))
    return make_case(gaps, lengths, heads, dim, window, scale, layout, seed=seed, **fixed)


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.shape == b.shape, name
        size = 1.0 + biggest(b)
        error = biggest(a.double() - b.double())
        assert error <= tolerance * size, f"{name}: error {error:.2e} at size {size:.2e}"


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert torch.equal(a, b), name  # false wherever there is a NaN


# ---- values --------------------------------------------------------------------------------------------------------
@at_most(60)
@given(case=cases(dtype=torch.float64))
def test_equals_the_definition_in_float64(case: Case) -> None:
    assert_close(case.outputs(), case.outputs(definition), 1e-12)


@at_most(40)
@given(case=cases())
def test_equals_the_definition_in_float32(case: Case) -> None:
    assert_close(case.outputs(), case.to(torch.float64).outputs(definition), 3e-5)


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@at_most(30)
@given(data=st.data())
def test_cuda_is_as_exact_as_plain_pytorch_in_the_same_precision(
    dtype: torch.dtype, device: str, data: st.DataObject
) -> None:
    case = data.draw(cases(150, max_dim=128, device=device)).to(dtype)
    doubled = case.to(torch.float64)
    exact, plain = doubled.outputs(definition), case.outputs(definition)
    sums = dataclasses.replace(doubled, grad_out=doubled.grad_out.abs()).outputs(definition)[2][:, 2]
    lost = float32_may_lose(case.scale, *case.qkv.unbind(1), case.grad_out, case.grad_lse, sums)
    for name, found, low, reference in zip(NAMES, case.outputs(), plain, exact, strict=True):
        parts = [(name, found, low, reference)]
        if name == "grad_qkv":  # each of the three by its own error
            of_each = (x.unbind(1) for x in (found, low, reference))
            parts = list(zip(("grad_q", "grad_k", "grad_v"), *of_each, strict=True))
        for part, a, b, c in parts:
            error, allowed = biggest(a.double() - c), 2 * biggest(b.double() - c)
            tiny = 2 * torch.finfo(a.dtype).eps * (1 + biggest(c)) + lost[part]
            assert error <= allowed + tiny, f"{part}: error {error:.2e}, plain PyTorch's {allowed / 2:.2e}"


@pytest.mark.parametrize("device", DEVICES)
@at_most(10)
@given(data=st.data())
def test_gives_the_bits_of_the_padded_op(device: str, data: st.DataObject) -> None:
    case = data.draw(cases(70, max_dim=40, device=device))
    pairs = list(zip(case.starts.tolist(), case.lengths.tolist(), strict=True))
    size = max([length for _, length in pairs], default=0)
    padded = torch.full((len(pairs), size, *case.qkv.shape[1:]), NAN, device=device)
    for b, (start, length) in enumerate(pairs):
        padded[b, :length] = case.qkv[start : start + length]
    out = temporal_attention_rows(case.qkv, *case.options())
    expected = temporal_attention_packed(padded, case.lengths, case.window, case.scale)
    for b, (start, length) in enumerate(pairs):
        assert torch.equal(out[start : start + length], expected[b, :length])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("gaps", "lengths"), [([0], []), ([5], []), ([0, 0], [0]), ([70, 0, 1], [0, 0])])
def test_no_video_and_no_row(gaps: list[int], lengths: list[int], device: str) -> None:
    case = make_case(gaps, lengths, 2, 8, device=device)
    rows = sum(gaps)
    found = case.outputs()
    assert [list(x.shape) for x in found] == [[rows, 2, 8], [2, rows], [rows, 3, 2, 8]]
    assert all((x == 0).all() for x in found)


@pytest.mark.parametrize("device", DEVICES)
def test_window_zero_gives_back_v_and_outputs_are_contiguous(device: str) -> None:
    case = make_case([2, 0, 9], [70, 3], 2, 5, window=0, layout="sliced", device=device)
    out = temporal_attention_rows(case.qkv, case.starts, case.lengths, 0)
    torch.testing.assert_close(out, case.qkv[:, 2] * ~case.of_no_video[:, None, None])
    assert all(x.is_contiguous() for x in case.outputs())


@pytest.mark.parametrize("device", DEVICES)
def test_default_scale_is_one_over_root_d(device: str) -> None:
    case = make_case([0, 1, 0], [9, 4], 2, 16, device=device)
    out = temporal_attention_rows(case.qkv, case.starts, case.lengths)
    assert torch.equal(out, OP(case.qkv, case.starts, case.lengths, None, 0.25)[0])


# ---- rows of no video ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@at_most(15)
@given(data=st.data())
def test_rows_of_no_video_are_zero_and_change_no_bit(device: str, data: st.DataObject) -> None:
    assert_rows_of_no_video_are_zero(data.draw(cases(70, max_dim=40, device=device)))


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@at_most(10)
@given(data=st.data())
def test_rows_of_no_video_in_half_precision(dtype: torch.dtype, device: str, data: st.DataObject) -> None:
    assert_rows_of_no_video_are_zero(data.draw(cases(max_dim=128, device=device)).to(dtype))


def assert_rows_of_no_video_are_zero(case: Case) -> None:
    spoilt = {name: getattr(case, name).clone() for name in ("qkv", "grad_out", "grad_lse")}
    for name, tensor in spoilt.items():
        (tensor.T if name == "grad_lse" else tensor)[case.of_no_video] = NAN
    clean, dirty = case.outputs(), dataclasses.replace(case, **spoilt).outputs()
    assert_same_bits(dirty, clean)
    for name, x in zip(NAMES, dirty, strict=True):
        assert ((x.T if name == "lse" else x)[case.of_no_video] == 0).all(), name


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_cuda_gives_the_same_bits_again_and_cuts_lengths(dtype: torch.dtype, device: str) -> None:
    case = make_case([3, 7, 0, 0], [80, 53, 64], 1, 24, 12, device=device).to(dtype)
    first = case.outputs()
    assert_same_bits(case.outputs(), first)
    # A length reaches to the next video, or to the end, at most; a negative one is 0.
    whole = make_case([3, 0, 0, 0], [87, 53, 64], 1, 24, 12, device=device).to(dtype)
    wild = dataclasses.replace(whole, lengths=torch.tensor([10**12, 53, 65], device=device))
    assert_same_bits(wild.outputs(), whole.outputs())
    none = dataclasses.replace(whole, lengths=torch.tensor([87, 0, 64], device=device))
    assert_same_bits(
        dataclasses.replace(none, lengths=torch.tensor([87, -4, 64], device=device)).outputs(), none.outputs()
    )


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("starts", [[-5, 10, 900], [90, 40, 0], [200, 201, 202], [10, 10, 10], [-(2**62), 0, 2**62]])
def test_cuda_stays_within_the_rows_whatever_the_starts(starts: list[int], dtype: torch.dtype, device: str) -> None:
    """Results are undefined, but guarded: AddressSanitizer reads this test in test_sanitized.py."""
    case = make_case([0, 0, 0, 0], [70, 30, 40], 1, 8, device=device).to(dtype)
    wrong = dataclasses.replace(case, starts=torch.tensor(starts, device=device))
    assert [x.shape for x in wrong.outputs()] == [x.shape for x in case.outputs()]


def test_one_thread_and_two_give_the_same_bits() -> None:
    case = make_case([1, 0, 70, 3], [200, 130, 5], 2, 20, 90)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.outputs()
        torch.set_num_threads(2)
        assert_same_bits(case.outputs(), alone)
    finally:
        torch.set_num_threads(before)


# ---- gradients, fake kernels, compilation --------------------------------------------------------------------------
@pytest.mark.parametrize("window", [None, 2])
def test_gradcheck_of_both_outputs(window: int | None) -> None:
    case = make_case([1, 2, 0, 1], [7, 0, 4], 1, 3, window, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: OP(x, *case.options()), [case.qkv.requires_grad_()])


@pytest.mark.parametrize("used", [0, 1])
def test_gradient_of_either_output_alone(used: int) -> None:
    case = make_case([0, 1, 2], [20, 11], 2, 6, dtype=torch.float64)
    grads = []
    for function in (OP, definition):
        leaf = case.qkv.detach().requires_grad_()
        loss = function(leaf, *case.options())[used].square().sum()
        grads.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(grads[0], grads[1])


def test_differentiating_twice_is_an_error() -> None:
    case = make_case([0, 0], [4], 1, 3)
    leaf = case.qkv.requires_grad_()
    out = temporal_attention_rows(leaf, case.starts, case.lengths)
    (grad,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck looks, on views
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["plain", "sliced"])
def test_opcheck(layout: str, device: str) -> None:
    case = make_case([0, 2, 0], [5, 0], 2, 4, 3, layout=layout, device=device)
    torch.library.opcheck(OP, (case.qkv.detach().requires_grad_(), *case.options()))
    out, lse = OP(case.qkv, *case.options())
    for grad_lse in (None, case.grad_lse):
        args = (case.grad_out, grad_lse, case.qkv, out, lse, *case.options())
        torch.library.opcheck(BACKWARD, args)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_a_graph_break(backend: str, device: str) -> None:
    def loss(qkv: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        return (temporal_attention_rows(qkv * 2, starts, lengths, window=5) * 3).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for length in (11, 12, 13):  # the second makes R symbolic
        case = make_case([0, 1, 2], [length, 4], 2, 8, device=device)
        values = []
        for function in (loss, compiled):
            leaf = case.qkv.detach().requires_grad_()
            value = function(leaf, case.starts, case.lengths)
            values.append([value.detach(), *torch.autograd.grad(value, leaf)])
        torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-4)


# ---- errors --------------------------------------------------------------------------------------------------------
GOOD = {"qkv": torch.zeros(9, 3, 1, 4), "starts": torch.tensor([0, 5]), "lengths": torch.tensor([5, 4])}
WRONG = {
    "rank": ({"qkv": torch.zeros(9, 12)}, r"qkv has shape \[9, 12\], expected \[R, 3, H, D\]"),
    "two": ({"qkv": torch.zeros(9, 2, 1, 4)}, r"qkv has shape \[9, 2, 1, 4\], expected \[R, 3, H, D\]"),
    "no D": ({"qkv": torch.zeros(9, 3, 1, 0)}, r"qkv has shape \[9, 3, 1, 0\], expected .* with D >= 1"),
    "half": ({"qkv": GOOD["qkv"].half()}, r"(q|qkv) has dtype \S+, expected .*float32.*float64"),
    "stride": ({"qkv": torch.zeros(9, 3, 4, 2).mT}, r"(q|qkv) has stride.*, expected .*contiguous\(\)"),
    "starts rank": ({"starts": torch.tensor([[0, 5]])}, r"starts has shape \[1, 2\].*, expected int64 \[B\]"),
    "starts dtype": ({"starts": torch.tensor([0.0, 5])}, r"starts has .* dtype \S+, expected int64"),
    "lengths shape": ({"lengths": torch.tensor([5])}, r"lengths has shape \[1\].*, expected int64 .*\[2\]"),
    "lengths dtype": ({"lengths": torch.tensor([5, 4]).int()}, r"lengths has .* dtype \S+, expected int64"),
    "window": ({"window": -1}, r"window is -1, expected a number of snippets >= 0, or None"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected(fault: str) -> None:
    change, message = WRONG[fault]
    args = GOOD | change
    with pytest.raises(ValueError, match="^" + message):
        temporal_attention_rows(**args)
    with pytest.raises(RuntimeError, match=message):  # the raw op guards its memory itself
        OP(args["qkv"], args["starts"], args["lengths"], args.get("window"), 1.0)


@pytest.mark.parametrize(
    ("starts", "lengths", "message"),
    [
        ([0, 4], [5, 4], r"starts\[1\] is 4, expected 5 \(where the video before it ends\) to R = 9"),  # overlap
        ([5, 0], [4, 5], r"starts\[1\] is 0, expected 9 \(where the video before it ends\) to R = 9"),  # out of order
        ([-1, 5], [5, 4], r"starts\[0\] is -1, expected 0 \(the first row\) to R = 9"),
        ([0, 10], [5, 0], r"starts\[1\] is 10, expected 5 .* to R = 9"),
        ([0, 5], [5, 5], r"lengths\[1\] is 5, expected 0 to 4, the rows from starts\[1\] to R = 9"),
        ([0, 5], [-1, 4], r"lengths\[0\] is -1, expected 0 to 9"),
        ([0, 5], [2**63 - 1, 4], r"lengths\[0\] is 9223372036854775807, expected 0 to 9"),
    ],
)
def test_videos_that_overlap_or_leave_the_rows_are_errors_on_the_cpu(
    starts: list[int], lengths: list[int], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        temporal_attention_rows(GOOD["qkv"], torch.tensor(starts), torch.tensor(lengths))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("grad_out", torch.zeros(9, 4), r"grad_out has shape \[9, 4\], expected \[R, H, D\]"),
        ("grad_out", torch.zeros(9, 1, 3), r"grad_out has shape \[1, 1, 9, 3\], expected q's shape"),
        ("out", torch.zeros(9, 1, 4).double(), r"out has dtype Double, expected q's dtype Float"),
        ("lse", torch.zeros(9), r"lse has shape \[9\], expected \[H, R\]"),
        ("lse", torch.zeros(1, 8), r"lse has shape \[1, 1, 8\], expected \[B, H, T\] of q"),
        ("grad_lse", torch.zeros(1, 9).double(), r"grad_lse has dtype Double, expected Float"),
    ],
)
def test_the_backward_op_checks_what_it_reads(name: str, value: Tensor, message: str) -> None:
    args = {"grad_out": torch.zeros(9, 1, 4), "grad_lse": None, "qkv": GOOD["qkv"], "out": torch.zeros(9, 1, 4)}
    args |= {"lse": torch.zeros(1, 9), name: value}
    with pytest.raises(RuntimeError, match=message):
        BACKWARD(*args.values(), GOOD["starts"], GOOD["lengths"], None, 1.0)


@pytest.mark.parametrize("name", ["starts", "lengths"])
def test_a_device_of_its_own_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is on meta, expected qkv's device cpu"):
        temporal_attention_rows(**GOOD | {name: GOOD[name].to("meta")})


@pytest.mark.parametrize("scale", [NAN, float("inf")])
def test_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale is (nan|inf), expected a finite number, or None"):
        temporal_attention_rows(**GOOD, scale=scale)
