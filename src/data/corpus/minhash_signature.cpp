#include "data/corpus/minhash_signature.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "data/corpus/minhash_kernel.h"

namespace stoker::corpus {
namespace {

void check(const MinHashParameters& p) {
  if (p.n < 1 || p.n > 1000 || p.bands < 1 || p.rows < 1 || p.bands > 100000 || p.rows > 1000)
    fail(ErrorKind::kUsage,
         "minhash: expected n in 1..1000, bands in 1..100000, rows in 1..1000; found n={} bands={} rows={}",
         p.n, p.bands, p.rows);
}

const std::array<MinHashParameters, 6>& presets() {
  static const std::array<MinHashParameters, 6> table = {{
      {"fineweb", ShingleUnit::kWord, 5, 14, 8, 1},
      {"olmo3", ShingleUnit::kWord, 5, 26, 11, 1},
      {"duplodocus", ShingleUnit::kWord, 5, 20, 5, 1},
      {"nemo", ShingleUnit::kCharacter, 24, 20, 13, 1},
      {"refinedweb", ShingleUnit::kWord, 5, 450, 20, 1},
      {"slimpajama", ShingleUnit::kWord, 13, 9, 13, 1},
  }};
  return table;
}

}  // namespace

double MinHashParameters::collision_probability(double similarity) const {
  return 1 - std::pow(1 - std::pow(similarity, rows), bands);
}

MinHashParameters minhash_preset(std::string_view name) {
  for (const auto& preset : presets())
    if (preset.name == name) return preset;
  if (name == "text-dedup") {
    MinHashParameters found = optimal_bands(240, 0.7);
    found.name = "text-dedup";
    return found;
  }
  fail(ErrorKind::kUsage, "minhash: no preset '{}': there are {}", name,
       fmt::join(minhash_preset_names(), ", "));
}

std::vector<std::string> minhash_preset_names() {
  std::vector<std::string> names;
  for (const auto& preset : presets()) names.push_back(preset.name);
  names.push_back("text-dedup");
  return names;
}

MinHashParameters optimal_bands(int entries, double threshold) {
  if (entries < 1 || !(threshold > 0 && threshold < 1))
    fail(ErrorKind::kUsage, "minhash: expected entries >= 1 and a threshold in (0,1); found {} and {}",
         entries, threshold);
  constexpr int kSteps = 200;
  MinHashParameters best, now;
  double least = 1e300;
  for (now.bands = 1; now.bands <= entries; ++now.bands)
    for (now.rows = 1; now.rows <= entries / now.bands; ++now.rows) {
      double wrong = 0;
      for (int i = 0; i < kSteps; ++i) {
        const double s = (i + 0.5) / kSteps;
        const double hit = now.collision_probability(s);
        wrong += s < threshold ? hit : 1 - hit;
      }
      if (wrong < least) least = wrong, best = now;
    }
  return best;
}

SignatureMaker::SignatureMaker(const MinHashParameters& parameters) : parameters_(parameters) {
  check(parameters_);
  const size_t padded = (static_cast<size_t>(parameters_.entries()) + 7) / 8 * 8;
  a_.resize(padded), b_.resize(padded), c_.resize(padded), minima_.resize(padded);
  const PhiloxKey key{parameters_.seed, hash64("stoker minhash family 1")};
  for (size_t i = 0; i < padded; ++i) {
    // Odd, top bit set: each half of the shingle reaches every bit of the value.
    a_[i] = (random_u64(key, 3 * i) & 0xFFFFFFFFu) | 0x80000001u;
    b_[i] = (random_u64(key, 3 * i + 1) & 0xFFFFFFFFu) | 0x80000001u;
    c_[i] = random_u64(key, 3 * i + 2);
  }
}

std::optional<Signature> SignatureMaker::sign(std::string_view text) {
  std::fill(minima_.begin(), minima_.end(), ~0ull);
  const MinHashRows rows{a_.data(), b_.data(), c_.data(), a_.size()};
  bool any = false;
  for_each_shingle_block(text, parameters_.unit, parameters_.n, [&](std::span<const uint64_t> block) {
    any = true;
    minhash_update(block, rows, minima_.data());
  });
  if (!any) return std::nullopt;
  Signature out(static_cast<size_t>(parameters_.entries()));
  // Minima of long texts have leading zeros; folding the halves keeps 32 bits that still tell them apart.
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint32_t>(minima_[i] ^ (minima_[i] >> 32));
  return out;
}

double estimated_similarity(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  STOKER_CHECK(a.size() == b.size() && !a.empty(), "signatures of {} and {} entries", a.size(), b.size());
  size_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

void band_keys(std::span<const uint32_t> signature, int bands, int rows, std::span<uint64_t> keys) {
  STOKER_CHECK(
      signature.size() == static_cast<size_t>(bands) * rows && keys.size() == static_cast<size_t>(bands),
      "{} entries, {} keys for {} x {}", signature.size(), keys.size(), bands, rows);
  for (int band = 0; band < bands; ++band)
    keys[band] = hash64(signature.data() + static_cast<size_t>(band) * rows, sizeof(uint32_t) * rows,
                        static_cast<uint64_t>(band) + 1);
}

}  // namespace stoker::corpus
