// The arithmetic of temporal_attention on one CPU core, a tile of 64 queries by 64 keys at a time.
//
// In every routine one side of the tile lies across the SIMD lanes (queries, or keys for their gradients), so
// that the softmax needs no reduction across lanes, and every product of the algorithm is the one `product`
// below:
//   C[r, lane] (+)= sum_n A[r, n] * B[n, lane].
// Rows of A are packed copies, zero-padded to a multiple of 4, so no loop has a remainder. Tail lanes hold
// zeros and are never written out. Everything is templated on the vector width in bytes;
// temporal_attention.cpp picks it.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#define WTAL_INLINE inline __attribute__((always_inline))

namespace wtal::attention {

constexpr int kTile = 64;  // queries or keys in a tile

template <class T>
struct Slice {  // [T, D] of one video and head, any strides
  const T* data;
  int64_t row, column;
};

template <class T>
struct Head {  // one video and head
  Slice<T> q, k, v;
  int64_t length, window, dim;
  T scale;
  // For the gradients only; lse and delta = rowsum(grad_out * out) - grad_lse are [T].
  Slice<T> grad_out;
  Slice<T> lse;
  const T* delta;
};

inline int64_t padded(int64_t n) { return (n + 3) / 4 * 4; }
inline int64_t scratch_size(int64_t dim) { return 6 * padded(dim) * kTile + 2 * kTile * kTile + 2 * kTile; }

template <class T, int kBytes>
struct Simd {
  static constexpr int kLanes = kBytes / sizeof(T);
  typedef T vec __attribute__((vector_size(kBytes)));
};

template <class T, int kBytes>
WTAL_INLINE typename Simd<T, kBytes>::vec& lanes(T* row) {
  return *reinterpret_cast<typename Simd<T, kBytes>::vec*>(row);
}

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  using Bits = int32_t;
  static constexpr int kMantissa = 23, kBias = 127, kDegree = 7;
  static constexpr float kLowest = -87.f, kRound = 0x1.8p23f, kLn2High = 0x1.62e4p-1f,
                         kLn2Low = 0x1.7f7d1cp-20f;
};
template <>
struct ExpConstants<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kDegree = 13;
  static constexpr double kLowest = -708., kRound = 0x1.8p52, kLn2High = 0x1.62e42feep-1,
                          kLn2Low = 0x1.a39ef35793c76p-33;
};

template <class T>
constexpr auto taylor_of_exp() {
  std::array<T, ExpConstants<T>::kDegree + 1> terms{1};
  double factorial = 1;
  for (int i = 1; i <= ExpConstants<T>::kDegree; ++i) terms[i] = T(1 / (factorial *= i));
  return terms;
}

// x <- exp(x) for x <= 0 (or a rounding above): 0 below the normal range, NaN stays NaN. exp(x) = 2^n exp(r)
// with n the nearest integer to x / ln 2, which adding kRound leaves in the low bits, and the Taylor series
// of exp(r).
template <class T, int kBytes>
WTAL_INLINE void exponential(typename Simd<T, kBytes>::vec& x) {
  using C = ExpConstants<T>;
  using vec = typename Simd<T, kBytes>::vec;
  typedef typename C::Bits bits __attribute__((vector_size(kBytes)));
  const vec shifted = x * T(1.44269504088896340736) + C::kRound;
  const vec n = shifted - C::kRound;
  const vec r = (x - n * C::kLn2High) - n * C::kLn2Low;
  constexpr auto kTaylor = taylor_of_exp<T>();
  vec series = r * kTaylor[C::kDegree] + kTaylor[C::kDegree - 1];
  for (int i = C::kDegree - 2; i >= 0; --i) series = series * r + kTaylor[i];
  const vec power = (vec)(((bits)shifted + C::kBias) << C::kMantissa);
  x = x < C::kLowest ? vec{} : series * power;
}

template <class T, int kBytes>
WTAL_INLINE void product(T* c, const T* a, int64_t a_row, int64_t a_n, const T* b, int64_t rows,
                         int64_t depth, bool accumulate) {
  using vec = typename Simd<T, kBytes>::vec;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  for (int lane = 0; lane < kTile; lane += 2 * kLanes) {
    for (int64_t r = 0; r < rows; r += 4) {
      vec sum[4][2] = {};
      for (int64_t n = 0; n < depth; ++n) {
        const vec* row = reinterpret_cast<const vec*>(b + n * kTile + lane);
        for (int u = 0; u < 4; ++u) {
          const T scalar = a[(r + u) * a_row + n * a_n];
          sum[u][0] += scalar * row[0];
          sum[u][1] += scalar * row[1];
        }
      }
      for (int u = 0; u < 4; ++u) {
        vec* row = reinterpret_cast<vec*>(c + (r + u) * kTile + lane);
        row[0] = accumulate ? row[0] + sum[u][0] : sum[u][0];
        row[1] = accumulate ? row[1] + sum[u][1] : sum[u][1];
      }
    }
  }
}

// to[r, d] <- rows first .. first + count, zeros up to the next multiple of 4 rows and columns.
template <class T>
WTAL_INLINE void pack_rows(T* to, const Slice<T>& from, int64_t first, int64_t count, int64_t dim, T factor) {
  const int64_t width = padded(dim);
  for (int64_t r = 0; r < padded(count); ++r) {
    const T* row = from.data + (first + r) * from.row;
    const int64_t filled = r < count ? dim : 0;
    if (from.column == 1) {
      for (int64_t d = 0; d < filled; ++d) to[r * width + d] = row[d] * factor;
    } else {
      for (int64_t d = 0; d < filled; ++d) to[r * width + d] = row[d * from.column] * factor;
    }
    for (int64_t d = filled; d < width; ++d) to[r * width + d] = 0;
  }
}

// to[d, lane] <- rows first .. first + count, one a lane; zeros elsewhere.
template <class T>
WTAL_INLINE void pack_lanes(T* to, const Slice<T>& from, int64_t first, int64_t count, int64_t dim,
                            T factor) {
  for (int64_t d = 0; d < padded(dim); ++d) {
    for (int64_t lane = 0; lane < kTile; ++lane) {
      const bool filled = d < dim && lane < count;
      to[d * kTile + lane] = filled ? from.data[(first + lane) * from.row + d * from.column] * factor : T(0);
    }
  }
}

// to[row, d] <- from[d, lane] * factor for the rows of a tile; rows past `count` are zero.
template <class T>
WTAL_INLINE void unpack_lanes(T* to, const T* from, int64_t rows, int64_t count, int64_t dim, T factor) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) to[r * dim + d] = r < count ? from[d * kTile + r] * factor : T(0);
  }
}

// Takes what the window hides out of s[row, lane]; most tiles lie wholly inside it.
template <class T>
WTAL_INLINE void hide(T* s, int64_t row0, int64_t rows, int64_t lane0, int64_t window) {
  if (row0 + rows - 1 - lane0 <= window && lane0 + kTile - 1 - row0 <= window) return;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t low = row0 + r - window - lane0, high = row0 + r + window - lane0;
    for (int64_t lane = 0; lane < kTile; ++lane) {
      if (lane < low || lane > high) s[r * kTile + lane] = -std::numeric_limits<T>::infinity();
    }
  }
}

// A tile's part in its sequence: `rows` inside [0, T), of which the first `count` lie inside the video, and
// the range of the other side that they see.
struct Extent {
  int64_t rows, count, begin, end;
  Extent(int64_t first, int64_t total, int64_t length, int64_t window)
      : rows(total - first < kTile ? total - first : kTile),
        count(length <= first ? 0 : (length - first < rows ? length - first : rows)),
        begin(first > window ? first - window : 0),
        end(count == 0 ? begin : (first + count + window < length ? first + count + window : length)) {}
};

// out[first .., :] and lse[first ..] of one tile of queries. out [T, D] and lse [T] are contiguous.
template <class T, int kBytes>
WTAL_INLINE void forward_tile(const Head<T>& head, int64_t first, int64_t total, T* out, T* lse, T* scratch) {
  using vec = typename Simd<T, kBytes>::vec;
  const Extent tile(first, total, head.length, head.window);
  const int64_t dim = head.dim, width = padded(dim);
  T *q = scratch, *o = q + width * kTile, *k = o + width * kTile, *v = k + width * kTile,
    *s = v + width * kTile, *peak = s + kTile * kTile, *sum = peak + kTile;
  pack_lanes(q, head.q, first, tile.count, dim, head.scale);
  for (int64_t n = 0; n < width * kTile; ++n) o[n] = 0;
  for (int lane = 0; lane < kTile; ++lane) peak[lane] = std::numeric_limits<T>::lowest(), sum[lane] = 0;

  for (int64_t j = tile.begin; j < tile.end; j += kTile) {
    const int64_t keys = tile.end - j < kTile ? tile.end - j : kTile;
    pack_rows(k, head.k, j, keys, dim, T(1));
    pack_rows(v, head.v, j, keys, dim, T(1));
    product<T, kBytes>(s, k, width, 1, q, padded(keys), dim, false);
    hide(s, j, keys, first, head.window);
    for (int lane = 0; lane < kTile; lane += Simd<T, kBytes>::kLanes) {
      const vec old_top = lanes<T, kBytes>(peak + lane);
      vec top = old_top;
      for (int64_t r = 0; r < keys; ++r) {
        const vec& score = lanes<T, kBytes>(s + r * kTile + lane);
        top = score > top ? score : top;
      }
      vec decay = old_top - top;
      exponential<T, kBytes>(decay);
      vec total_weight = lanes<T, kBytes>(sum + lane) * decay;
      for (int64_t r = 0; r < keys; ++r) {
        vec& weight = lanes<T, kBytes>(s + r * kTile + lane);
        weight -= top;
        exponential<T, kBytes>(weight);
        total_weight += weight;
      }
      lanes<T, kBytes>(peak + lane) = top;
      lanes<T, kBytes>(sum + lane) = total_weight;
      for (int64_t d = 0; d < width; ++d) lanes<T, kBytes>(o + d * kTile + lane) *= decay;
    }
    product<T, kBytes>(o, v, 1, width, s, width, keys, true);
  }

  for (int64_t r = 0; r < tile.rows; ++r) {
    const bool live = r < tile.count;
    const T inverse = T(1) / sum[r];
    for (int64_t d = 0; d < dim; ++d) out[(first + r) * dim + d] = live ? o[d * kTile + r] * inverse : T(0);
    lse[first + r] = live ? peak[r] + std::log(sum[r]) : T(0);
  }
}

// grad_q[first .., :] of one tile of queries: a pass over its keys.
template <class T, int kBytes>
WTAL_INLINE void grad_q_tile(const Head<T>& head, int64_t first, int64_t total, T* grad_q, T* scratch) {
  using vec = typename Simd<T, kBytes>::vec;
  const Extent tile(first, total, head.length, head.window);
  const int64_t dim = head.dim, width = padded(dim);
  T *q = scratch, *grad_out = q + width * kTile, *dq = grad_out + width * kTile, *k = dq + width * kTile,
    *v = k + width * kTile, *s = v + width * kTile, *dp = s + kTile * kTile, *lse = dp + kTile * kTile,
    *delta = lse + kTile;
  pack_lanes(q, head.q, first, tile.count, dim, head.scale);
  pack_lanes(grad_out, head.grad_out, first, tile.count, dim, T(1));
  for (int64_t n = 0; n < width * kTile; ++n) dq[n] = 0;
  for (int64_t lane = 0; lane < kTile; ++lane) {
    lse[lane] = lane < tile.count ? head.lse.data[(first + lane) * head.lse.row] : T(0);
    delta[lane] = lane < tile.count ? head.delta[first + lane] : T(0);
  }
  for (int64_t j = tile.begin; j < tile.end; j += kTile) {
    const int64_t keys = tile.end - j < kTile ? tile.end - j : kTile;
    pack_rows(k, head.k, j, keys, dim, T(1));
    pack_rows(v, head.v, j, keys, dim, T(1));
    product<T, kBytes>(s, k, width, 1, q, padded(keys), dim, false);
    product<T, kBytes>(dp, v, width, 1, grad_out, padded(keys), dim, false);
    hide(s, j, keys, first, head.window);
    for (int lane = 0; lane < kTile; lane += Simd<T, kBytes>::kLanes) {
      for (int64_t r = 0; r < keys; ++r) {
        vec weight = lanes<T, kBytes>(s + r * kTile + lane) - lanes<T, kBytes>(lse + lane);
        exponential<T, kBytes>(weight);
        lanes<T, kBytes>(s + r * kTile + lane) =
            weight * (lanes<T, kBytes>(dp + r * kTile + lane) - lanes<T, kBytes>(delta + lane));
      }
    }
    product<T, kBytes>(dq, k, 1, width, s, width, keys, true);
  }
  unpack_lanes(grad_q + first * dim, dq, tile.rows, tile.count, dim, head.scale);
}

// grad_k[first .., :] and grad_v[first .., :] of one tile of keys: a pass over the queries that see it.
template <class T, int kBytes>
WTAL_INLINE void grad_kv_tile(const Head<T>& head, int64_t first, int64_t total, T* grad_k, T* grad_v,
                              T* scratch) {
  using vec = typename Simd<T, kBytes>::vec;
  const Extent tile(first, total, head.length, head.window);
  const int64_t dim = head.dim, width = padded(dim);
  T *k = scratch, *v = k + width * kTile, *dk = v + width * kTile, *dv = dk + width * kTile,
    *q = dv + width * kTile, *grad_out = q + width * kTile, *s = grad_out + width * kTile,
    *dp = s + kTile * kTile;
  pack_lanes(k, head.k, first, tile.count, dim, T(1));
  pack_lanes(v, head.v, first, tile.count, dim, T(1));
  for (int64_t n = 0; n < width * kTile; ++n) dk[n] = dv[n] = 0;
  for (int64_t i = tile.begin; i < tile.end; i += kTile) {
    const int64_t queries = tile.end - i < kTile ? tile.end - i : kTile;
    pack_rows(q, head.q, i, queries, dim, head.scale);
    pack_rows(grad_out, head.grad_out, i, queries, dim, T(1));
    product<T, kBytes>(s, q, width, 1, k, padded(queries), dim, false);
    product<T, kBytes>(dp, grad_out, width, 1, v, padded(queries), dim, false);
    hide(s, i, queries, first, head.window);
    for (int64_t r = 0; r < queries; ++r) {
      const T lse = head.lse.data[(i + r) * head.lse.row], delta = head.delta[i + r];
      for (int lane = 0; lane < kTile; lane += Simd<T, kBytes>::kLanes) {
        vec& weight = lanes<T, kBytes>(s + r * kTile + lane);
        weight -= lse;
        exponential<T, kBytes>(weight);
        vec& grad = lanes<T, kBytes>(dp + r * kTile + lane);
        grad = weight * (grad - delta);
      }
    }
    product<T, kBytes>(dv, grad_out, 1, width, s, width, queries, true);
    product<T, kBytes>(dk, q, 1, width, dp, width, queries, true);
  }
  unpack_lanes(grad_k + first * dim, dk, tile.rows, tile.count, dim, T(1));
  unpack_lanes(grad_v + first * dim, dv, tile.rows, tile.count, dim, T(1));
}

}  // namespace wtal::attention
