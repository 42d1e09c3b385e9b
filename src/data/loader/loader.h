// data/loader/loader.h
// Feeds training and evaluation: global sample number n -> one row of a batch, as a pure function of
// (manifest, options, n).
//
// Stream        a split is one stream of T tokens: its documents end to end, each ended by the
// end-of-document token (EOD) and
//               begun by BOS, as its tokenizer has them. Window w of length L predicts stream positions w L
//               .. w L + L - 1, each from the token before it; before position 0 stands a virtual EOD. (With
//               BOS, or without EOD, everything shifts by one: position 0 is given, not predicted.) So
//               windows share one token and every prediction belongs to exactly one.
// Order         training: S = floor(T / L) windows an epoch; sample n is window P(n mod S) of epoch n / S,
// where P is a keyed
//               permutation with key (seed, epoch). It does not depend on the length of the run, the batch
//               size or the worker. sequential: sample n is window n, the last one padded with target -1:
//               every target once, so that the loss of a split is exact and bits per byte = nats / ln 2 /
//               text_bytes()
// Masks         kDocumentMasks: attention starts anew and positions restart at each document. Without BOS,
// the EOD before a document
//               is its first token: it sees nothing but itself and predicts the document's first token; no
//               target is lost. With BOS the document starts there, and the prediction of BOS from the
//               document before has target -1. A document that a window cuts starts again in the next one.
//               kConcatenated: the window is one text, as GPT-2 was trained.
// Cost          O(1) to construct and to start at any n; per row one mapped read of L + 1 tokens and, with
// masks, a binary search.
//               No index files, no state
// Threads       fill() from any number of threads at once
// Errors        Usage: no such split, or it has less than one window. Data: damage, naming the file. Storage:
// as the file system says
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/loader/split_stream.h"
#include "io/file_system.h"

namespace stoker::data {

// Every vector is row-major [rows, length].
struct Batch {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;         // -1: no loss here
  std::vector<int32_t> positions;       // for RoPE and learned positions
  std::vector<int32_t> document_start;  // index in the row of the first key that this token may attend to
  bool operator==(const Batch&) const = default;
};

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
};

class Loader {
 public:
  // `path`: the dataset's directory or manifest; also s3://bucket/key, http:// and https:// (io/object_store.h).
  Loader(io::FileSystem& fs, const std::string& path, LoaderOptions options);
  Loader(Dataset dataset, LoaderOptions options, std::unique_ptr<ShardSource> source);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader(Loader&&) noexcept;

  uint64_t samples_per_epoch() const { return samples_; }
  // Samples first_sample .. first_sample + rows - 1. In training any number is good (epochs follow one
  // another); in sequential mode rows past samples_per_epoch() are padding with targets -1.
  void fill(uint64_t first_sample, int64_t rows, Batch& batch) const;
  void will_fill(uint64_t first_sample, int64_t rows) const;  // a hint; does not block

  Hash128 manifest_hash() const { return dataset_.hash(); }
  const Manifest& manifest() const { return dataset_.manifest(); }
  const LoaderOptions& options() const { return options_; }
  uint64_t tokens() const { return stream_->tokens(); }
  uint64_t text_bytes() const { return text_bytes_; }  // raw UTF-8 bytes of the split's documents
  uint64_t targets_per_epoch() const;  // tokens with a loss in one sequential pass without masks

  // Which window sample n is, and back: the sample of epoch `epoch` that shows window w. For lineage.
  uint64_t window_of(uint64_t sample) const;
  uint64_t sample_of(uint64_t epoch, uint64_t window) const;
  // Stream positions that window w predicts: [first, first + length), less at the end of a sequential pass.
  uint64_t first_target(uint64_t window) const;

 private:
  void fill_row(uint64_t sample, int64_t row, Batch& batch, std::vector<int32_t>& tokens,
                std::vector<uint64_t>& starts) const;
  Dataset dataset_;
  LoaderOptions options_;
  std::unique_ptr<SplitStream> stream_;
  uint64_t text_bytes_ = 0;
  uint64_t samples_ = 0;
  int64_t separator_ =
      -1;  // the virtual token before position 0, which also starts documents; -1: there is none
  uint64_t origin_ = 0;  // stream position of the first target
};

}  // namespace stoker::data
