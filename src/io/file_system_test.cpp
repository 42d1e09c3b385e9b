#include "io/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/expect_error.h"
#include "io/atomic_write.h"
#include "io/faulty_file_system.h"
#include "io/memory_file_system.h"
#include "io/transfer.h"

namespace stoker::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = testing::TempDir() + "stoker-io-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { remove_tree(real_file_system(), path_); }
  std::string operator/(std::string_view name) const { return join(path_, name); }

 private:
  std::string path_;
};

// The same expectations for the real and the fake one.
void exercise(FileSystem& fs, const std::string& root) {
  fs.make_dirs(join(root, "a/b"));
  EXPECT_TRUE(fs.exists(join(root, "a/b")));
  EXPECT_TRUE(fs.info(join(root, "a")).directory);
  const std::string path = join(root, "a/f");
  {
    auto f = fs.create(path);
    f->append("hello ");
    f->append("world");
    f->write_at(0, "J", 1);
    f->write_at(13, "!", 1);  // a hole reads as zeros
    EXPECT_EQ(f->size(), 14u);
    f->sync();
    f->close();
  }
  EXPECT_EQ(read_text(fs, path), std::string("Jello world\0\0!", 14));
  {
    auto f = fs.open_append(path);
    EXPECT_EQ(f->size(), 14u);
    f->append("?");
    f->close();
  }
  auto r = fs.open_read(path, Access::kRandom);
  EXPECT_EQ(r->size(), 15u);
  EXPECT_EQ(r->text().substr(0, 5), "Jello");
  char two[2];
  r->read_at(13, two, 2);
  EXPECT_EQ(std::string(two, 2), "!?");
  const Error past = error_of([&] { r->read_at(14, two, 2); });
  EXPECT_EQ(past.kind(), ErrorKind::kData);
  EXPECT_THAT(past.what(), HasSubstr("ends at byte 15"));
  EXPECT_THAT(past.what(), HasSubstr(path));

  fs.create(join(root, "empty"))->close();
  EXPECT_TRUE(fs.open_read(join(root, "empty"))->map().empty());
  EXPECT_THAT(fs.list(root), ElementsAre("a", "empty"));
  fs.rename(join(root, "empty"), join(root, "a/full"));
  EXPECT_THAT(fs.list(join(root, "a")), ElementsAre("b", "f", "full"));
  EXPECT_EQ(error_of([&] { fs.remove(join(root, "a")); }).kind(), ErrorKind::kStorage);
  const Error missing = error_of([&] { fs.open_read(join(root, "none")); });
  EXPECT_EQ(missing.kind(), ErrorKind::kUsage);
  EXPECT_THAT(missing.what(), HasSubstr("No such file"));
  EXPECT_EQ(error_of([&] { fs.open_read(root); }).kind(), ErrorKind::kUsage);
  EXPECT_EQ(error_of([&] { fs.create(join(root, "none/f")); }).kind(), ErrorKind::kUsage);
  EXPECT_EQ(error_of([&] { fs.make_dirs(join(path, "x")); }).kind(), ErrorKind::kUsage);
  EXPECT_EQ(error_of([&] { read_text(fs, path, 4); }).kind(), ErrorKind::kData);
  EXPECT_GT(fs.free_bytes(join(root, "not/yet/there")), 0u);
  remove_tree(fs, join(root, "a"));
  EXPECT_FALSE(fs.exists(join(root, "a")));
  remove_tree(fs, join(root, "a"));
}

TEST(FileSystem, Real) {
  const TemporaryDirectory dir;
  exercise(real_file_system(), dir / "root");
}
TEST(FileSystem, Memory) {
  MemoryFileSystem fs;
  exercise(fs, "root");
}
TEST(FileSystem, FaultyButDisarmed) {
  MemoryFileSystem memory;
  FaultyFileSystem fs(memory);
  exercise(fs, "root");
  EXPECT_GT(fs.operations(), 10u);
}

TEST(FileSystem, Paths) {
  EXPECT_EQ(parent_of("a"), ".");
  EXPECT_EQ(parent_of("/a"), "/");
  EXPECT_EQ(parent_of("a/b/"), "a");
  EXPECT_EQ(parent_of("a//b"), "a");
  EXPECT_EQ(parent_of("/"), "/");
  EXPECT_EQ(name_of("a/b/"), "b");
  EXPECT_EQ(name_of("b"), "b");
  EXPECT_EQ(join("a", "b"), "a/b");
  EXPECT_EQ(join("/", "b"), "/b");
}

TEST(Transfer, GoesOnAfterInterruptsAndShortCounts) {
  std::string to;
  const std::string from = "the quick brown fox";
  int calls = 0;
  const auto call = [&](size_t done, size_t n) -> ssize_t {
    if (++calls % 2) {
      errno = EINTR;
      return -1;
    }
    const size_t take = std::min<size_t>(n, 3);
    to += from.substr(done, take);
    return static_cast<ssize_t>(take);
  };
  EXPECT_EQ(transfer_all(from.size(), true, call), static_cast<ssize_t>(from.size()));
  EXPECT_EQ(to, from);
  EXPECT_EQ(transfer_all(5, true, [](size_t, size_t) { return ssize_t{0}; }), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(transfer_all(5, false, [](size_t done, size_t) { return done ? ssize_t{0} : ssize_t{2}; }), 2);
}

// A file size limit makes the kernel itself deliver a short write and then an error.
TEST(FileSystem, RealShortWriteIsReported) {
  const TemporaryDirectory dir;
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = 1000;
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const std::string path = dir / "big";
  auto f = real_file_system().create(path);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string data(4000, 'x');
  const Error e = error_of([&] { f->append(data); });
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(e.kind(), ErrorKind::kStorage);
  EXPECT_THAT(e.what(), HasSubstr("File too large"));
  EXPECT_EQ(real_file_system().info(path).size, 1000u);
}

TEST(FileSystem, FullDiskNamesPathAndSpaceLeft) {
  if (real_file_system().exists("/dev/full")) {
    // The real thing: every write to this device fails with ENOSPC.
    const Error real = error_of([] { real_file_system().create("/dev/full")->append("x"); });
    EXPECT_EQ(real.kind(), ErrorKind::kStorage);
    EXPECT_THAT(real.what(), HasSubstr("No space left"));
  }
  MemoryFileSystem fs(100);
  auto f = fs.create("f");
  f->append(std::string(60, 'x'));
  const Error e = error_of([&] { f->append(std::string(60, 'x')); });
  EXPECT_EQ(e.kind(), ErrorKind::kStorage);
  EXPECT_THAT(e.what(), HasSubstr("cannot write 'f': No space left on device (40 B free"));
}

TEST(Atomic, FileIsOldOrNewAfterAFaultAtEveryOperation) {
  uint64_t operations = 0;
  {
    MemoryFileSystem memory;
    FaultyFileSystem fs(memory);
    write_file_atomic(fs, "d", "new contents");
    operations = fs.operations();
  }
  ASSERT_GE(operations, 6u);
  for (const Fault fault :
       {Fault::kFullDisk, Fault::kShortWrite, Fault::kIoError, Fault::kCrash, Fault::kTornCrash})
    for (uint64_t at = 0; at < operations; ++at)
      for (uint64_t seed = 0; seed < 8; ++seed) {
        MemoryFileSystem memory;
        write_file_atomic(memory, "d", "old");
        FaultyFileSystem fs(memory);
        fs.arm(fault, at);
        bool thrown = false;
        try {
          write_file_atomic(fs, "d", "new contents");
        } catch (const Error& e) {
          thrown = true;
          EXPECT_EQ(e.kind(), ErrorKind::kStorage);
        } catch (const Crashed&) {
          thrown = true;
        }
        EXPECT_TRUE(thrown);
        if (fault != Fault::kCrash && fault != Fault::kTornCrash) {
          EXPECT_THAT(memory.list("."), ElementsAre("d"));  // the temporary is gone
        }
        memory.crash(seed ? MemoryFileSystem::Crash::kMix : MemoryFileSystem::Crash::kLoseUnsynced, seed);
        const std::string now = read_text(memory, "d");
        EXPECT_TRUE(now == "old" || now == "new contents") << now << " at " << at;
      }
}

TEST(Atomic, CommittedFileSurvivesPowerLoss) {
  MemoryFileSystem fs;
  write_file_atomic(fs, "d", "kept");
  fs.create("lost")->append("not synced");
  fs.crash(MemoryFileSystem::Crash::kLoseUnsynced);
  EXPECT_EQ(read_text(fs, "d"), "kept");
  EXPECT_FALSE(fs.exists("lost"));
}

TEST(Atomic, DirectoryAppearsWholeOrNotAtAll) {
  const auto write = [](FileSystem& fs) {
    AtomicDirectory out(fs, "runs/step-1/");
    for (const char* name : {"a", "b"}) {
      auto f = fs.create(join(out.staging(), name));
      f->append(name);
      f->sync();
      f->close();
    }
    out.commit();
  };
  uint64_t operations = 0;
  {
    MemoryFileSystem memory;
    FaultyFileSystem fs(memory);
    write(fs);
    operations = fs.operations();
    memory.crash(MemoryFileSystem::Crash::kLoseUnsynced);
    EXPECT_THAT(memory.list("runs/step-1"), ElementsAre("a", "b"));
    EXPECT_EQ(error_of([&] { AtomicDirectory again(memory, "runs/step-1"); }).kind(), ErrorKind::kUsage);
  }
  for (uint64_t at = 0; at < operations; ++at)
    for (uint64_t seed = 0; seed < 8; ++seed) {
      MemoryFileSystem memory;
      FaultyFileSystem fs(memory);
      fs.arm(Fault::kTornCrash, at);
      EXPECT_THROW(write(fs), Crashed);
      memory.crash(seed ? MemoryFileSystem::Crash::kMix : MemoryFileSystem::Crash::kLoseUnsynced, seed);
      if (memory.exists("runs/step-1")) {
        EXPECT_EQ(read_text(memory, "runs/step-1/a"), "a");
        EXPECT_EQ(read_text(memory, "runs/step-1/b"), "b");
      }
    }
}

TEST(Atomic, TemporaryNames) {
  EXPECT_TRUE(is_temporary_name("step-10.tmp-123-0"));
  EXPECT_FALSE(is_temporary_name("step-10"));
  EXPECT_FALSE(is_temporary_name("notes.tmp-old"));
}

TEST(Faulty, ReadErrors) {
  MemoryFileSystem memory;
  write_file_atomic(memory, "d", "contents");
  FaultyFileSystem fs(memory, FaultyFileSystem::Count::kReads);
  fs.arm(Fault::kIoError, 1);
  const auto f = fs.open_read("d");
  char c;
  const Error e = error_of([&] { f->read_at(0, &c, 1); });
  EXPECT_EQ(e.kind(), ErrorKind::kStorage);
  EXPECT_THAT(e.what(), HasSubstr("cannot read 'd': Input/output error"));
  f->read_at(0, &c, 1);
  EXPECT_EQ(c, 'c');
}

}  // namespace
}  // namespace stoker::io
