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

  // Runs until `vocab_size` tokens exist or no pair occurs min_frequency times. step(tokens) after each merge.
  void run(int32_t vocab_size, uint64_t min_frequency, const std::function<void(int32_t)>& step);

  const std::vector<Merge>& merges() const { return merges_; }
  const std::vector<std::string>& tokens() const { return tokens_; }  // bytes of id first_byte_id + i

 private:
  // The pieces lie one after the other, one cell per byte, each piece followed by a gap. The first cell of a token
  // has its id, the last one (of a token longer than a byte) how far back the first is, with kBack set; those between
  // have kDead. So both neighbours of a token are found without links, in 4 bytes per byte of text.
  static constexpr uint32_t kBack = 0x80000000, kDead = 0xFFFFFFFE, kGap = 0xFFFFFFFF;
  struct Place {
    uint32_t cell, piece;
  };
  struct Pair {
    int32_t left, right;
    int64_t count = 0;
    uint32_t first_slice = kNoSlice;
  };
  struct PairSlot {
    uint64_t key =
        0;  // left << 32 | right; no pair is (0, 0) twice over: index says whether the slot is used
    uint32_t index = 0xFFFFFFFF;
  };
  struct Slice {  // places where the pair was when they were recorded; some may be gone
    uint64_t begin, end;
    uint32_t next;
  };
  static constexpr uint32_t kNoSlice = 0xFFFFFFFF, kNoPair = 0xFFFFFFFF;
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
  // What one merge changes, by neighbour: dense arrays with a list of touched entries instead of hashing each place.
  struct Record {
    int32_t neighbour;
    Place place;  // of the new pair
  };
  struct Tally {
    std::vector<int64_t> gained;  // by the new pair, and lost by the old one
    std::vector<uint32_t> places;
    std::vector<int32_t> touched;
    std::vector<Record> records;
    void resize(size_t ids) { gained.resize(ids), places.resize(ids); }
    void add(int32_t neighbour, int64_t weight, Place place) {
      const auto n = static_cast<size_t>(neighbour);
      if (!gained[n]) touched.push_back(neighbour);
      gained[n] += weight;
      ++places[n];
      records.push_back({neighbour, place});
    }
  };

  void lay_out(const PieceCounter& pieces, int32_t first_byte_id);
  void count_first_pairs();
  void offer(uint32_t pair);
  bool lower_floor(int64_t least);
  int32_t result_of(int32_t left, int32_t right);
  void apply(int32_t left, int32_t right, int32_t result, uint32_t pair);
  void record(Tally& tally, bool neighbour_is_left, int32_t result);
  void settle(Tally& tally, bool neighbour_is_left, int32_t other);

  static uint64_t pair_key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t pair_home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u) >> pair_shift_; }
  uint32_t pair_index(int32_t left, int32_t right);
  void fetch_slot(uint64_t key) const { __builtin_prefetch(&pair_slots_[pair_home(key)]); }
  void grow_pair_slots();

  int32_t first_id_;
  std::unordered_set<std::string> forbidden_;
  std::vector<std::string> tokens_;
  std::vector<uint32_t> lengths_;  // by id
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<Merge> merges_;

  std::vector<uint32_t> cells_;
  std::vector<int64_t> weight_;  // by piece: how often it occurs

  std::vector<Pair> pairs_;
  std::vector<PairSlot> pair_slots_;
  int pair_shift_ = 0;
  std::vector<Slice> slices_;
  std::vector<Place> places_, scratch_;
  std::vector<uint64_t> next_place_;

  // Pairs with at least floor_ occurrences are in the queue (with their count or an outdated higher one). The rest,
  // most of all pairs, wait until the queue runs dry: then the floor is lowered and the pairs are looked through.
  std::priority_queue<Candidate> queue_;
  int64_t floor_ = 0;
  Tally left_, right_;
};

}  // namespace stoker::tokenizer
