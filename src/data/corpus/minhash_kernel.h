// data/corpus/minhash_kernel.h
// The inner loop of MinHash: for every permutation i and shingle x,  minima[i] = min(minima[i], a[i]*lo(x) +
// b[i]*hi(x) + c[i]) with lo, hi the 32-bit halves of x and arithmetic modulo 2^64 (Dietzfelbinger's
// multilinear family on two words). Shapes        a b c minima [count]; count a multiple of 8; a and b below
// 2^32; shingles any number Determinism   integer arithmetic: every candidate gives the same bits as
// minhash_update_reference
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace stoker::corpus {

struct MinHashRows {
  const uint64_t* a;
  const uint64_t* b;
  const uint64_t* c;
  size_t count;
};

void minhash_update_reference(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima);
void minhash_update_avx2(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima);
void minhash_update_avx512(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima);

// The fastest that this processor runs.
void minhash_update(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima);

}  // namespace stoker::corpus
