// data/tokenizer/merge_search.h
// The greedy search of BPE training over counted pieces. Private to this room; trainer.h has the contract.
#pragma once
#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/tokenizer/definition.h"
#include "data/tokenizer/piece_counter.h"

namespace stoker::tokenizer {

class MergeSearch {
 public:
  // first_byte_id: id of the first byte of the alphabet order. forbidden: byte strings no merge may spell.
  MergeSearch(const PieceCounter& pieces, int32_t first_byte_id, std::unordered_set<std::string> forbidden);

  // Runs until `vocab_size` tokens exist or no pair occurs min_frequency times. step(tokens) after each
  // merge.
  void run(int32_t vocab_size, uint64_t min_frequency, const std::function<void(int32_t)>& step);

  const std::vector<Merge>& merges() const { return merges_; }
  const std::vector<std::string>& tokens() const { return tokens_; }  // bytes of id first_byte_id + i

 private:
  // The pieces lie one after the other, each followed by a gap. A token of n bytes that starts at p has its
  // id at symbol_[p], dead_ at the others, and p at start_[p + n - 1]: both neighbours are found without
  // links.
  static constexpr int32_t kDead = -1, kGap = -2;
  struct Cell {
    int32_t symbol;
    uint32_t start;
    int64_t weight;  // how often the piece occurs
  };
  struct Pair {
    int32_t left, right;
    int64_t count = 0;
    uint32_t first_slice = kNoSlice;
  };
  struct Slice {  // places where the pair was when they were recorded; some may be gone
    uint64_t begin, end;
    uint32_t next;
  };
  static constexpr uint32_t kNoSlice = 0xFFFFFFFF;
  struct Candidate {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
    // The queue's top is the greatest: higher count, then smaller ids.
    bool operator<(const Candidate& o) const {
      if (count != o.count) return count < o.count;
      if (left != o.left) return left > o.left;
      return right > o.right;
    }
  };
  // What one merge changes, by neighbour: dense arrays with a list of touched entries instead of hashing each
  // place.
  struct Tally {
    std::vector<int64_t> gained;  // by the new pair, and lost by the old one
    std::vector<uint32_t> places;
    std::vector<int32_t> touched;
    std::vector<std::pair<int32_t, uint32_t>> records;  // neighbour, place of the new pair
    void resize(size_t ids) { gained.resize(ids), places.resize(ids); }
    void touch(int32_t id) {
      if (!gained[static_cast<size_t>(id)]) touched.push_back(id);
    }
  };

  void lay_out(const PieceCounter& pieces, int32_t first_byte_id);
  void count_first_pairs();
  uint32_t pair_index(int32_t left, int32_t right);
  void apply(int32_t left, int32_t right, int32_t result, uint32_t pair, int64_t least);
  void grow_pair_slots();
  size_t pair_home(int32_t left, int32_t right) const {
    const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    return (key * 0x9E3779B97F4A7C15u) >> pair_shift_;
  }
  void record(Tally& tally, bool neighbour_is_left, int32_t result, int64_t least);
  void settle(Tally& tally, bool neighbour_is_left, int32_t other);
  int32_t result_of(int32_t left, int32_t right);

  int32_t first_id_;
  std::unordered_set<std::string> forbidden_;
  std::vector<std::string> tokens_;
  std::vector<uint32_t> lengths_;  // by id
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<Merge> merges_;

  std::vector<Cell> cells_;

  std::vector<Pair> pairs_;
  std::vector<uint32_t> pair_slots_;  // open addressing: index into pairs_ + 1, 0 where empty
  int pair_shift_ = 0;
  std::vector<Slice> slices_;
  std::vector<uint32_t> places_;
  std::vector<uint32_t> scratch_;
  std::vector<uint64_t> next_place_;
  std::priority_queue<Candidate> queue_;
  Tally left_, right_;
};

}  // namespace stoker::tokenizer
