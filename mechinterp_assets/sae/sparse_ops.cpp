// CPU kernels behind sparse_ops.py and relu_ops.py, registered as torch.ops.mechinterp_sparse.*.
//
// Every output element is summed by one thread in a fixed order, so results do not depend on the
// number of threads. Loops are written for the compiler's vectoriser, but for one. Entries of a row
// (or of a feature) are those from starts[i] to starts[i + 1].

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <tuple>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using at::BFloat16;

constexpr int64_t LANES = 16;
constexpr int32_t LOWEST = std::numeric_limits<int32_t>::min();
constexpr int32_t NAN_KEY = std::numeric_limits<int32_t>::max();

void check(const Tensor& t, at::ScalarType dtype, int64_t dims, const char* name) {
  TORCH_CHECK(t.device().is_cpu() && t.is_contiguous() && t.scalar_type() == dtype && t.dim() == dims,
              name, " must be a contiguous CPU tensor of ", dims, " dimensions and type ", dtype);
}

void check_floats(const Tensor& t, int64_t dims, const char* name) {
  check(t, at::kFloat, dims, name);
}

// Starts must rise from 0 to the number of entries.
const int64_t* checked_starts(const Tensor& starts, int64_t entries) {
  check(starts, at::kLong, 1, "starts");
  const int64_t* s = starts.const_data_ptr<int64_t>();
  const int64_t n = starts.size(0);
  bool rising = n > 0 && s[0] == 0 && s[n - 1] == entries;
  for (int64_t i = 1; i < n; i++) rising &= s[i] >= s[i - 1];
  TORCH_CHECK(rising, "starts must rise from 0 to the number of entries, ", entries);
  return s;
}

const int64_t* checked_index(const Tensor& index, int64_t limit, const char* name) {
  const int64_t* p = index.const_data_ptr<int64_t>();
  int64_t low = 0, high = -1;
  for (int64_t i = 0; i < index.numel(); i++) {
    low = std::min(low, p[i]);
    high = std::max(high, p[i]);
  }
  TORCH_CHECK(low >= 0 && high < limit, name, " span ", low, "..", high, ", outside 0..", limit - 1);
  return p;
}

int64_t grain(int64_t work_per_item) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, work_per_item)); }

// ---- order of floats as integers ----------------------------------------------------------------

// Rises with the float; NaN of either sign above everything.
inline int32_t ordered(int32_t bits) {
  const int32_t key = bits ^ ((bits >> 31) & 0x7fffffff);
  return (bits & 0x7fffffff) > 0x7f800000 ? NAN_KEY : key;
}

inline int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}

void row_keys(const float* row, int64_t n, int32_t* keys) {
  const int32_t* bits = reinterpret_cast<const int32_t*>(row);
  for (int64_t i = 0; i < n; i++) keys[i] = ordered(bits[i]);
}

void row_keys(const uint16_t* row, int64_t n, int32_t* keys) {
  for (int64_t i = 0; i < n; i++) keys[i] = ordered(static_cast<int32_t>(static_cast<uint32_t>(row[i]) << 16));
}

// Keys of one row, padded with LOWEST to whole lanes, on a cache line's boundary.
class Keys {
 public:
  explicit Keys(int64_t n) : memory_((n + LANES - 1) / LANES * LANES + LANES, LOWEST) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    first_ = memory_.data() + ((64 - address % 64) % 64) / sizeof(int32_t);
  }
  int32_t* data() { return first_; }
  int32_t& operator[](int64_t i) { return first_[i]; }

 private:
  std::vector<int32_t> memory_;
  int32_t* first_;
};

int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// A key that at least k of the row's keys reach, close to the k-th largest: the k-th largest, or a
// little less, of the maxima of small groups. keys is padded with LOWEST to a multiple of LANES.
int32_t lower_bound_of_kth(const int32_t* keys, int64_t n, int64_t k, std::vector<int32_t>& maxima) {
  const int64_t vectors = padded(n) / LANES;
  const int64_t group = std::clamp<int64_t>(n / (12 * k), 1, 16);
  const int64_t groups = (vectors + group - 1) / group, m = groups * LANES;
  maxima.resize(m);
  for (int64_t g = 0; g < groups; g++) {
    alignas(64) int32_t most[LANES];
    std::fill_n(most, LANES, LOWEST);
    const int64_t end = std::min(vectors, (g + 1) * group);
    for (int64_t v = g * group; v < end; v++) {
      const int32_t* here = keys + v * LANES;
#pragma omp simd
      for (int64_t lane = 0; lane < LANES; lane++) most[lane] = std::max(most[lane], here[lane]);
    }
    std::copy_n(most, LANES, maxima.data() + g * LANES);
  }
  int32_t least = NAN_KEY, greatest = LOWEST;
  for (int64_t i = 0; i < m; i++) {
    least = std::min(least, maxima[i]);
    greatest = std::max(greatest, maxima[i]);
  }
  // bisection: low is always reached by at least k maxima
  int64_t low = least, high = greatest;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    const int32_t bar = static_cast<int32_t>(middle);
    int32_t count = 0;
    for (int64_t i = 0; i < m; i++) count += maxima[i] >= bar;
    if (count >= k) {
      low = middle;
      if (count <= k + k / 8) break;
    } else {
      high = middle - 1;
    }
  }
  return static_cast<int32_t>(low);
}

// Which of LANES keys reach the bar, one bit each.
inline uint32_t reached(const int32_t* keys, int32_t bar) {
#ifdef __AVX512F__
  return _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys), _mm512_set1_epi32(bar));
#else
  uint32_t mask = 0;
  for (int64_t lane = 0; lane < LANES; lane++) mask |= static_cast<uint32_t>(keys[lane] >= bar) << lane;
  return mask;
#endif
}

// Indices, ascending, whose key reaches the bar. The padding, LOWEST, must not reach it.
void reaching(const int32_t* keys, int64_t n, int32_t bar, std::vector<int64_t>& found) {
  found.clear();
  for (int64_t i = 0; i < n; i += LANES)
    for (uint32_t mask = reached(keys + i, bar); mask; mask &= mask - 1)
      found.push_back(i + __builtin_ctz(mask));
}

// The k largest of the candidates, ascending by index; of equal keys those of lower index.
// keys[j] belongs to candidates[j].
void keep_largest(const std::vector<int64_t>& candidates, const std::vector<int32_t>& keys, int64_t k,
                  std::vector<int32_t>& scratch, std::vector<int64_t>& kept) {
  kept.clear();
  const int64_t m = static_cast<int64_t>(candidates.size());
  int32_t bar = LOWEST;
  int64_t equal = m;  // how many at the bar may still be kept
  if (m > k) {
    scratch = keys;
    std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<int32_t>());
    bar = scratch[k - 1];
    int64_t above = 0;
    for (int64_t j = 0; j < m; j++) above += keys[j] > bar;
    equal = k - above;
  }
  for (int64_t j = 0; j < m && static_cast<int64_t>(kept.size()) < k; j++) {
    if (keys[j] > bar) kept.push_back(j);
    else if (keys[j] == bar && equal > 0) { kept.push_back(j); equal--; }
  }
}

inline float stored(const float* row, int64_t i) { return row[i]; }
inline float stored(const uint16_t* row, int64_t i) { return widen(row[i]); }

template <typename Stored>
void topk_of_rows(const Stored* pre, int64_t n, int64_t width, int64_t k, float* values, int64_t* features) {
  at::parallel_for(0, n, grain(width), [&](int64_t begin, int64_t end) {
    Keys keys(width);
    std::vector<int32_t> maxima, scratch, candidate_keys;
    std::vector<int64_t> candidates, kept;
    for (int64_t row = begin; row < end; row++) {
      const Stored* here = pre + row * width;
      row_keys(here, width, keys.data());
      reaching(keys.data(), width, lower_bound_of_kth(keys.data(), width, k, maxima), candidates);
      candidate_keys.clear();
      for (int64_t i : candidates) candidate_keys.push_back(keys[i]);
      keep_largest(candidates, candidate_keys, k, scratch, kept);
      for (int64_t j = 0; j < k; j++) {
        features[row * k + j] = candidates[kept[j]];
        values[row * k + j] = stored(here, candidates[kept[j]]);
      }
    }
  });
}

std::tuple<Tensor, Tensor> topk_rows(const Tensor& pre, int64_t k) {
  TORCH_CHECK(pre.dim() == 2 && pre.is_contiguous() && pre.device().is_cpu(), "pre must be a contiguous CPU matrix");
  TORCH_CHECK(pre.scalar_type() == at::kFloat || pre.scalar_type() == at::kBFloat16, "pre must be float32 or bfloat16");
  const int64_t n = pre.size(0), width = pre.size(1);
  TORCH_CHECK(0 < k && k <= width, "k is ", k, " but rows have ", width, " values");
  Tensor values = at::empty({n, k}, pre.options().dtype(at::kFloat));
  Tensor features = at::empty({n, k}, pre.options().dtype(at::kLong));
  float* v = values.mutable_data_ptr<float>();
  int64_t* f = features.mutable_data_ptr<int64_t>();
  if (pre.scalar_type() == at::kFloat)
    topk_of_rows(pre.const_data_ptr<float>(), n, width, k, v, f);
  else
    topk_of_rows(reinterpret_cast<const uint16_t*>(pre.const_data_ptr<BFloat16>()), n, width, k, v, f);
  return {values, features};
}

// ---- rows ---------------------------------------------------------------------------------------

inline float dot(const float* a, const float* b, int64_t d) {
  float sum = 0;
  for (int64_t c = 0; c < d; c++) sum += a[c] * b[c];
  return sum;
}

// Four at once: one long chain of additions would wait for itself.
inline void dot4(const float* a, const float* b0, const float* b1, const float* b2, const float* b3, int64_t d, float* out) {
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (int64_t c = 0; c < d; c++) {
    s0 += a[c] * b0[c];
    s1 += a[c] * b1[c];
    s2 += a[c] * b2[c];
    s3 += a[c] * b3[c];
  }
  out[0] = s0; out[1] = s1; out[2] = s2; out[3] = s3;
}

// out[j] = a . table[index[j]]
void dots_with(const float* a, const float* table, const int64_t* index, int64_t m, int64_t d, float* out) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4)
    dot4(a, table + index[j] * d, table + index[j + 1] * d, table + index[j + 2] * d, table + index[j + 3] * d, d, out + j);
  for (; j < m; j++) out[j] = dot(a, table + index[j] * d, d);
}

// out += sum_j weights[j] table[index[j]]; indices and weights through two functions of j
template <typename Index, typename Weight>
void add_weighted(const float* table, Index index, Weight weight, int64_t begin, int64_t end, int64_t d, float* out) {
  int64_t j = begin;
  for (; j + 4 <= end; j += 4) {
    const float *r0 = table + index(j) * d, *r1 = table + index(j + 1) * d;
    const float *r2 = table + index(j + 2) * d, *r3 = table + index(j + 3) * d;
    const float w0 = weight(j), w1 = weight(j + 1), w2 = weight(j + 2), w3 = weight(j + 3);
    for (int64_t c = 0; c < d; c++) out[c] += (w0 * r0[c] + w1 * r1[c]) + (w2 * r2[c] + w3 * r3[c]);
  }
  for (; j < end; j++) {
    const float* r = table + index(j) * d;
    const float w = weight(j);
    for (int64_t c = 0; c < d; c++) out[c] += w * r[c];
  }
}

Tensor decode(const Tensor& starts, const Tensor& features, const Tensor& values, const Tensor& decoder) {
  check(features, at::kLong, 1, "features");
  check_floats(values, 1, "values");
  check_floats(decoder, 2, "decoder");
  TORCH_CHECK(features.numel() == values.numel(), "features and values differ in number");
  const int64_t n = starts.size(0) - 1, d = decoder.size(1);
  const int64_t* s = checked_starts(starts, features.numel());
  const int64_t* f = checked_index(features, decoder.size(0), "features");
  Tensor out = at::empty({n, d}, decoder.options());
  const float *v = values.const_data_ptr<float>(), *table = decoder.const_data_ptr<float>();
  float* o = out.mutable_data_ptr<float>();
  at::parallel_for(0, n, grain(d * 16), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      std::fill_n(o + row * d, d, 0.f);
      add_weighted(table, [&](int64_t j) { return f[j]; }, [&](int64_t j) { return v[j]; }, s[row], s[row + 1], d, o + row * d);
    }
  });
  return out;
}

Tensor dots(const Tensor& starts, const Tensor& features, const Tensor& decoder, const Tensor& rows) {
  check(features, at::kLong, 1, "features");
  check_floats(decoder, 2, "decoder");
  check_floats(rows, 2, "rows");
  const int64_t n = starts.size(0) - 1, d = decoder.size(1);
  TORCH_CHECK(rows.size(0) == n && rows.size(1) == d, "rows must be [", n, ", ", d, "]");
  const int64_t* s = checked_starts(starts, features.numel());
  const int64_t* f = checked_index(features, decoder.size(0), "features");
  Tensor out = at::empty({features.numel()}, decoder.options());
  const float *table = decoder.const_data_ptr<float>(), *r = rows.const_data_ptr<float>();
  float* o = out.mutable_data_ptr<float>();
  at::parallel_for(0, n, grain(d * 16), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      dots_with(r + row * d, table, f + s[row], s[row + 1] - s[row], d, o + s[row]);
  });
  return out;
}

// residual = decode + b_dec - x, and residual . decoder[feature] of every entry, row by row, so that
// the decoder rows of the first part are still in the cache for the second.
std::tuple<Tensor, Tensor> reconstruct(const Tensor& starts, const Tensor& features, const Tensor& values,
                                       const Tensor& decoder, const Tensor& b_dec, const Tensor& x) {
  check(features, at::kLong, 1, "features");
  check_floats(values, 1, "values");
  check_floats(decoder, 2, "decoder");
  check_floats(b_dec, 1, "b_dec");
  check_floats(x, 2, "x");
  TORCH_CHECK(features.numel() == values.numel(), "features and values differ in number");
  const int64_t n = starts.size(0) - 1, d = decoder.size(1);
  TORCH_CHECK(x.size(0) == n && x.size(1) == d && b_dec.size(0) == d, "x must be [", n, ", ", d, "]");
  const int64_t* s = checked_starts(starts, features.numel());
  const int64_t* f = checked_index(features, decoder.size(0), "features");
  Tensor residual = at::empty({n, d}, decoder.options()), out = at::empty({features.numel()}, decoder.options());
  const float *v = values.const_data_ptr<float>(), *table = decoder.const_data_ptr<float>();
  const float *bias = b_dec.const_data_ptr<float>(), *input = x.const_data_ptr<float>();
  float *r = residual.mutable_data_ptr<float>(), *o = out.mutable_data_ptr<float>();
  at::parallel_for(0, n, grain(d * 16), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      float* here = r + row * d;
      std::fill_n(here, d, 0.f);
      add_weighted(table, [&](int64_t j) { return f[j]; }, [&](int64_t j) { return v[j]; }, s[row], s[row + 1], d, here);
      for (int64_t c = 0; c < d; c++) here[c] = here[c] + bias[c] - input[row * d + c];
      dots_with(here, table, f + s[row], s[row + 1] - s[row], d, o + s[row]);
    }
  });
  return {residual, out};
}

// ---- entries by feature --------------------------------------------------------------------------

// Counting sort of entries by feature, stable: order [m] and starts [d_sae + 1].
std::tuple<Tensor, Tensor> group_by_feature(const Tensor& features, int64_t d_sae) {
  check(features, at::kLong, 1, "features");
  const int64_t m = features.numel();
  const int64_t* f = checked_index(features, d_sae, "features");
  Tensor order = at::empty({m}, features.options()), starts = at::zeros({d_sae + 1}, features.options());
  int64_t *o = order.mutable_data_ptr<int64_t>(), *s = starts.mutable_data_ptr<int64_t>();
  for (int64_t j = 0; j < m; j++) s[f[j] + 1]++;
  for (int64_t i = 0; i < d_sae; i++) s[i + 1] += s[i];
  std::vector<int64_t> next(s, s + d_sae);
  for (int64_t j = 0; j < m; j++) o[next[f[j]]++] = j;
  return {order, starts};
}

// out[feature] = scale * sum over its entries of weights[entry] rows[row of the entry]
void weighted_rows(const Tensor& order, const Tensor& starts, const Tensor& entry_rows, const Tensor& weights,
                   const Tensor& rows, double scale, Tensor& out) {
  check(order, at::kLong, 1, "order");
  check(entry_rows, at::kLong, 1, "entry rows");
  check_floats(weights, 1, "weights");
  check_floats(rows, 2, "rows");
  check_floats(out, 2, "out");
  const int64_t d_sae = starts.size(0) - 1, d = rows.size(1), m = order.numel();
  TORCH_CHECK(weights.numel() == m && entry_rows.numel() == m, "weights, rows and order differ in number");
  TORCH_CHECK(out.size(0) == d_sae && out.size(1) == d, "out must be [", d_sae, ", ", d, "]");
  const int64_t* s = checked_starts(starts, m);
  const int64_t* e = checked_index(order, m, "order");
  const int64_t* at_row = checked_index(entry_rows, rows.size(0), "entry rows");
  const float *w = weights.const_data_ptr<float>(), *table = rows.const_data_ptr<float>();
  float* o = out.mutable_data_ptr<float>();
  const float factor = static_cast<float>(scale);
  at::parallel_for(0, d_sae, grain(d * 16), [&](int64_t begin, int64_t end) {
    for (int64_t feature = begin; feature < end; feature++) {
      float* here = o + feature * d;
      std::fill_n(here, d, 0.f);
      add_weighted(table, [&](int64_t j) { return at_row[e[j]]; }, [&](int64_t j) { return factor * w[e[j]]; },
                   s[feature], s[feature + 1], d, here);
    }
  });
}

// sum over each feature's entries of weights[entry]: [d_sae]
Tensor sums(const Tensor& order, const Tensor& starts, const Tensor& weights) {
  check(order, at::kLong, 1, "order");
  check_floats(weights, 1, "weights");
  const int64_t d_sae = starts.size(0) - 1, m = order.numel();
  TORCH_CHECK(weights.numel() == m, "weights and order differ in number");
  const int64_t* s = checked_starts(starts, m);
  const int64_t* e = checked_index(order, m, "order");
  Tensor out = at::empty({d_sae}, weights.options());
  const float* w = weights.const_data_ptr<float>();
  float* o = out.mutable_data_ptr<float>();
  for (int64_t feature = 0; feature < d_sae; feature++) {
    float sum = 0;
    for (int64_t j = s[feature]; j < s[feature + 1]; j++) sum += w[e[j]];
    o[feature] = sum;
  }
  return out;
}

// ---- exact selection from rounded products -------------------------------------------------------

// bfloat16 copy of each row, the row's norm and the norm of what rounding took from it.
std::tuple<Tensor, Tensor, Tensor> round_rows(const Tensor& rows) {
  check_floats(rows, 2, "rows");
  const int64_t n = rows.size(0), d = rows.size(1);
  Tensor copy = at::empty({n, d}, rows.options().dtype(at::kBFloat16));
  Tensor norms = at::empty({n}, rows.options()), errors = at::empty({n}, rows.options());
  const float* in = rows.const_data_ptr<float>();
  uint16_t* out = reinterpret_cast<uint16_t*>(copy.mutable_data_ptr<BFloat16>());
  float *norm = norms.mutable_data_ptr<float>(), *error = errors.mutable_data_ptr<float>();
  at::parallel_for(0, n, grain(d), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* here = in + row * d;
      uint16_t* there = out + row * d;
      float squares = 0, lost = 0;
      for (int64_t c = 0; c < d; c++) {
        uint32_t bits;
        std::memcpy(&bits, here + c, 4);
        // to nearest, ties to even; NaN stays NaN because its quiet bit is set first
        bits |= (bits & 0x7fffffff) > 0x7f800000 ? 0x00400000u : 0u;
        const bool finite = (bits & 0x7f800000) != 0x7f800000;
        const uint32_t rounded = (finite ? bits + 0x7fff + ((bits >> 16) & 1) : bits) & 0xffff0000;
        there[c] = static_cast<uint16_t>(rounded >> 16);
        float value;
        std::memcpy(&value, &rounded, 4);
        const float difference = here[c] - value;
        squares += here[c] * here[c];
        lost += difference * difference;
      }
      norm[row] = std::sqrt(squares);
      error[row] = std::sqrt(lost);
    }
  });
  return {copy, norms, errors};
}

// What is known of centred . encoder[i] + b_enc[i] from products of rounded factors.
//
// products[n, i] is a bfloat16 product of the bfloat16 copies x', e' of x and e, summed in float32.
// With |x - x'| and |e - e'| known, |x . e - x' . e'| <= |x - x'| |e| + |x'| |e - e'| (Cauchy and
// Schwarz); the stored product is off by at most 2^-8 of itself (twice the rounding, to be safe)
// and by the float32 sum's own error.
struct Bounds {
  int64_t n, d, width;
  const float *x, *e, *bias;

  Bounds(const Tensor& products, const Tensor& centred, const Tensor& centred_norms, const Tensor& centred_errors,
         const Tensor& encoder, const Tensor& encoder_norms, const Tensor& encoder_errors, const Tensor& b_enc)
      : n(centred.size(0)), d(centred.size(1)), width(encoder.size(0)) {
    check(products, at::kBFloat16, 2, "products");
    check_floats(centred, 2, "centred");
    check_floats(encoder, 2, "encoder");
    for (const Tensor& t : {centred_norms, centred_errors}) {
      check_floats(t, 1, "norms of rows");
      TORCH_CHECK(t.size(0) == n, "one norm a row");
    }
    for (const Tensor& t : {encoder_norms, encoder_errors, b_enc}) {
      check_floats(t, 1, "norms of features and b_enc");
      TORCH_CHECK(t.size(0) == width, "one value a feature");
    }
    TORCH_CHECK(products.size(0) == n && products.size(1) == width && encoder.size(1) == d, "sizes do not fit");
    products_ = reinterpret_cast<const uint16_t*>(products.const_data_ptr<BFloat16>());
    x = centred.const_data_ptr<float>();
    e = encoder.const_data_ptr<float>();
    bias = b_enc.const_data_ptr<float>();
    x_norms_ = centred_norms.const_data_ptr<float>();
    x_errors_ = centred_errors.const_data_ptr<float>();
    e_norms_ = encoder_norms.const_data_ptr<float>();
    e_errors_ = encoder_errors.const_data_ptr<float>();
    summing_ = static_cast<float>(d + 8) * 1.2e-7f;
  }

  // take(i, middle, off): the exact value of feature i lies within off of middle
  template <typename Take>
  void fill(int64_t row, Take take) const {
    const uint16_t* here = products_ + row * width;
    const float by_norm = x_errors_[row] + summing_ * x_norms_[row], by_error = x_norms_[row] + x_errors_[row];
    for (int64_t i = 0; i < width; i++) {
      const float product = widen(here[i]);
      take(i, product + bias[i], by_norm * e_norms_[i] + by_error * e_errors_[i] + 0x1p-8f * std::fabs(product));
    }
  }

 private:
  const uint16_t* products_;
  const float *x_norms_, *x_errors_, *e_norms_, *e_errors_;
  float summing_;
};

// The k largest of centred . encoder[i] + b_enc[i] in float32, from products of rounded factors.
//
// Features whose upper bound reaches the k-th largest lower bound are the only ones that can be
// among the k largest: they alone are computed exactly.
std::tuple<Tensor, Tensor, Tensor> topk_refined(const Tensor& products, const Tensor& centred, const Tensor& centred_norms,
                                                const Tensor& centred_errors, const Tensor& encoder, const Tensor& encoder_norms,
                                                const Tensor& encoder_errors, const Tensor& b_enc, int64_t k) {
  const Bounds bounds(products, centred, centred_norms, centred_errors, encoder, encoder_norms, encoder_errors, b_enc);
  const int64_t n = bounds.n, d = bounds.d, width = bounds.width;
  TORCH_CHECK(0 < k && k <= width, "k is ", k, " but rows have ", width, " values");
  Tensor values = at::empty({n, k}, centred.options());
  Tensor features = at::empty({n, k}, centred.options().dtype(at::kLong));
  Tensor computed = at::empty({n}, centred.options().dtype(at::kLong));
  float* v = values.mutable_data_ptr<float>();
  int64_t *f = features.mutable_data_ptr<int64_t>(), *tried = computed.mutable_data_ptr<int64_t>();
  at::parallel_for(0, n, grain(width), [&](int64_t begin, int64_t end) {
    Keys lower(width), upper(width);
    std::vector<int32_t> maxima, scratch, keys;
    std::vector<int64_t> candidates, kept;
    std::vector<float> exact;
    for (int64_t row = begin; row < end; row++) {
      int32_t *low = lower.data(), *high = upper.data();
      bounds.fill(row, [&](int64_t i, float middle, float off) {
        low[i] = ordered(bits_of(middle - off));
        high[i] = ordered(bits_of(middle + off));
      });
      reaching(low, width, lower_bound_of_kth(low, width, k, maxima), candidates);
      keys.clear();
      for (int64_t i : candidates) keys.push_back(low[i]);
      std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<int32_t>());
      reaching(high, width, keys[k - 1], candidates);
      const int64_t m = static_cast<int64_t>(candidates.size());
      exact.resize(m);
      dots_with(bounds.x + row * d, bounds.e, candidates.data(), m, d, exact.data());
      keys.resize(m);
      for (int64_t j = 0; j < m; j++) {
        exact[j] += bounds.bias[candidates[j]];
        keys[j] = ordered(bits_of(exact[j]));
      }
      keep_largest(candidates, keys, k, scratch, kept);
      for (int64_t j = 0; j < k; j++) {
        f[row * k + j] = candidates[kept[j]];
        v[row * k + j] = exact[kept[j]];
      }
      tried[row] = m;
    }
  });
  return {values, features, computed};
}

// ---- ReLU ---------------------------------------------------------------------------------------

constexpr int64_t COLUMNS = 512, ROWS = 64;  // a block of columns, rows summed before they are added

// ReLU in place; sums of each column [width] and the number of positive values. NaN stays NaN.
std::tuple<Tensor, Tensor> relu_sums(Tensor& pre) {
  check_floats(pre, 2, "pre");
  const int64_t n = pre.size(0), width = pre.size(1), blocks = (width + COLUMNS - 1) / COLUMNS;
  Tensor sums = at::zeros({width}, pre.options()), counts = at::zeros({blocks}, pre.options().dtype(at::kLong));
  float *p = pre.mutable_data_ptr<float>(), *total = sums.mutable_data_ptr<float>();
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      const int64_t first = block * COLUMNS, m = std::min(COLUMNS, width - first);
      for (int64_t start = 0; start < n; start += ROWS) {
        float part[COLUMNS] = {};
        int32_t positive = 0;
        for (int64_t row = start; row < std::min(n, start + ROWS); row++) {
          float* here = p + row * width + first;
          for (int64_t c = 0; c < m; c++) {
            const float value = here[c] < 0 ? 0.f : here[c];
            here[c] = value;
            part[c] += value;
            positive += value > 0;
          }
        }
        for (int64_t c = 0; c < m; c++) total[first + c] += part[c];
        count[block] += positive;
      }
    }
  });
  return {sums, counts.sum()};
}

// g = f > 0 ? scale * g + added : 0 in place; sums of each column [width].
Tensor relu_backward_sums(Tensor& g, const Tensor& f, double scale, double added) {
  check_floats(g, 2, "g");
  check_floats(f, 2, "f");
  TORCH_CHECK(f.sizes() == g.sizes(), "f and g differ in shape");
  const int64_t n = g.size(0), width = g.size(1), blocks = (width + COLUMNS - 1) / COLUMNS;
  Tensor sums = at::zeros({width}, g.options());
  float *p = g.mutable_data_ptr<float>(), *total = sums.mutable_data_ptr<float>();
  const float* active = f.const_data_ptr<float>();
  const float factor = static_cast<float>(scale), constant = static_cast<float>(added);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      const int64_t first = block * COLUMNS, m = std::min(COLUMNS, width - first);
      for (int64_t start = 0; start < n; start += ROWS) {
        float part[COLUMNS] = {};
        for (int64_t row = start; row < std::min(n, start + ROWS); row++) {
          float* here = p + row * width + first;
          const float* on = active + row * width + first;
          for (int64_t c = 0; c < m; c++) {
            const float value = factor * here[c] + constant;
            here[c] = on[c] > 0 ? value : 0.f;
            part[c] += here[c];
          }
        }
        for (int64_t c = 0; c < m; c++) total[first + c] += part[c];
      }
    }
  });
  return sums;
}

// Entries found row by row, joined in order: starts [n + 1], features [m], values [m].
std::tuple<Tensor, Tensor, Tensor> joined(const std::vector<std::vector<int64_t>>& features,
                                          const std::vector<std::vector<float>>& values, at::TensorOptions floats) {
  const int64_t n = static_cast<int64_t>(features.size());
  Tensor starts = at::empty({n + 1}, floats.dtype(at::kLong));
  int64_t* s = starts.mutable_data_ptr<int64_t>();
  s[0] = 0;
  for (int64_t row = 0; row < n; row++) s[row + 1] = s[row] + static_cast<int64_t>(features[row].size());
  Tensor all_features = at::empty({s[n]}, floats.dtype(at::kLong)), all_values = at::empty({s[n]}, floats);
  int64_t* f = all_features.mutable_data_ptr<int64_t>();
  float* v = all_values.mutable_data_ptr<float>();
  at::parallel_for(0, n, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      std::copy(features[row].begin(), features[row].end(), f + s[row]);
      std::copy(values[row].begin(), values[row].end(), v + s[row]);
    }
  });
  return {starts, all_features, all_values};
}

// The positive entries of pre, and NaN.
std::tuple<Tensor, Tensor, Tensor> positive_entries(const Tensor& pre) {
  check_floats(pre, 2, "pre");
  const int64_t n = pre.size(0), width = pre.size(1);
  const float* p = pre.const_data_ptr<float>();
  std::vector<std::vector<int64_t>> features(n);
  std::vector<std::vector<float>> values(n);
  at::parallel_for(0, n, grain(width), [&](int64_t begin, int64_t end) {
    Keys keys(width);
    for (int64_t row = begin; row < end; row++) {
      row_keys(p + row * width, width, keys.data());
      reaching(keys.data(), width, 1, features[row]);
      for (int64_t i : features[row]) values[row].push_back(p[row * width + i]);
    }
  });
  return joined(features, values, pre.options());
}

// The positive entries of centred . encoder[i] + b_enc[i] in float32, from products of rounded
// factors: those whose upper bound is positive are computed exactly (see Bounds).
std::tuple<Tensor, Tensor, Tensor> positive_refined(const Tensor& products, const Tensor& centred, const Tensor& centred_norms,
                                                    const Tensor& centred_errors, const Tensor& encoder,
                                                    const Tensor& encoder_norms, const Tensor& encoder_errors, const Tensor& b_enc) {
  const Bounds bounds(products, centred, centred_norms, centred_errors, encoder, encoder_norms, encoder_errors, b_enc);
  const int64_t n = bounds.n, d = bounds.d, width = bounds.width;
  std::vector<std::vector<int64_t>> features(n);
  std::vector<std::vector<float>> values(n);
  at::parallel_for(0, n, grain(width), [&](int64_t begin, int64_t end) {
    Keys upper(width);
    std::vector<int64_t> candidates;
    std::vector<float> exact;
    for (int64_t row = begin; row < end; row++) {
      int32_t* high = upper.data();
      bounds.fill(row, [&](int64_t i, float middle, float off) { high[i] = ordered(bits_of(middle + off)); });
      reaching(high, width, 1, candidates);
      const int64_t m = static_cast<int64_t>(candidates.size());
      exact.resize(m);
      dots_with(bounds.x + row * d, bounds.e, candidates.data(), m, d, exact.data());
      for (int64_t j = 0; j < m; j++) {
        const float value = exact[j] + bounds.bias[candidates[j]];
        if (value <= 0) continue;  // NaN is kept
        features[row].push_back(candidates[j]);
        values[row].push_back(value);
      }
    }
  });
  return joined(features, values, centred.options());
}

}  // namespace

TORCH_LIBRARY(mechinterp_sparse, library) {
  library.def("topk_rows(Tensor pre, int k) -> (Tensor, Tensor)", &topk_rows);
  library.def("decode(Tensor starts, Tensor features, Tensor values, Tensor decoder) -> Tensor", &decode);
  library.def("dots(Tensor starts, Tensor features, Tensor decoder, Tensor rows) -> Tensor", &dots);
  library.def("reconstruct(Tensor starts, Tensor features, Tensor values, Tensor decoder, Tensor b_dec, Tensor x) -> (Tensor, Tensor)", &reconstruct);
  library.def("group_by_feature(Tensor features, int d_sae) -> (Tensor, Tensor)", &group_by_feature);
  library.def("weighted_rows(Tensor order, Tensor starts, Tensor entry_rows, Tensor weights, Tensor rows, float scale, Tensor(a!) out) -> ()", &weighted_rows);
  library.def("sums(Tensor order, Tensor starts, Tensor weights) -> Tensor", &sums);
  library.def("round_rows(Tensor rows) -> (Tensor, Tensor, Tensor)", &round_rows);
  library.def("topk_refined(Tensor products, Tensor centred, Tensor centred_norms, Tensor centred_errors, Tensor encoder, Tensor encoder_norms, Tensor encoder_errors, Tensor b_enc, int k) -> (Tensor, Tensor, Tensor)", &topk_refined);
  library.def("relu_sums(Tensor(a!) pre) -> (Tensor, Tensor)", &relu_sums);
  library.def("relu_backward_sums(Tensor(a!) g, Tensor f, float scale, float added) -> Tensor", &relu_backward_sums);
  library.def("positive_entries(Tensor pre) -> (Tensor, Tensor, Tensor)", &positive_entries);
  library.def("positive_refined(Tensor products, Tensor centred, Tensor centred_norms, Tensor centred_errors, Tensor encoder, Tensor encoder_norms, Tensor encoder_errors, Tensor b_enc) -> (Tensor, Tensor, Tensor)", &positive_refined);
}
