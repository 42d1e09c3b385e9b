// data/tokenizer/trainer.h
// Trains a byte-level BPE tokenizer.
// Vocabulary   special tokens first, then the 256 bytes in the order of their characters in the byte alphabet,
//              then one token per merge, as Hugging Face's BpeTrainer with the ByteLevel alphabet numbers them
// Greedy       each step merges the adjacent pair with the highest count (64 bits); among equal counts the pair
//              with the smaller left id, then the smaller right id. A merge whose result spells an existing token
//              reuses it
// Determinism  the same texts, in any order, on any number of threads, give the same bytes
// Memory       proportional to the number of distinct pieces (times the threads that add at the same time), not
//              text
// Cost         counting: split speed; merging: about the total length of the distinct pieces times a small
//              constant
// Errors       Usage: vocabulary size or special tokens that make no sense. Cancelled: stop_requested() in
//              train()
// Source       Sennrich et al. 2016, arXiv:1508.07909; lazily refreshed heap over incremental pair counts
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace stoker::tokenizer {

struct TrainOptions {
  int32_t vocab_size =
      32768;  // including special tokens and bytes; reached unless the text has too few pairs
  SplitPattern split = SplitPattern::kLlama3;
  bool nfc = false;
  uint64_t min_frequency = 2;  // pairs seen less often are not merged
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  // Longer pieces (encoded data, not words) are left out of the counts, so that one of them cannot hold the
  // memory of millions of words.
  size_t max_piece_bytes = 65536;
};

class BpeTrainer {
 public:
  explicit BpeTrainer(TrainOptions options);
  ~BpeTrainer();
  BpeTrainer(BpeTrainer&&) noexcept;

  void add(std::string_view text);  // one document (or a part that ends at a safe cut); from any thread

  // A long text, cut at safe cuts and counted on compute_threads() threads; the same result as add(text).
  // done(bytes) after each part, from any thread. Cancelled: stop_requested().
  void add_parallel(std::string_view text, const std::function<void(uint64_t bytes)>& done = {});

  struct Counts {
    uint64_t bytes = 0, pieces = 0, skipped_bytes = 0;
  };
  Counts counts() const;

  // merged: called now and then with (tokens so far, vocab_size). May be called again after more add().
  Tokenizer train(const std::function<void(int32_t done, int32_t total)>& merged = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoker::tokenizer
