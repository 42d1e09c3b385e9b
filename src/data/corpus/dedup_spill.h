// data/corpus/dedup_spill.h
// A bag of fixed-size records that are grouped later: kept in memory up to a budget, then appended to
// nameless files, one a partition, in a directory that tables may share.
//   add(record, partition)         partition in [0, kPartitions): records that must meet share one
//   for_each_partition(slice_of, body)   body(std::vector<Record>&) once per partition or, when a partition is larger than
//                                  the budget, once per slice, in order; slice_of(record, slices) < slices must be equal for
//                                  records that must meet
// Memory   at most the budget for held records, and the budget again while one slice is being grouped
// Errors   Storage: the spill directory cannot be written or read (disk full names the file)
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace stoker::corpus {

struct SpillBudget {
  std::string directory;               // created on the first spill; empty: never spill
  uint64_t memory_bytes = 256u << 20;  // for held records
};

template <typename Record>
class SpillTable {
  static_assert(std::is_trivially_copyable_v<Record>);

 public:
  static constexpr size_t kPartitions = 64;
  explicit SpillTable(SpillBudget budget) : budget_(std::move(budget)) {}
  SpillTable(const SpillTable&) = delete;
  SpillTable& operator=(const SpillTable&) = delete;

  void add(const Record& record, size_t partition) {
    auto& held = held_[partition];
    if (held.size() == held.capacity()) {
      const size_t more = std::max<size_t>(256, held.size());
      if (!budget_.directory.empty() && (capacity_ + more) * sizeof(Record) > budget_.memory_bytes) {
        spill();
      }
      held.reserve(held.size() + more);
      capacity_ += held.capacity() - (held.size() ? held.size() : 0);
    }
    held.push_back(record);
  }

  template <typename SliceOf, typename Body>
  void for_each_partition(SliceOf&& slice_of, Body&& body) {
    if (spilled_) spill();
    for (auto& file : files_)
      if (file && std::fflush(file.get()) != 0) storage_error("write", 0);
    std::vector<Record> records;
    for (size_t p = 0; p < kPartitions; ++p) {
      if (!files_[p]) {
        records.swap(held_[p]);
        if (!records.empty()) body(records);
        std::vector<Record>().swap(records);
        continue;
      }
      const uint64_t bytes = counts_[p] * sizeof(Record);
      const uint64_t slices =
          std::max<uint64_t>(1, (bytes + budget_.memory_bytes - 1) / budget_.memory_bytes);
      for (uint64_t slice = 0; slice < slices; ++slice) {
        records.clear();
        // Slices are about equal; growth by doubling would take three times as much for a moment.
        records.reserve(counts_[p] / slices + counts_[p] / slices / 32 + 64);
        read_back(p, [&](const Record& r) {
          if (slice_of(r, slices) == slice) records.push_back(r);
        });
        if (!records.empty()) body(records);
      }
    }
  }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  using File = std::unique_ptr<std::FILE, Close>;

  std::string path(size_t p) const { return budget_.directory + "/spill-" + std::to_string(p); }
  [[noreturn]] void storage_error(const char* what, size_t p) const {
    fail(ErrorKind::kStorage,
         "cannot {} spill file {}: {}; free space there or choose another spill directory", what, path(p),
         std::strerror(errno));
  }
  void spill() {
    if (!spilled_) {
      std::error_code error;
      std::filesystem::create_directories(budget_.directory, error);
      if (error)
        fail(ErrorKind::kStorage, "cannot make spill directory {}: {}", budget_.directory, error.message());
    }
    for (size_t p = 0; p < kPartitions; ++p) {
      auto& held = held_[p];
      if (held.empty()) continue;
      if (!files_[p]) {
        files_[p].reset(std::fopen(path(p).c_str(), "w+b"));
        if (!files_[p]) storage_error("open", p);
        std::remove(path(p).c_str());  // it is gone with the process, whatever ends it
      }
      if (std::fwrite(held.data(), sizeof(Record), held.size(), files_[p].get()) != held.size())
        storage_error("write", p);
      counts_[p] += held.size();
      spilled_ += held.size() * sizeof(Record);
      std::vector<Record>().swap(held);
    }
    capacity_ = 0;
  }
  template <typename Each>
  void read_back(size_t p, Each&& each) {
    std::FILE* f = files_[p].get();
    if (std::fseek(f, 0, SEEK_SET) != 0) storage_error("seek in", p);
    std::array<Record, 4096> block;
    uint64_t seen = 0;
    while (const size_t got = std::fread(block.data(), sizeof(Record), block.size(), f)) {
      for (size_t i = 0; i < got; ++i) each(block[i]);
      seen += got;
    }
    if (seen != counts_[p]) {
      if (!std::ferror(f)) errno = EIO;
      storage_error("read back", p);
    }
  }

  SpillBudget budget_;
  std::array<std::vector<Record>, kPartitions> held_;
  std::array<File, kPartitions> files_;
  std::array<uint64_t, kPartitions> counts_{};
  uint64_t capacity_ = 0;  // records that the held vectors have room for
  uint64_t spilled_ = 0;   // bytes
};

}  // namespace stoker::corpus
