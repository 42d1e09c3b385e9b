#include "data/loader/loader.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"
#include "data/loader/staged_source.h"
#include "io/object_store.h"

namespace stoker::data {
namespace {
constexpr uint64_t kEpochStream = 0x4c4f41444552;  // "LOADER"

KeyedPermutation epoch_order(uint64_t seed, uint64_t epoch, uint64_t samples) {
  return KeyedPermutation(random_u64({seed, kEpochStream}, epoch), samples);
}
}  // namespace

namespace {
std::string default_cache() {
  if (const char* cache = std::getenv("STOKER_CACHE"); cache && *cache) return cache;
  if (const char* home = std::getenv("HOME"); home && *home) return io::join(home, ".cache/stoker");
  fail(ErrorKind::kUsage, "nowhere to stage shards: set STOKER_CACHE to a directory");
}

Loader open_loader(io::FileSystem& fs, const std::string& path, LoaderOptions options) {
  const bool remote = io::is_url(path);
  if (!remote && options.cache_directory.empty()) {
    Dataset dataset = Dataset::open(fs, path);
    return Loader(dataset, options, local_shard_source(dataset, options.split));
  }
  auto origin_fs = remote ? std::make_unique<io::ObjectFileSystem>(fs) : nullptr;
  io::FileSystem& origin = remote ? *origin_fs : fs;
  StagingOptions staging;
  staging.cache_directory = options.cache_directory.empty() ? default_cache() : options.cache_directory;
  staging.cache_bytes = options.cache_bytes;
  std::optional<Dataset> dataset;
  io::retry_storage(staging.retry, system_clock(), [&] { dataset = Dataset::open(origin, path); });
  auto source = std::make_unique<StagedShardSource>(origin, fs, *dataset, options.split, staging);
  source->keep(std::move(origin_fs));
  return Loader(std::move(*dataset), options, std::move(source));
}
}  // namespace

Loader::Loader(io::FileSystem& fs, const std::string& path, LoaderOptions options)
    : Loader(open_loader(fs, path, std::move(options))) {}

Loader::Loader(Dataset dataset, LoaderOptions options, std::unique_ptr<ShardSource> source)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
  if (options_.sequence_length < 1)
    fail(ErrorKind::kUsage, "sequence_length: expected at least 1, found {}", options_.sequence_length);
  const auto& split = dataset_.split(options_.split);
  const auto& tokenizer = dataset_.manifest().tokenizer;
  stream_ = std::make_unique<SplitStream>(split, tokenizer.vocabulary, std::move(source));
  text_bytes_ = split.text_bytes;
  if (tokenizer.bos < 0) separator_ = tokenizer.eod;
  origin_ = separator_ >= 0 ? 0 : 1;
  const uint64_t length = static_cast<uint64_t>(options_.sequence_length), targets = targets_per_epoch();
  samples_ = targets / length + (options_.sequential && targets % length ? 1 : 0);
  if (samples_ == 0)
    fail(ErrorKind::kUsage,
         "{}: split {} has {} tokens to predict, less than {} of length {}. Use a shorter sequence_length or "
         "more data",
         dataset_.directory(), options_.split, targets, options_.sequential ? "anything" : "one sequence",
         length);
}

Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;

uint64_t Loader::targets_per_epoch() const { return tokens() < origin_ ? 0 : tokens() - origin_; }

uint64_t Loader::window_of(uint64_t sample) const {
  if (options_.sequential) return sample;
  return epoch_order(options_.seed, sample / samples_, samples_).permute(sample % samples_);
}

uint64_t Loader::sample_of(uint64_t epoch, uint64_t window) const {
  if (options_.sequential) return window;
  return checked_add(checked_mul(epoch, samples_, "epoch"),
                     epoch_order(options_.seed, epoch, samples_).unpermute(window), "sample number");
}

uint64_t Loader::first_target(uint64_t window) const {
  return origin_ + window * static_cast<uint64_t>(options_.sequence_length);
}

void Loader::fill(uint64_t first_sample, int64_t rows, Batch& batch) const {
  STOKER_CHECK(rows >= 0);
  const int64_t length = options_.sequence_length;
  const auto cells = static_cast<size_t>(checked_mul(rows, length, "cells of a batch"));
  batch.rows = rows;
  batch.length = length;
  batch.tokens.resize(cells);
  batch.targets.resize(cells);
  batch.positions.resize(cells);
  batch.document_start.resize(cells);
  std::vector<int32_t> tokens(static_cast<size_t>(length) + 1);
  std::vector<uint64_t> starts;
  for (int64_t row = 0; row < rows; ++row)
    fill_row(checked_add(first_sample, static_cast<uint64_t>(row), "sample number"), row, batch, tokens,
             starts);
}

void Loader::will_fill(uint64_t first_sample, int64_t rows) const {
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t sample = first_sample + static_cast<uint64_t>(row);
    if (options_.sequential && sample >= samples_) return;
    const uint64_t target = first_target(window_of(sample)), first = target ? target - 1 : 0;
    const uint64_t end = std::min(tokens(), target + static_cast<uint64_t>(options_.sequence_length));
    stream_->will_read(first, end - first);
  }
}

// Cell t shows stream position target - 1 + t and predicts target + t.
void Loader::fill_row(uint64_t sample, int64_t row, Batch& batch, std::vector<int32_t>& tokens,
                      std::vector<uint64_t>& starts) const {
  const auto length = static_cast<size_t>(options_.sequence_length);
  const size_t base = static_cast<size_t>(row) * length;
  const bool padding_row = options_.sequential && sample >= samples_;
  const uint64_t target = padding_row ? this->tokens() : first_target(window_of(sample));
  const size_t known =
      padding_row ? 0 : static_cast<size_t>(std::min<uint64_t>(length, this->tokens() - target));
  const bool masked = options_.mode == PackingMode::kDocumentMasks;

  // tokens[0 .. known]: stream positions target - 1 .. target + known - 1
  const int32_t filler = static_cast<int32_t>(std::max<int64_t>(0, separator_));
  std::fill(tokens.begin(), tokens.end(), filler);
  if (known) {
    if (target) stream_->read(target - 1, std::span(tokens).first(known + 1));
    else stream_->read(0, std::span(tokens).subspan(1, known));
  }
  for (size_t t = 0; t < length; ++t) {
    batch.tokens[base + t] = t < known ? tokens[t] : filler;
    batch.targets[base + t] = t < known ? tokens[t + 1] : -1;
  }
  int32_t* positions = batch.positions.data() + base;
  int32_t* document_start = batch.document_start.data() + base;
  if (!masked) {
    for (size_t t = 0; t < length; ++t) positions[t] = static_cast<int32_t>(t), document_start[t] = 0;
    return;
  }
  // Documents that start at stream position s: with a separator their first cell shows s - 1 (the separator),
  // otherwise s.
  starts.clear();
  if (known) {
    const uint64_t first = target && separator_ < 0 ? target - 1 : target;
    stream_->document_starts(first, target + known - first, starts);
  }
  size_t begin = 0, next = 0;
  for (size_t t = 0; t < length; ++t) {
    const uint64_t shows = target + t - (separator_ < 0 ? 1 : 0);  // + 1 with a separator
    while (next < starts.size() && starts[next] < shows) ++next;
    if (t >= known) begin = t;  // padding sees only itself
    else if (next < starts.size() && starts[next] == shows) {
      begin = t;
      if (separator_ < 0 && t > 0) batch.targets[base + t - 1] = -1;
    }
    document_start[t] = static_cast<int32_t>(begin);
    positions[t] = static_cast<int32_t>(t - begin);
  }
  // The last prediction of the window may be the first token of a document that starts in the next window.
  if (separator_ < 0 && known && !starts.empty() && starts.back() == target + known - 1)
    batch.targets[base + known - 1] = -1;
}

}  // namespace stoker::data
