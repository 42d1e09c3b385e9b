// data/corpus/minhash_shingles.h
// Text -> the hashed shingles that near-duplicate detection compares: n-grams of folded words, or of folded
// characters. Folding     lower case, compatibility-decomposed, marks dropped, a run of digits is one 0,
// everything that is not a
//             letter or number separates. Scripts written without spaces (Han, kana, Thai, Lao, Khmer,
//             Burmese) give one word per character. Bytes that are not UTF-8 separate.
// Shingle     a 64-bit hash of n units in order; a text of fewer than n (but at least one) units is one
// shingle of them all Determinism a pure function of the bytes, the kind and n; the same on every machine
// Cost one pass; memory one block of shingles (docs/data-factory.md has measured rates)
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::corpus {

enum class ShingleUnit { kWord, kCharacter };

// Calls sink with blocks of shingles in text order. n >= 1.
void for_each_shingle_block(std::string_view text, ShingleUnit unit, int n,
                            const std::function<void(std::span<const uint64_t>)>& sink);

// All shingles, sorted, without repeats: the set whose Jaccard similarity signatures estimate.
std::vector<uint64_t> shingle_set(std::string_view text, ShingleUnit unit, int n);

// |a and b| / |a or b| of two sorted sets; 0 when both are empty.
double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b);

// The folded words, one space between them: what the hashes see. For tests and for n-gram matching.
std::string fold_words(std::string_view text);

// Calls word(hash, begin, end) for each folded word; [begin, end) are byte offsets into text.
void for_each_folded_word(std::string_view text,
                          const std::function<void(uint64_t hash, size_t begin, size_t end)>& word);

}  // namespace stoker::corpus
