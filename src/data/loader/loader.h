// data/loader/loader.h
// Feeds training and evaluation: global sample number n -> one row of a batch, as a pure function of
// (manifest, options, n).
// Stream    a split is one stream of T tokens: its documents end to end, each ended by the
//           end-of-document token (EOD) and begun by BOS, as its tokenizer has them. Window w of length L
//           predicts stream positions w L .. w L + L - 1, each from the token before it; before position
//           0 stands a virtual EOD. (With BOS, or without EOD, everything shifts by one: position 0 is
//           given, not predicted.) So windows share one token and every prediction belongs to exactly
//           one.
// Rows      without a plan, row w is window w. With a packing plan (data/shard/pack_plan.h) row r is row
//           r of the plan: whole documents side by side, cut only where they are longer than a row; cells
//           that are left over have target -1.
// Order     training: S rows an epoch (windows: floor(T / L)); sample n is row P(n mod S) of epoch n / S,
//           where P is a keyed permutation with key (seed, epoch) (sample_order.h). It does not depend on
//           the length of the run, the batch size or the worker. sequential: sample n is window n, the
//           last one padded with target -1: every target once, so that the loss of a split is exact and
//           bits per byte = nats / ln 2 / text_bytes()
// Masks     kDocumentMasks: attention starts anew and positions restart at each document. Without BOS,
//           the EOD before a document is its first token: it sees nothing but itself and predicts the
//           document's first token; no target is lost. With BOS the document starts there, and the
//           prediction of BOS from the document before has target -1. A document that a window cuts
//           starts again in the next one. kConcatenated: the window is one text, as GPT-2 was trained.
// Cost      O(shards) to construct (the manifest), O(1) to start at any n; per row one read of L + 1
//           tokens, or of each piece, and with masks a binary search. No index files, no state
// Threads   fill() from any number of threads at once
// Errors    Usage: no such split, or it has less than one window. Data: damage, naming the file. Storage:
//           as the file system says
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/loader/batch.h"
#include "data/loader/sample_order.h"
#include "data/loader/split_stream.h"
#include "data/shard/pack_plan.h"
#include "io/file_system.h"

namespace stoker::data {

enum class PackingMode { kDocumentMasks, kConcatenated };

struct LoaderOptions {
  std::string split = "train";
  int64_t sequence_length = 0;
  uint64_t seed = 0;
  PackingMode mode = PackingMode::kDocumentMasks;
  bool sequential = false;  // evaluation: windows in order
  // Shards are staged through a cache on local disk when the dataset lies behind a URL, or when a directory is given here (for a
  // slow mounted file system). Default for URLs: $STOKER_CACHE, else ~/.cache/stoker. No influence on the samples.
  std::string cache_directory;
  uint64_t cache_bytes = uint64_t{10} << 30;
  std::string plan;  // name of the packing plan; empty: windows
  // Rows that are shuffled among each other; 0: all of the epoch (sample_order.h, near).
  uint64_t shuffle_rows = 0;
};

class Loader final : public SampleSource {
 public:
  // `path`: the dataset's directory or manifest; also s3://bucket/key, http:// and https:// (io/object_store.h).
  Loader(io::FileSystem& fs, const std::string& path, LoaderOptions options);
  Loader(Dataset dataset, LoaderOptions options, std::unique_ptr<ShardSource> source);
  ~Loader() override;
  Loader(const Loader&) = delete;
  Loader(Loader&&) noexcept;

  uint64_t samples_per_epoch() const { return samples_; }
  // In training any number is good (epochs follow one another); in sequential mode rows past samples_per_epoch() are padding with
  // targets -1.
  void fill(uint64_t first_sample, int64_t rows, Batch& batch) const override;
  void will_fill(uint64_t first_sample, int64_t rows) const override;
  // With a plan, which tokens a sample takes stands in files of their own: said of all samples before the first is looked up
  // (will_fill, targets_of, fill_row), so that they arrive side by side. Does not block.
  void will_look_up(uint64_t sample) const;
  // One row of a batch that has been shaped for sequence_length.
  void fill_row(uint64_t sample, int64_t row, Batch& batch) const;
  // Cells of a sample's row that have a target. Windows that begin documents with BOS: an upper bound.
  uint64_t targets_of(uint64_t sample) const;

  Hash128 manifest_hash() const { return dataset_.hash(); }
  const Manifest& manifest() const { return dataset_.manifest(); }
  const Dataset& dataset() const { return dataset_; }
  const PackPlanManifest* plan() const { return plan_ ? &*plan_ : nullptr; }
  const LoaderOptions& options() const { return options_; }
  uint64_t tokens() const { return stream_->tokens(); }
  uint64_t text_bytes() const { return text_bytes_; }  // raw UTF-8 bytes of the split's documents
  uint64_t targets_per_epoch() const;  // tokens with a loss in one sequential pass without masks

  // Which row (window, or row of the plan) sample n is, and back: the sample of epoch `epoch` that shows row w. For lineage.
  uint64_t window_of(uint64_t sample) const;
  uint64_t sample_of(uint64_t epoch, uint64_t window) const;
  // Stream positions that window w predicts: [first, first + length), less at the end of a sequential pass. Without a plan.
  uint64_t first_target(uint64_t window) const;
  // What a row predicts, in the order of its cells: ranges of the split's stream.
  struct Range {
    uint64_t first = 0, count = 0;
    bool operator==(const Range&) const = default;
  };
  std::vector<Range> predicted_by(uint64_t row) const;
  // The rows that predict any of the stream positions [first, first + count), ascending.
  std::vector<uint64_t> rows_that_predict(uint64_t first, uint64_t count) const;

 private:
  struct OpenRows;
  bool rows_open(size_t shard) const;
  std::shared_ptr<const OpenRows> open_rows(size_t shard) const;
  size_t shard_of_row(uint64_t row) const;  // of the plan
  void pieces_of(uint64_t row, std::vector<PackedPiece>& pieces, uint64_t& shard_start) const;
  void fill_window(uint64_t sample, int64_t row, Batch& batch) const;
  void fill_packed(uint64_t sample, int64_t row, Batch& batch) const;
  Dataset dataset_;
  LoaderOptions options_;
  std::unique_ptr<SplitStream> stream_;
  uint64_t text_bytes_ = 0;
  uint64_t samples_ = 0;
  SampleOrder order_;
  std::optional<PackPlanManifest> plan_;
  std::vector<uint64_t> row_starts_;  // of each shard's rows in the plan, and the end
  struct Opened {
    std::mutex mutex;
    std::map<size_t, std::shared_ptr<const OpenRows>> rows;
  };
  std::unique_ptr<Opened> opened_;
  int64_t separator_ =
      -1;  // the virtual token before position 0, which also starts documents; -1: there is none
  uint64_t origin_ = 0;  // stream position of the first target
};

}  // namespace stoker::data
