// data/shard/record_log.h
// Fixed-size records that are written one by one and read back in order, any number of times, once there are no more: what a file
// needs to know before its first byte can be written. The first kHeld lie in memory, the rest in a temporary file.
//   RecordLog<Row> log(fs, "d/train_00000.docs")   the temporary lies beside that name, made when it is needed, gone with the log
// Memory  at most kHeld records, and a block of them while they are read
// Errors  Storage: as the file system says
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "io/atomic_write.h"

namespace stoker::data {

template <typename Record>
class RecordLog {
  static_assert(std::is_trivially_copyable_v<Record>);

 public:
  static constexpr size_t kHeld = size_t{1} << 14;

  RecordLog(io::FileSystem& fs, std::string beside) : fs_(fs), beside_(std::move(beside)) {}
  void push_back(const Record& record) {
    if (held_.size() == kHeld) flush();
    held_.push_back(record);
  }
  uint64_t size() const { return filed_ + held_.size(); }

  template <typename Each>
  void for_each(Each&& each) const {
    if (file_) {
      const auto reader = fs_.open_read(file_->file().path(), io::Access::kSequential);
      std::vector<Record> block(kHeld / 4);
      for (uint64_t at = 0; at < filed_; at += block.size()) {
        block.resize(std::min<uint64_t>(block.size(), filed_ - at));
        reader->read_at(at * sizeof(Record), block.data(), block.size() * sizeof(Record));
        for (const Record& record : block) each(record);
      }
    }
    for (const Record& record : held_) each(record);
  }

 private:
  void flush() {
    if (!file_) file_ = std::make_unique<io::AtomicFile>(fs_, beside_);  // never committed
    file_->file().append(held_.data(), held_.size() * sizeof(Record));
    filed_ += held_.size();
    held_.clear();
  }

  io::FileSystem& fs_;
  std::string beside_;
  std::vector<Record> held_;
  std::unique_ptr<io::AtomicFile> file_;
  uint64_t filed_ = 0;
};

}  // namespace stoker::data
