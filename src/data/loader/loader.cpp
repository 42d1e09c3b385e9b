#include "data/loader/loader.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "data/loader/staged_source.h"
#include "data/shard/block_sums.h"
#include "io/object_store.h"

namespace stoker::data {
namespace {
constexpr size_t kMostRowsOpen = 256;  // shards whose rows stay mapped

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

struct Loader::OpenRows {
  std::unique_ptr<io::ReadableFile> file;
  PackRows rows;
};

void Batch::shape(int64_t new_rows, int64_t new_length) {
  const auto cells = static_cast<size_t>(checked_mul(new_rows, new_length, "cells of a batch"));
  rows = new_rows;
  length = new_length;
  for (auto* part : {&tokens, &targets, &positions, &document_start}) part->resize(cells);
}

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
  const auto length = static_cast<uint64_t>(options_.sequence_length);
  uint64_t run =
      std::max<uint64_t>(1, kSumBlockBytes / (length * token_bytes(dataset_.manifest().token_type)));
  if (!options_.plan.empty()) {
    if (options_.sequential) fail(ErrorKind::kUsage, "a sequential pass reads windows, not a packing plan");
    plan_ = open_pack_plan(dataset_.file_system(), dataset_, options_.plan, options_.split);
    if (plan_->length != length)
      fail(ErrorKind::kUsage, "{}: packing plan {} has rows of {} tokens, expected {} (sequence_length)",
           dataset_.directory(), options_.plan, plan_->length, length);
    row_starts_.push_back(0);
    for (const auto& shard : plan_->shards)
      row_starts_.push_back(checked_add(row_starts_.back(), shard.rows, "rows of a plan"));
    samples_ = plan_->rows;
    opened_ = std::make_unique<Opened>();
    run = std::max<uint64_t>(1, plan_->window_tokens / length);
    if (samples_ == 0)
      fail(ErrorKind::kUsage, "{}: packing plan {} has no rows", dataset_.directory(), options_.plan);
  } else {
    const uint64_t targets = targets_per_epoch();
    samples_ = targets / length + (options_.sequential && targets % length ? 1 : 0);
    if (targets == 0)
      fail(ErrorKind::kUsage,
           "{}: split {} has no tokens to predict. Prepare the data again with a larger --held-out, or name "
           "another split "
           "(data.train_split, data.eval_split)",
           dataset_.directory(), options_.split);
    if (samples_ == 0)
      fail(ErrorKind::kUsage,
           "{}: split {} has {} tokens to predict, less than one sequence of length {}. Use a shorter "
           "sequence_length or more data",
           dataset_.directory(), options_.split, targets, length);
  }
  const uint64_t together = options_.shuffle_rows ? std::max<uint64_t>(1, options_.shuffle_rows / run) : 0;
  order_ = SampleOrder(options_.seed, samples_, {run, together});
}

Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;

uint64_t Loader::targets_per_epoch() const { return tokens() < origin_ ? 0 : tokens() - origin_; }

uint64_t Loader::window_of(uint64_t sample) const {
  return options_.sequential ? sample : order_.row_of(sample);
}

uint64_t Loader::sample_of(uint64_t epoch, uint64_t window) const {
  return options_.sequential ? window : order_.sample_of(epoch, window);
}

uint64_t Loader::first_target(uint64_t window) const {
  return origin_ + window * static_cast<uint64_t>(options_.sequence_length);
}

void Loader::fill(uint64_t first_sample, int64_t rows, Batch& batch) const {
  STOKER_CHECK(rows >= 0);
  batch.shape(rows, options_.sequence_length);
  for (int64_t row = 0; row < rows; ++row)
    fill_row(checked_add(first_sample, static_cast<uint64_t>(row), "sample number"), row, batch);
}

void Loader::fill_row(uint64_t sample, int64_t row, Batch& batch) const {
  if (plan_) fill_packed(sample, row, batch);
  else fill_window(sample, row, batch);
}

void Loader::will_look_up(uint64_t sample) const {
  if (!plan_) return;
  const size_t shard = shard_of_row(window_of(sample));
  if (!rows_open(shard)) stream_->source().will_open_side(plan_->shards[shard].file);
}

void Loader::will_fill(uint64_t first_sample, int64_t rows) const {
  for (int64_t row = 0; row < rows; ++row) will_look_up(first_sample + static_cast<uint64_t>(row));
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t sample = first_sample + static_cast<uint64_t>(row);
    if (options_.sequential && sample >= samples_) return;
    for (const Range& range : predicted_by(window_of(sample))) {
      const uint64_t first = range.first ? range.first - 1 : 0;
      stream_->will_read(first, range.first + range.count - first);
    }
  }
}

uint64_t Loader::targets_of(uint64_t sample) const {
  if (options_.sequential && sample >= samples_) return 0;
  if (!plan_ && !options_.sequential) return static_cast<uint64_t>(options_.sequence_length);
  uint64_t targets = 0;
  for (const Range& range : predicted_by(window_of(sample))) targets += range.count;
  return targets;
}

bool Loader::rows_open(size_t shard) const {
  std::lock_guard lock(opened_->mutex);
  return opened_->rows.contains(shard);
}

std::shared_ptr<const Loader::OpenRows> Loader::open_rows(size_t shard) const {
  {
    std::lock_guard lock(opened_->mutex);
    if (const auto it = opened_->rows.find(shard); it != opened_->rows.end()) return it->second;
  }
  // Opened without the lock: others read rows of other shards while this one is on its way.
  const auto& record = plan_->shards[shard];
  auto out = std::make_shared<OpenRows>();
  out->file = stream_->source().open_side(record.file);
  out->rows = PackRows::parse(out->file->map(), dataset_.path_of(record.file));
  const uint64_t tokens = stream_->shard_start(shard + 1) - stream_->shard_start(shard);
  if (out->rows.rows() != record.rows || out->rows.length() != plan_->length ||
      out->rows.shard_tokens() != tokens)
    fail(ErrorKind::kData,
         "{}: expected {} rows of {} for a shard of {} tokens, found {} of {} for {}. Make the plan again "
         "with: stoker data pack",
         dataset_.path_of(record.file), record.rows, plan_->length, tokens, out->rows.rows(),
         out->rows.length(), out->rows.shard_tokens());
  std::lock_guard lock(opened_->mutex);
  auto& rows = opened_->rows;
  if (rows.size() >= kMostRowsOpen) rows.erase(rows.begin());
  return rows[shard] = std::move(out);
}

size_t Loader::shard_of_row(uint64_t row) const {
  const auto after = std::upper_bound(row_starts_.begin(), row_starts_.end(), row);
  return static_cast<size_t>(after - row_starts_.begin()) - 1;
}

void Loader::pieces_of(uint64_t row, std::vector<PackedPiece>& pieces, uint64_t& shard_start) const {
  const size_t shard = shard_of_row(row);
  open_rows(shard)->rows.row(row - row_starts_[shard], pieces);
  shard_start = stream_->shard_start(shard);
}

std::vector<Loader::Range> Loader::predicted_by(uint64_t row) const {
  if (!plan_) {
    const uint64_t first = first_target(row);
    return {{first, std::min(static_cast<uint64_t>(options_.sequence_length), tokens() - first)}};
  }
  std::vector<PackedPiece> pieces;
  uint64_t shard_start = 0;
  pieces_of(row, pieces, shard_start);
  std::vector<Range> out;
  for (const auto& p : pieces) out.push_back({shard_start + p.first_token, p.tokens});
  return out;
}

std::vector<uint64_t> Loader::rows_that_predict(uint64_t first, uint64_t count) const {
  std::vector<uint64_t> out;
  const uint64_t end = std::min(first + count, tokens());
  if (plan_) {
    for (size_t s = first < end ? stream_->shard_of(first) : 0; s < plan_->shards.size(); ++s) {
      const uint64_t begin = stream_->shard_start(s), stop = stream_->shard_start(s + 1);
      if (first >= end || begin >= end) break;
      if (stop <= first) continue;
      const uint64_t from = std::max(first, begin);
      for (const uint64_t row : open_rows(s)->rows.rows_with(from - begin, std::min(end, stop) - from))
        out.push_back(row_starts_[s] + row);
    }
    return out;
  }
  if (end <= origin_)
    return out;  // the very first token of a stream that begins with BOS is given, not predicted
  const auto length = static_cast<uint64_t>(options_.sequence_length);
  for (uint64_t w = (std::max(first, origin_) - origin_) / length; w < samples_ && first_target(w) < end; ++w)
    out.push_back(w);
  return out;
}

// Each piece is a text of its own: its first cell shows the token before it (or the separator that stands before a shard's first
// document) and predicts its first token.
void Loader::fill_packed(uint64_t sample, int64_t row, Batch& batch) const {
  const auto length = static_cast<size_t>(options_.sequence_length);
  const size_t base = static_cast<size_t>(row) * length;
  const bool masked = options_.mode == PackingMode::kDocumentMasks;
  std::vector<PackedPiece> pieces;
  uint64_t shard_start = 0;
  pieces_of(window_of(sample), pieces, shard_start);
  const auto filler = static_cast<int32_t>(std::max<int64_t>(0, separator_));
  std::vector<int32_t> tokens(length + 1);
  size_t at = 0;
  for (const auto& p : pieces) {
    const uint64_t first = shard_start + p.first_token;
    const auto shown = std::span(tokens).first(size_t{p.tokens} + 1);
    if (p.first_token == 0) {
      if (separator_ < 0)
        fail(ErrorKind::kData,
             "{}: packing plan {} predicts the first token of a document, which follows none",
             dataset_.directory(), options_.plan);
      shown[0] = filler;
      stream_->read(first, shown.subspan(1));
    } else {
      stream_->read(first - 1, shown);
    }
    for (size_t t = 0; t < p.tokens; ++t, ++at) {
      batch.tokens[base + at] = shown[t];
      batch.targets[base + at] = shown[t + 1];
      batch.positions[base + at] = static_cast<int32_t>(masked ? t : at);
      batch.document_start[base + at] = static_cast<int32_t>(masked ? at - t : 0);
    }
  }
  for (; at < length; ++at) {
    batch.tokens[base + at] = filler;
    batch.targets[base + at] = -1;
    batch.positions[base + at] = static_cast<int32_t>(masked ? 0 : at);
    batch.document_start[base + at] = static_cast<int32_t>(masked ? at : 0);
  }
}

// Cell t shows stream position target - 1 + t and predicts target + t.
void Loader::fill_window(uint64_t sample, int64_t row, Batch& batch) const {
  const auto length = static_cast<size_t>(options_.sequence_length);
  std::vector<int32_t> tokens(length + 1);
  std::vector<uint64_t> starts;
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
