#include "train/ledger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "io/faulty_file_system.h"

namespace stoker::train {
namespace {

constexpr uint64_t kSamples = 4;  // of a batch

class LedgerFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "ledger.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ + "/ledger.jsonl";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static LedgerLine line(uint64_t batch, uint64_t generation) {
    return {batch, batch * kSamples, kSamples, generation, static_cast<int64_t>(batch) + 1, {"w"}, {}};
  }
  void expect_whole(uint64_t batches) {
    const LedgerCheck check = check_ledger(path_, batches, kSamples);
    EXPECT_EQ(check.batches, batches);
    EXPECT_EQ(check.lost, 0u);
    EXPECT_EQ(check.repeated, 0u);
    EXPECT_EQ(batches_in_ledger(path_), batches);
  }
  io::FileSystem& fs_ = io::real_file_system();
  std::string folder_, path_;
};

TEST_F(LedgerFile, ARankThatWakesAfterItWasGivenUpWritesToNobody) {
  Ledger stopped(fs_, path_, 0, kSamples, 1);
  for (uint64_t b = 0; b < 3; ++b) stopped.write(line(b, 1));
  Ledger next(fs_, path_, 4, kSamples, 2);  // batch 3 was committed, its line was not written
  next.write(line(4, 2));
  stopped.write(line(3, 1));
  next.write(line(5, 2));
  expect_whole(6);
}

TEST_F(LedgerFile, AResumeFromAnOlderCheckpointCutsOffWhatIsBeyond) {
  {
    Ledger first(fs_, path_, 0, kSamples, 1);
    for (uint64_t b = 0; b < 9; ++b) first.write(line(b, 1));
  }
  Ledger again(fs_, path_, 5, kSamples, 2);
  expect_whole(5);
  again.write(line(5, 2));
  expect_whole(6);
}

TEST_F(LedgerFile, ATornLastLineIsWrittenAnew) {
  {
    Ledger first(fs_, path_, 0, kSamples, 1);
    for (uint64_t b = 0; b < 3; ++b) first.write(line(b, 1));
  }
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 7);
  const Ledger again(fs_, path_, 3, kSamples, 2);
  expect_whole(3);
}

// Wherever the disk is full, in the middle of a line too: an error, and the lines that were not written come with the next process.
TEST_F(LedgerFile, AFullDiskIsAnErrorAndLeavesNoGap) {
  for (const io::Fault fault : {io::Fault::kFullDisk, io::Fault::kShortWrite}) {
    constexpr uint64_t kBatches = 5;
    for (uint64_t at = 0;; ++at) {
      std::filesystem::remove(path_);
      { Ledger(fs_, path_, 2, kSamples, 1); }
      io::FaultyFileSystem full(fs_);
      full.arm(fault, at);
      uint64_t committed = 2;
      bool failed = false;
      try {
        Ledger ledger(full, path_, committed, kSamples, 2);
        for (; committed < kBatches; ++committed) ledger.write(line(committed, 2));
        ledger.close();
      } catch (const Error& e) {
        failed = true;
        EXPECT_EQ(e.kind(), ErrorKind::kStorage);
        EXPECT_NE(std::string(e.what()).find("No space left"), std::string::npos) << e.what();
      }
      EXPECT_EQ(batches_in_ledger(path_), committed);
      // One more than was written down: of a batch that others committed.
      { Ledger(fs_, path_, committed + 1, kSamples, 3); }
      expect_whole(committed + 1);
      if (!failed) {
        EXPECT_GT(at, kBatches);
        break;
      }
    }
  }
}

}  // namespace
}  // namespace stoker::train
