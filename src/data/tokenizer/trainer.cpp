#include "data/tokenizer/trainer.h"

#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/stop.h"
#include "base/threads.h"
#include "data/tokenizer/merge_search.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/piece_counter.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {

struct BpeTrainer::State {
  TrainOptions options;
  PieceFinder find{SplitPattern::kLlama3};
  // A thread takes any free lane, so that threads that add at the same time do not wait for each other.
  struct Lane {
    std::mutex busy;
    PieceCounter counter;
    Counts counts;
  };
  std::vector<std::unique_ptr<Lane>> lanes;
};

BpeTrainer::BpeTrainer(TrainOptions options) : state_(std::make_unique<State>()) {
  const auto specials = static_cast<int32_t>(options.special_tokens.size());
  if (options.vocab_size < 256 + specials)
    fail(ErrorKind::kUsage,
         "vocabulary size {} is too small: {} special tokens and 256 bytes need at least {}",
         options.vocab_size, specials, 256 + specials);
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    const std::string& s = options.special_tokens[i];
    std::string bytes;
    if (s.empty() || (alphabet_to_bytes(s, bytes) && bytes.size() == 1))
      fail(ErrorKind::kUsage, "special token '{}' is {}: use a name such as <|endoftext|>", s,
           s.empty() ? "empty" : "a single byte, which is a token already");
    for (size_t j = 0; j < i; ++j)
      if (options.special_tokens[j] == s) fail(ErrorKind::kUsage, "special token '{}' is given twice", s);
  }
  state_->options = std::move(options);
  state_->find = PieceFinder(state_->options.split);
  const size_t lanes = std::max(1u, std::thread::hardware_concurrency());
  for (size_t i = 0; i < lanes; ++i) state_->lanes.push_back(std::make_unique<State::Lane>());
}

BpeTrainer::~BpeTrainer() = default;
BpeTrainer::BpeTrainer(BpeTrainer&&) noexcept = default;

void BpeTrainer::add(std::string_view text) {
  std::string storage;
  const uint64_t bytes = text.size();
  if (state_->options.nfc) text = to_nfc(text, storage);
  State::Lane* lane = nullptr;
  std::unique_lock<std::mutex> lock;
  for (auto& candidate : state_->lanes) {
    lock = std::unique_lock(candidate->busy, std::try_to_lock);
    if (lock) {
      lane = candidate.get();
      break;
    }
  }
  if (!lane) {
    lane =
        state_->lanes[std::hash<std::thread::id>{}(std::this_thread::get_id()) % state_->lanes.size()].get();
    lock = std::unique_lock(lane->busy);
  }
  const char* end = text.data() + text.size();
  const size_t longest = state_->options.max_piece_bytes;
  uint64_t pieces = 0;
  for_each_piece(state_->find, text, [&](std::string_view piece) {
    ++pieces;
    if (piece.size() > longest) lane->counts.skipped_bytes += piece.size();
    else lane->counter.add(piece, static_cast<size_t>(end - piece.data()));
  });
  lane->counts.bytes += bytes;
  lane->counts.pieces += pieces;
}

void BpeTrainer::add_parallel(std::string_view text, const std::function<void(uint64_t)>& done) {
  constexpr size_t kPart = size_t{1} << 20;
  std::vector<std::string_view> parts;
  while (text.size() > kPart) {
    size_t cut = last_safe_cut(text, kPart);
    if (!cut) cut = first_safe_cut(text, kPart);
    if (cut == text.size()) break;
    parts.push_back(text.substr(0, cut));
    text.remove_prefix(cut);
  }
  if (!text.empty()) parts.push_back(text);
  parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t i) {
    if (stop_requested())
      fail(ErrorKind::kCancelled, "training of the tokenizer was stopped while it read text");
    add(parts[static_cast<size_t>(i)]);
    if (done) done(parts[static_cast<size_t>(i)].size());
  });
}

BpeTrainer::Counts BpeTrainer::counts() const {
  Counts sum;
  for (auto& lane : state_->lanes) {
    std::lock_guard lock(lane->busy);
    sum.bytes += lane->counts.bytes;
    sum.pieces += lane->counts.pieces;
    sum.skipped_bytes += lane->counts.skipped_bytes;
  }
  return sum;
}

Tokenizer BpeTrainer::train(const std::function<void(int32_t, int32_t)>& merged) const {
  const TrainOptions& o = state_->options;
  PieceCounter all;
  for (auto& lane : state_->lanes) {
    std::lock_guard lock(lane->busy);
    all.merge(lane->counter);
  }
  const auto specials = static_cast<int32_t>(o.special_tokens.size());
  std::unordered_set<std::string> forbidden;
  for (const auto& s : o.special_tokens) {
    std::string bytes;
    if (alphabet_to_bytes(s, bytes)) forbidden.insert(bytes);
  }
  MergeSearch search(all, specials, std::move(forbidden));
  search.run(o.vocab_size, o.min_frequency, [&](int32_t tokens) {
    if (tokens % 64) return;
    if (stop_requested())
      fail(ErrorKind::kCancelled, "training of the tokenizer was stopped at {} tokens", tokens);
    if (merged) merged(tokens, o.vocab_size);
  });
  if (merged) merged(specials + static_cast<int32_t>(search.tokens().size()), o.vocab_size);

  Definition d;
  d.split = o.split;
  d.nfc = o.nfc;
  for (int32_t i = 0; i < specials; ++i) {
    const std::string& content = o.special_tokens[static_cast<size_t>(i)];
    d.added.push_back({i, content, false, false, false, false, true});
    std::string bytes;
    const bool literal = !alphabet_to_bytes(content, bytes);
    d.vocab.push_back({i, literal ? content : bytes, literal});
  }
  int32_t id = specials;
  for (const std::string& bytes : search.tokens()) d.vocab.push_back({id++, bytes, false});
  d.merges = search.merges();
  return Tokenizer(std::move(d));
}

}  // namespace stoker::tokenizer
