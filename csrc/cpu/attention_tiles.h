// temporal_attention of one video and head on one CPU core, one tile of queries by keys at a time.
//
// The lanes of scores s[key, query] are queries, so that the softmax needs no reduction across lanes. The
// lanes of the products with s are the head dimension; these products read q, k, v and grad_out in place.
// Scores that the window hides from a whole block of rows are not computed.
//
// q is multiplied by scale / ln 2, so that scores need exp2, which is cheaper than exp.
#pragma once
#include "cpu/attention_simd.h"

namespace wtal::attention {

constexpr int64_t kTile = 64;               // maximum number of queries in a tile
constexpr int64_t kScores = kTile * kTile;  // scores in a tile: narrow tiles have more keys

template <class T>
struct Slice {  // [T, D] of one video and head, any strides
  const T* data;
  int64_t row, column;
};

template <class T>
struct Output {  // a slice to write; the columns are contiguous
  T* data;
  int64_t row;
};

template <class T>
struct Head {  // one video and head: `length` rows; the rows after them, up to `total`, are cleared
  int64_t length, total, window, dim;
  T scale;
  Slice<T> q, k, v;
};

template <class T>
struct HeadGradients {  // further inputs and outputs of the backward pass; lse and grad_lse are [T]
  Slice<T> grad_out, out, lse, grad_lse;  // grad_lse.data may be null
  Output<T> grad_q, grad_k, grad_v;
};

template <class T>
struct Rows {  // consecutive rows in memory that can be read in whole vectors
  const T* data;
  int64_t stride;
};

// Number of queries per tile. With a narrow window most of a tile is at the edge, so narrow tiles waste less.
inline int64_t tile_lanes(int64_t length, int64_t window) {
  const int64_t reach = std::min(length - 1, window);
  return reach < 12 ? kTile / 4 : reach < 48 ? kTile / 2 : kTile;
}

constexpr int64_t kWidest = 64 / sizeof(float);  // lanes of the widest vector
inline int64_t padded(int64_t dim) { return (dim + kWidest - 1) / kWidest * kWidest; }
// Scratch memory, in elements. Rows that are read in place need no memory, but this depends on the vector
// width.
inline int64_t forward_room(int64_t dim) {
  return padded(dim) * (2 * kTile + 2 * 4 * kTile) + kScores + 3 * kTile;
}
inline int64_t backward_room(int64_t dim, int64_t longest) {
  return padded(dim) * (6 * kTile + 2 * 4 * kTile + 2 * longest) + 2 * kScores + 2 * kTile;
}

template <class T, int kBytes>
WTAL_INLINE bool whole_vectors(int64_t dim) {
  return dim % Simd<T, kBytes>::kLanes == 0;
}

template <class T, int kBytes>
WTAL_INLINE Rows<T> fetch(const Slice<T>& from, int64_t first, int64_t count, int64_t dim, T* room) {
  const T* data = from.data + first * from.row;
  if (from.column == 1 && whole_vectors<T, kBytes>(dim)) return {data, from.row};
  const int64_t width = padded(dim);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t d = 0; d < dim; ++d) room[r * width + d] = data[r * from.row + d * from.column];
    for (int64_t d = dim; d < width; ++d) room[r * width + d] = 0;
  }
  return {room, width};
}

// to[d, lane] <- rows[lane, d] * factor; zeros in the lanes from `count` on.
template <class T, int kBytes>
WTAL_INLINE void lay_across(T* to, const Rows<T>& rows, int64_t count, int64_t lanes, int64_t dim, T factor) {
  using vec = typename Simd<T, kBytes>::vec;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  for (int64_t lane = 0; lane < lanes; lane += kLanes) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      vec block[kLanes];
      if (lane + kLanes <= count) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          block[i] = lanes_at<T, kBytes>(rows.data + (lane + i) * rows.stride + d) * factor;
        }
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          block[i] = vec{};
          if (lane + i < count)
            block[i] = lanes_at<T, kBytes>(rows.data + (lane + i) * rows.stride + d) * factor;
        }
      }
      transpose<T, kBytes>(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) lanes_at<T, kBytes>(to + (d + i) * lanes + lane) = block[i];
    }
  }
}

template <class T, int kBytes>
WTAL_INLINE void lane_numbers(typename Simd<T, kBytes>::vec& x) {
  for (int i = 0; i < Simd<T, kBytes>::kLanes; ++i) x[i] = T(i);
}

// The rows that a vector of lanes sees, which begins at lane `first` of the tile; and the mask for other
// rows.
template <class T, int kBytes>
struct Edges {
  int64_t low, high;  // row r sees lanes low + r .. high + r of the vector
  WTAL_INLINE Edges(int64_t first, const Band& band)
      : low(band.shift - band.window - first), high(band.shift + band.window - first) {}
  WTAL_INLINE int64_t begin() const { return std::max<int64_t>(0, -high); }
  WTAL_INLINE int64_t end(int64_t rows) const {
    return std::max(begin(), std::min(rows, Simd<T, kBytes>::kLanes - low));
  }
  WTAL_INLINE bool cut(int64_t r) const { return low + r > 0 || high + r < Simd<T, kBytes>::kLanes - 1; }
  WTAL_INLINE void apply_mask(typename Simd<T, kBytes>::vec& score, const typename Simd<T, kBytes>::vec& lane,
                              int64_t r) const {
    const T infinity = std::numeric_limits<T>::infinity();
    score = lane >= T(low + r) ? score : -infinity;
    score = lane <= T(high + r) ? score : -infinity;
  }
};

// s[row, lane] -> 2^(s - row_max) for one vector of lanes and all rows, zero where hidden. row_max, sum and
// decay (the factor for the weights of earlier tiles) are [lanes].
template <class T, int kBytes>
WTAL_INLINE void online_softmax(T* s, int64_t rows, int64_t lanes, int64_t first, const Band& band,
                                T* row_max, T* sum, T* decay) {
  using vec = typename Simd<T, kBytes>::vec;
  const Edges<T, kBytes> edges(first, band);
  const int64_t begin = edges.begin(), end = edges.end(rows);
  vec lane;
  lane_numbers<T, kBytes>(lane);
  T* column = s + first;
  for (int64_t r = 0; r < std::min(begin, rows); ++r) lanes_at<T, kBytes>(column + r * lanes) = vec{};
  for (int64_t r = end; r < rows; ++r) lanes_at<T, kBytes>(column + r * lanes) = vec{};
  const vec before = lanes_at<T, kBytes>(row_max + first);
  vec top = before;
  for (int64_t r = begin; r < end; ++r) {
    vec score = lanes_at<T, kBytes>(column + r * lanes);
    if (edges.cut(r)) {
      edges.apply_mask(score, lane, r);
      lanes_at<T, kBytes>(column + r * lanes) = score;
    }
    top = score > top ? score : top;
  }
  vec shrink = before - top;
  exp2<T, kBytes>(shrink);
  vec total = lanes_at<T, kBytes>(sum + first) * shrink;
  for (int64_t r = begin; r < end; ++r) {
    vec weight = lanes_at<T, kBytes>(column + r * lanes) - top;
    exp2<T, kBytes>(weight);
    total += weight;
    lanes_at<T, kBytes>(column + r * lanes) = weight;
  }
  lanes_at<T, kBytes>(row_max + first) = top;
  lanes_at<T, kBytes>(sum + first) = total;
  lanes_at<T, kBytes>(decay + first) = shrink;
}

template <class T, int kBytes>
WTAL_INLINE void multiply_rows(T* rows, int64_t stride, int64_t count, int64_t width, const T* factors) {
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t d = 0; d < width; d += Simd<T, kBytes>::kLanes) {
      lanes_at<T, kBytes>(rows + r * stride + d) *= factors[r];
    }
  }
}

template <class T>
WTAL_INLINE void copy_rows(const Output<T>& to, const T* from, int64_t width, int64_t first, int64_t count,
                           int64_t dim) {
  for (int64_t r = 0; r < count; ++r) std::copy_n(from + r * width, dim, to.data + (first + r) * to.row);
}
template <class T>
WTAL_INLINE void clear_rows(const Output<T>& to, int64_t first, int64_t end, int64_t dim) {
  for (int64_t r = first; r < end; ++r) std::fill_n(to.data + r * to.row, dim, T(0));
}

// The keys that a tile of queries sees, in equal parts that fit the memory for scores.
struct Keys {
  int64_t begin, end, step;
  WTAL_INLINE Keys(int64_t first, int64_t queries, int64_t length, int64_t window, int64_t lanes)
      : begin(first > window ? first - window : 0), end(std::min(length, first + queries + window)) {
    const int64_t most = std::min<int64_t>(kScores / lanes, 4 * kTile),
                  parts = (end - begin + most - 1) / most;
    step = (end - begin + parts - 1) / parts;
  }
};

// Computes out[first .., :] and lse[first ..] for the queries first .. first + lanes; lse is contiguous.
template <class T, int kBytes>
WTAL_INLINE void forward_tile(const Head<T>& head, int64_t first, int64_t lanes, const Output<T>& out, T* lse,
                              T* scratch) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  const int64_t dim = head.dim, room = padded(dim), last = std::min(first + lanes, head.total);
  const int64_t count = std::clamp<int64_t>(head.length - first, 0, last - first);
  clear_rows(out, first + count, last, dim);
  std::fill(lse + first + count, lse + last, T(0));
  if (count == 0) return;
  const int64_t width = (dim + kLanes - 1) / kLanes * kLanes;
  T *q = scratch, *sums = q + room * kTile, *k_room = sums + room * kTile,
    *v_room = k_room + 4 * kTile * room, *s = v_room + 4 * kTile * room, *row_max = s + kScores,
    *sum = row_max + kTile, *decay = sum + kTile;
  const bool direct = whole_vectors<T, kBytes>(dim);
  T* o = direct ? out.data + first * out.row : sums;
  const int64_t o_row = direct ? out.row : room;
  lay_across<T, kBytes>(q, fetch<T, kBytes>(head.q, first, count, dim, k_room), count, lanes, dim,
                        head.scale * T(1.44269504088896340736));
  std::fill_n(row_max, lanes, std::numeric_limits<T>::lowest());
  std::fill_n(sum, lanes, T(0));

  const Keys keys(first, count, head.length, head.window, lanes);
  for (int64_t j = keys.begin; j < keys.end; j += keys.step) {
    const int64_t rows = std::min(keys.step, keys.end - j);
    const Rows<T> k = fetch<T, kBytes>(head.k, j, rows, dim, k_room);
    const Rows<T> v = fetch<T, kBytes>(head.v, j, rows, dim, v_room);
    const Band of_keys{j - first, head.window}, of_queries{first - j, head.window};
    score<T, kBytes>(s, k.data, k.stride, q, lanes, rows, dim, of_keys);
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      online_softmax<T, kBytes>(s, rows, lanes, lane, of_keys, row_max, sum, decay);
    }
    if (j != keys.begin) multiply_rows<T, kBytes>(o, o_row, count, width, decay);
    collect<T, kBytes, false>(o, o_row, s, lanes, v.data, v.stride, count, width, rows, j != keys.begin,
                              of_queries);
  }
  for (int64_t r = 0; r < count; ++r) {
    lse[first + r] = (row_max[r] + std::log2(sum[r])) * T(0.69314718055994530942);
    decay[r] = T(1) / sum[r];
  }
  multiply_rows<T, kBytes>(o, o_row, count, width, decay);
  if (!direct) copy_rows(out, o, o_row, first, count, dim);
}

// s[row, lane] <- weight = 2^(s - lse) and dp[row, lane] <- weight * (dp - delta) * scale, for one vector of
// lanes.
template <class T, int kBytes>
WTAL_INLINE void differentiate(T* s, T* dp, int64_t rows, int64_t lanes, int64_t first, const Band& band,
                               const T* lse, const T* delta, T scale) {
  using vec = typename Simd<T, kBytes>::vec;
  const Edges<T, kBytes> edges(first, band);
  const int64_t begin = edges.begin(), end = edges.end(rows);
  vec lane;
  lane_numbers<T, kBytes>(lane);
  for (int64_t r = 0; r < rows; ++r) {
    if (r == begin) r = end;
    if (r >= rows) break;
    lanes_at<T, kBytes>(s + r * lanes + first) = vec{};
    lanes_at<T, kBytes>(dp + r * lanes + first) = vec{};
  }
  const vec shift = lanes_at<T, kBytes>(lse + first), mean = lanes_at<T, kBytes>(delta + first);
  for (int64_t r = begin; r < end; ++r) {
    vec weight = lanes_at<T, kBytes>(s + r * lanes + first) - shift;
    if (edges.cut(r)) edges.apply_mask(weight, lane, r);
    exp2<T, kBytes>(weight);
    lanes_at<T, kBytes>(s + r * lanes + first) = weight;
    lanes_at<T, kBytes>(dp + r * lanes + first) =
        weight * scale * (lanes_at<T, kBytes>(dp + r * lanes + first) - mean);
  }
}

// delta = rowsum(grad_out * out) - grad_lse, and lse / ln 2, for a tile of queries.
template <class T, int kBytes>
WTAL_INLINE void read_statistics(const HeadGradients<T>& grads, const Rows<T>& grad_out, const Rows<T>& out,
                                 int64_t first, int64_t count, int64_t lanes, int64_t width, T* lse,
                                 T* delta) {
  using vec = typename Simd<T, kBytes>::vec;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  std::fill_n(lse, lanes, T(0));
  std::fill_n(delta, lanes, T(0));
  for (int64_t r = 0; r < count; ++r) {
    vec sum{};
    for (int64_t d = 0; d < width; d += kLanes) {
      sum += lanes_at<T, kBytes>(grad_out.data + r * grad_out.stride + d) *
             lanes_at<T, kBytes>(out.data + r * out.stride + d);
    }
    T total = grads.grad_lse.data ? -grads.grad_lse.data[(first + r) * grads.grad_lse.row] : T(0);
    for (int i = 0; i < kLanes; ++i) total += sum[i];
    delta[r] = total;
    lse[r] = grads.lse.data[(first + r) * grads.lse.row] * T(1.44269504088896340736);
  }
}

// All gradients of one video and head in one pass over its tiles. The outer loop is over queries, the inner
// loop over keys: grad_q is complete after a tile of queries, and each tile adds to grad_k and grad_v.
template <class T, int kBytes>
WTAL_INLINE void backward_head(const Head<T>& head, const HeadGradients<T>& grads, int64_t lanes,
                               T* scratch) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  const int64_t dim = head.dim, room = padded(dim), width = (dim + kLanes - 1) / kLanes * kLanes;
  const bool direct = whole_vectors<T, kBytes>(dim);
  T *q = scratch, *g = q + room * kTile, *q_room = g + room * kTile, *g_room = q_room + room * kTile,
    *o_room = g_room + room * kTile, *dq_room = o_room + room * kTile, *k_room = dq_room + room * kTile,
    *v_room = k_room + 4 * room * kTile, *s = v_room + 4 * room * kTile, *dp = s + kScores,
    *lse = dp + kScores, *delta = lse + kTile, *dk_room = delta + kTile,
    *dv_room = dk_room + room * head.length;
  const Output<T> grad_k = direct ? grads.grad_k : Output<T>{dk_room, room};
  const Output<T> grad_v = direct ? grads.grad_v : Output<T>{dv_room, room};
  clear_rows(grad_k, 0, direct ? head.total : head.length, width);
  clear_rows(grad_v, 0, direct ? head.total : head.length, width);
  clear_rows(grads.grad_q, head.length, head.total, dim);

  for (int64_t first = 0; first < head.length; first += lanes) {
    const int64_t count = std::min(lanes, head.length - first);
    const Rows<T> q_rows = fetch<T, kBytes>(head.q, first, count, dim, q_room);
    const Rows<T> g_rows = fetch<T, kBytes>(grads.grad_out, first, count, dim, g_room);
    const Rows<T> o_rows = fetch<T, kBytes>(grads.out, first, count, dim, o_room);
    lay_across<T, kBytes>(q, q_rows, count, lanes, dim, head.scale * T(1.44269504088896340736));
    lay_across<T, kBytes>(g, g_rows, count, lanes, dim, T(1));
    read_statistics<T, kBytes>(grads, g_rows, o_rows, first, count, lanes, width, lse, delta);
    T* dq = direct ? grads.grad_q.data + first * grads.grad_q.row : dq_room;
    const int64_t dq_row = direct ? grads.grad_q.row : room;

    const Keys keys(first, count, head.length, head.window, lanes);
    for (int64_t j = keys.begin; j < keys.end; j += keys.step) {
      const int64_t rows = std::min(keys.step, keys.end - j);
      const Rows<T> k = fetch<T, kBytes>(head.k, j, rows, dim, k_room);
      const Rows<T> v = fetch<T, kBytes>(head.v, j, rows, dim, v_room);
      const Band of_keys{j - first, head.window}, of_queries{first - j, head.window};
      score<T, kBytes>(s, k.data, k.stride, q, lanes, rows, dim, of_keys);
      score<T, kBytes>(dp, v.data, v.stride, g, lanes, rows, dim, of_keys);
      for (int64_t lane = 0; lane < lanes; lane += kLanes) {
        differentiate<T, kBytes>(s, dp, rows, lanes, lane, of_keys, lse, delta, head.scale);
      }
      T *dk = grad_k.data + j * grad_k.row, *dv = grad_v.data + j * grad_v.row;
      collect<T, kBytes, true>(dv, grad_v.row, s, lanes, g_rows.data, g_rows.stride, rows, width, count, true,
                               of_keys);
      collect<T, kBytes, true>(dk, grad_k.row, dp, lanes, q_rows.data, q_rows.stride, rows, width, count,
                               true, of_keys);
      collect<T, kBytes, false>(dq, dq_row, dp, lanes, k.data, k.stride, count, width, rows, j != keys.begin,
                                of_queries);
    }
    if (!direct) copy_rows(grads.grad_q, dq_room, room, first, count, dim);
  }
  if (!direct) {
    copy_rows(grads.grad_k, dk_room, room, 0, head.length, dim);
    copy_rows(grads.grad_v, dv_room, room, 0, head.length, dim);
    clear_rows(grads.grad_k, head.length, head.total, dim);
    clear_rows(grads.grad_v, head.length, head.total, dim);
  }
}

}  // namespace wtal::attention
