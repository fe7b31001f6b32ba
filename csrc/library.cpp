// What the native code offers, as torch.ops.wtal.*. The Python face of each op is wtal/ops/<op>.py: shapes,
// units and errors are described there.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(wtal, m) {
  // q, k, v [B, H, T, D] -> out [B, H, T, D], log-sum-exp [B, H, T] (float32; float64 for float64 input)
  m.def(
      "temporal_attention(Tensor q, Tensor k, Tensor v, Tensor? lengths, int? window, float scale)"
      " -> (Tensor out, Tensor lse)");
  m.def(
      "temporal_attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor "
      "out,"
      " Tensor lse, Tensor? lengths, int? window, float scale) -> (Tensor grad_q, Tensor grad_k, Tensor "
      "grad_v)");

  // the same on a projection as it is: qkv [B, T, 3, H, D] -> out [B, T, H, D], log-sum-exp [B, H, T]
  m.def(
      "temporal_attention_packed(Tensor qkv, Tensor? lengths, int? window, float scale)"
      " -> (Tensor out, Tensor lse)");
  m.def(
      "temporal_attention_packed_backward(Tensor grad_out, Tensor? grad_lse, Tensor qkv, Tensor out, Tensor "
      "lse,"
      " Tensor? lengths, int? window, float scale) -> Tensor grad_qkv");

  // the same on rows without padding, video b in starts[b] .. starts[b] + lengths[b]:
  // qkv [R, 3, H, D] -> out [R, H, D], log-sum-exp [H, R]
  m.def(
      "temporal_attention_rows(Tensor qkv, Tensor starts, Tensor lengths, int? window, float scale)"
      " -> (Tensor out, Tensor lse)");
  m.def(
      "temporal_attention_rows_backward(Tensor grad_out, Tensor? grad_lse, Tensor qkv, Tensor out, Tensor "
      "lse,"
      " Tensor starts, Tensor lengths, int? window, float scale) -> Tensor grad_qkv");

  // scores [B, T, C], thresholds [K] -> segments [P, 2], owner [P, 3] = (video, class, threshold), score [P]
  m.def(
      "group_proposals(Tensor scores, Tensor thresholds, Tensor? lengths, Tensor? keep, int min_length,"
      " str score, bool unique, bool rescale=False) -> (Tensor segments, Tensor owner, Tensor score)");

  // segments [N, 2], scores [N], offsets [G + 1] -> kept indices [M], decayed scores [M], offsets [G + 1]
  m.def(
      "soft_nms(Tensor segments, Tensor scores, Tensor offsets, float sigma, float iou_threshold,"
      " float min_score, str method, int? max_per_group) -> (Tensor keep, Tensor scores, Tensor offsets)");

  // first, second uint8 [N, H, W] -> flow [N, H, W, 2], float32, x and y in pixels
  m.def(
      "tvl1_flow(Tensor first, Tensor second, float tau, float lam, float theta, int scales, int warps,"
      " float epsilon, int inner, int outer, float scale_step, int median) -> Tensor");
}
