#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>

#include "base/expect_error.h"
#include "base/random.h"
#include "base/threads.h"
#include "checkpoint/background_writer.h"
#include "io/atomic_write.h"
#include "io/faulty_file_system.h"
#include "io/memory_file_system.h"

namespace stoker::checkpoint {
namespace {

using io::Fault;
using io::FaultyFileSystem;
using io::MemoryFileSystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FakeClock final : public Clock {
 public:
  double now_s() const override { return now_; }
  double unix_s() const override { return 1e9 + now_; }
  void sleep_s(double seconds) override {
    now_ = now_ + seconds;
    slept_.push_back(seconds);
  }
  std::vector<double> slept_;

 private:
  std::atomic<double> now_{0};
};

// Weights w0.. (f32) and one optimizer tensor each, with contents that depend on the step.
struct Model {
  std::vector<std::vector<float>> weights, moments;
  explicit Model(std::vector<size_t> sizes) {
    for (const size_t n : sizes) weights.emplace_back(n), moments.emplace_back(n);
  }
  void set(int64_t step) {
    for (size_t t = 0; t < weights.size(); ++t)
      for (size_t i = 0; i < weights[t].size(); ++i) {
        weights[t][i] =
            static_cast<float>(step) + static_cast<float>(t) * 0.25f + static_cast<float>(i) * 1e-3f;
        moments[t][i] = -weights[t][i];
      }
  }
  std::vector<TensorToSave> tensors() {
    std::vector<TensorToSave> out;
    for (size_t t = 0; t < weights.size(); ++t) {
      const auto n = static_cast<int64_t>(weights[t].size());
      out.push_back({fmt::format("w{}", t), view_of(weights[t].data(), {n})});
      out.push_back({fmt::format("w{}.exp_avg", t), view_of(moments[t].data(), {n}), Part::kOptimizer});
    }
    return out;
  }
};

// For tests of thousands of tiny saves: starting a team for each would be most of the time.
class OneThread {
 public:
  OneThread() { set_compute_threads(1); }
  ~OneThread() { set_compute_threads(before_); }

 private:
  int before_ = compute_threads();
};

TrainingState state_at(int64_t step) {
  TrainingState s;
  s.step = step;
  s.next_batch = static_cast<uint64_t>(step) * 3;
  s.manifest_hash = "abc";
  s.seed = ~uint64_t{0};
  s.recipe = "x = \"ü\"\n";
  s.trainer = R"({"loss":1.5})";
  return s;
}

SaveOutcome save(Store& store, Model& model, int64_t step, Clock& clock = system_clock(),
                 WriterOptions options = {}) {
  model.set(step);
  BackgroundWriter writer(store, options, clock);
  writer.start(model.tensors(), state_at(step));
  writer.before_update();
  return *writer.wait();
}

void expect_step(const Checkpoint& c, Model& like, int64_t step) {
  EXPECT_EQ(c.step(), step);
  EXPECT_EQ(c.state(), state_at(step));
  like.set(step);
  for (const TensorToSave& t : like.tensors()) {
    std::vector<float> got(static_cast<size_t>(t.tensor.count()));
    c.load(t.name, view_of(got.data(), t.tensor.shape));
    if (t.tensor.bytes() > 0) {  // memcmp takes no null pointers
      EXPECT_EQ(std::memcmp(got.data(), t.tensor.data, t.tensor.bytes()), 0) << t.name;
    }
  }
  EXPECT_TRUE(c.verify().empty());
}

TEST(Checkpoint, SavesAndLoadsEveryShapeAndType) {
  MemoryFileSystem fs;
  Store store(fs, "run/checkpoints");
  std::vector<float> big(9 * 256 * 1024 + 5);  // over two blocks, the last one short
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<float>(i);
  float scalar = 3;
  Bf16 half[6] = {to_bf16(1), to_bf16(2), to_bf16(3), to_bf16(4), to_bf16(5), to_bf16(6)};
  int64_t counts[2] = {7, -8};
  BackgroundWriter writer(store);
  writer.start({{"b.big", view_of(big.data(), {static_cast<int64_t>(big.size())})},
                {"a.half", view_of(half, {2, 3})},
                {"a.none", view_of(static_cast<float*>(nullptr), {0, 4})},
                {"opt.scalar", view_of(&scalar, {}), Part::kOptimizer},
                {"opt.counts", view_of(counts, {2}), Part::kOptimizer}},
               state_at(12), {{"tokenizer.json", "{}"}});
  const SaveOutcome done = *writer.wait();
  ASSERT_FALSE(done.error) << done.error->what();
  EXPECT_EQ(done.directory, "run/checkpoints/step-00000012");
  EXPECT_EQ(writer.wait(), std::nullopt);
  fs.crash(MemoryFileSystem::Crash::kLoseUnsynced);

  const Checkpoint c = store.open_latest(true);
  EXPECT_EQ(c.state(), state_at(12));
  EXPECT_EQ(c.attachment("tokenizer.json"), "{}");
  EXPECT_THAT(c.attachments(), ElementsAre("tokenizer.json"));
  std::vector<float> back(big.size());
  c.load("b.big", view_of(back.data(), {static_cast<int64_t>(big.size())}));
  EXPECT_EQ(back, big);
  c.load_rows("b.big", 1048570, 1048580, view_of(back.data(), {10}));  // across a block's border
  EXPECT_EQ(back[0], 1048570.0f);
  EXPECT_EQ(back[9], 1048579.0f);
  float got = 0;
  c.load("opt.scalar", view_of(&got, {}));
  EXPECT_EQ(got, 3);
  int64_t one = 0;
  c.load_rows("opt.counts", 1, 2, view_of(&one, {1}));
  EXPECT_EQ(one, -8);
  Bf16 row[3];
  c.load_rows("a.half", 1, 2, view_of(row, {1, 3}));
  EXPECT_EQ(to_float(row[0]), 4);

  // The definition of the weights hash: the bytes of all parameters in name order.
  Hasher h;
  h.update(half, sizeof half);
  h.update(big.data(), big.size() * 4);
  EXPECT_EQ(c.weights_hash(), h.digest());
  EXPECT_EQ(done.weights_hash, h.digest());
  EXPECT_EQ(c.compute_weights_hash(), h.digest());

  EXPECT_THAT(error_of([&] { c.load("x", view_of(&got, {})); }).what(), HasSubstr("has no tensor 'x'"));
  EXPECT_THAT(error_of([&] {
                c.load("a.half", view_of(back.data(), {2, 3}));
              }).what(),
              HasSubstr("is BF16: expected F32"));
  EXPECT_THAT(error_of([&] {
                c.load("a.half", view_of(row, {1, 3}));
              }).what(),
              HasSubstr("has shape [2, 3]: expected [1, 3]"));
}

// Passes everything on, but lets the first write of a checkpoint wait until the test opens the gate.
class GatedFileSystem final : public io::FileSystem {
 public:
  explicit GatedFileSystem(io::FileSystem& base) : base_(base) {}
  void open_gate() { gate_.set_value(); }
  std::unique_ptr<io::ReadableFile> open_read(const std::string& p, io::Access a) override {
    return base_.open_read(p, a);
  }
  std::unique_ptr<io::WritableFile> create(const std::string& p) override { return base_.create(p); }
  std::unique_ptr<io::WritableFile> open_append(const std::string& p) override {
    return base_.open_append(p);
  }
  bool exists(const std::string& p) override { return base_.exists(p); }
  io::FileInfo info(const std::string& p) override { return base_.info(p); }
  std::vector<std::string> list(const std::string& p) override { return base_.list(p); }
  void make_dirs(const std::string& p) override {
    opened_.wait();
    base_.make_dirs(p);
  }
  void rename(const std::string& a, const std::string& b) override { base_.rename(a, b); }
  void remove(const std::string& p) override { base_.remove(p); }
  void sync_dir(const std::string& p) override { base_.sync_dir(p); }
  uint64_t free_bytes(const std::string& p) override { return base_.free_bytes(p); }

 private:
  io::FileSystem& base_;
  std::promise<void> gate_;
  std::shared_future<void> opened_ = gate_.get_future().share();
};

TEST(BackgroundWriter, WhatIsNotWrittenYetIsCopiedBeforeAnUpdate) {
  MemoryFileSystem memory;
  GatedFileSystem fs(memory);
  Store store(fs, "c");
  Model model({1000, 0, 3 * 1024 * 1024 + 1});
  model.set(5);
  BackgroundWriter writer(store);
  writer.start(model.tensors(), state_at(5));
  EXPECT_TRUE(writer.busy());
  EXPECT_FALSE(writer.poll());
  writer.before_update();
  model.set(6);  // the update
  writer.before_update();
  fs.open_gate();
  const SaveOutcome done = *writer.wait();
  ASSERT_FALSE(done.error) << done.error->what();
  EXPECT_EQ(done.staged_bytes, done.bytes);
  EXPECT_GT(done.stall_s, 0);
  Model like({1000, 0, 3 * 1024 * 1024 + 1});
  expect_step(store.open_latest(), like, 5);
}

TEST(BackgroundWriter, UpdatesAtAnyMomentDoNotReachTheFile) {
  Model model({2000000, 1000, 1500000}), like({2000000, 1000, 1500000});
  for (int delay_us : {0, 200, 1000, 3000, 8000}) {
    MemoryFileSystem fs;
    Store store(fs, "c");
    BackgroundWriter writer(store,
                            {.staging_limit_bytes = delay_us == 200 ? uint64_t{8} << 20 : ~uint64_t{0}});
    model.set(1);
    writer.start(model.tensors(), state_at(1));
    usleep(static_cast<useconds_t>(delay_us));
    writer.before_update();
    model.set(2);
    const SaveOutcome done = *writer.wait();
    ASSERT_FALSE(done.error);
    if (delay_us == 200) {
      EXPECT_LE(done.staged_bytes, uint64_t{8} << 20);
    }
    expect_step(store.open_latest(), like, 1);
  }
}

TEST(BackgroundWriter, RefusesAmbiguousNames) {
  MemoryFileSystem fs;
  Store store(fs, "c");
  BackgroundWriter writer(store);
  float x = 0;
  EXPECT_EQ(error_of([&] {
              writer.start({{"w", view_of(&x, {1})}, {"w", view_of(&x, {1})}}, state_at(1));
            }).kind(),
            ErrorKind::kUsage);
  for (const char* name : {"COMMIT", "state.json", "../x", "", "index-00000.json"})
    EXPECT_EQ(error_of([&] {
                writer.start({}, state_at(1), {{name, ""}});
              }).kind(),
              ErrorKind::kUsage)
        << name;
}

// Whatever operation fails or is the last one: the older checkpoint is loadable, and the new one is whole or
// invisible.
TEST(BackgroundWriter, AFaultAtEveryOperationLeavesTheOlderCheckpoint) {
  const OneThread quick;
  Model model({300, 20}), like({300, 20});
  uint64_t operations;
  {
    MemoryFileSystem memory;
    FaultyFileSystem fs(memory);
    Store store(fs, "c");
    ASSERT_FALSE(save(store, model, 2).error);
    operations = fs.operations();
  }
  ASSERT_GT(operations, 25u);
  int survived = 0, refused = 0;
  for (const Fault fault :
       {Fault::kCrash, Fault::kTornCrash, Fault::kFullDisk, Fault::kShortWrite, Fault::kIoError})
    for (uint64_t at = 0; at < operations; ++at)
      for (uint64_t seed = 0; seed < 3; ++seed) {
        MemoryFileSystem memory;
        FaultyFileSystem fs(memory);
        Store store(fs, "c");
        FakeClock clock;
        ASSERT_FALSE(save(store, model, 1, clock).error);
        const uint64_t before = fs.operations();
        fs.arm(fault, before + at, 1000);
        const SaveOutcome outcome = save(store, model, 2, clock);
        const bool crash = fault == Fault::kCrash || fault == Fault::kTornCrash;
        if (outcome.error && !crash) {
          EXPECT_EQ(outcome.error->kind(), ErrorKind::kStorage);
          EXPECT_THAT(outcome.error->what(), HasSubstr("step 2 could not be saved"));
        }
        memory.crash(seed ? MemoryFileSystem::Crash::kMix : MemoryFileSystem::Crash::kLoseUnsynced,
                     seed * 1000 + at);
        Store after(memory, "c");
        const Checkpoint c = after.open_latest();
        EXPECT_TRUE(outcome.error || c.step() == 2);  // reported durable is durable
        ++(c.step() == 2 ? survived : refused);
        expect_step(c, like, c.step());
        after.prune();  // clears what was left behind
        ASSERT_FALSE(save(after, model, 3).error);
        expect_step(after.open_latest(), like, 3);
        for (const std::string& name : memory.list("c"))
          EXPECT_GE(parse_directory_name(name).step, 1) << name;
      }
  EXPECT_GT(survived, 0);
  EXPECT_GT(refused, 100);
}

TEST(BackgroundWriter, AShortTroubleIsWaitedOut) {
  Model model({300}), like({300});
  int waited_out = 0, given_up = 0;
  for (uint64_t at = 0;; ++at) {
    MemoryFileSystem memory;
    FaultyFileSystem fs(memory);
    Store store(fs, "c");
    FakeClock clock;
    fs.arm(Fault::kShortWrite, at, 3);
    const SaveOutcome done = save(store, model, 1, clock, {.first_pause_s = 1, .longest_pause_s = 3});
    if (fs.operations() <= at) break;
    if (done.error) {  // only where trying again could hide a loss
      ++given_up;
      EXPECT_TRUE(std::string(done.error->what()).find("cannot sync") != std::string::npos ||
                  std::string(done.error->what()).find("cannot close") != std::string::npos)
          << done.error->what();
    } else {
      ++waited_out;
      if (done.retries == 3) {
        EXPECT_THAT(clock.slept_, ElementsAre(1, 2, 3));
      }
      expect_step(store.open_latest(), like, 1);
    }
  }
  EXPECT_GT(waited_out, 15);
  EXPECT_GE(given_up, 4);  // sync and close of the two tensor files
}

TEST(BackgroundWriter, AFullDiskIsAClearErrorAndTheNextSaveWorks) {
  MemoryFileSystem fs(60000);
  Store store(fs, "c", 2);
  FakeClock clock;
  Model model({3000});
  ASSERT_FALSE(save(store, model, 1, clock).error);
  Model larger({5000});
  const SaveOutcome failed = save(store, larger, 2, clock);
  ASSERT_TRUE(failed.error);
  EXPECT_EQ(failed.error->kind(), ErrorKind::kStorage);
  EXPECT_THAT(failed.error->what(), HasSubstr("No space left on device"));
  EXPECT_THAT(failed.error->what(), HasSubstr("free there"));
  EXPECT_THAT(failed.error->what(), HasSubstr("Older checkpoints are untouched"));
  EXPECT_THAT(fs.list("c"), ElementsAre("step-00000001"));  // the half-written one does not eat the space
  EXPECT_EQ(larger.weights[0][1], 2.001f);                  // the training's tensors are as they were
  Model smaller({1000});
  ASSERT_FALSE(save(store, smaller, 3, clock).error);
  expect_step(store.open_latest(), smaller, 3);
}

TEST(Store, KeepsTheLastThePinnedAndNothingElse) {
  MemoryFileSystem fs;
  Store store(fs, "c", 2);
  Model model({10});
  EXPECT_FALSE(store.latest());
  EXPECT_EQ(error_of([&] { store.open_latest(); }).kind(), ErrorKind::kUsage);
  save(store, model, 1);
  store.pin(1);
  fs.make_dirs("c/step-00000099");  // an interrupted save
  io::write_file_atomic(fs, "c/notes.txt", "the user's");
  for (int64_t step : {2, 3, 4}) save(store, model, step);
  EXPECT_THAT(fs.list("c"), ElementsAre("notes.txt", "step-00000001", "step-00000003", "step-00000004"));
  EXPECT_TRUE(store.list().front().pinned);
  store.unpin(1);
  save(store, model, 5);
  EXPECT_THAT(fs.list("c"), ElementsAre("notes.txt", "step-00000004", "step-00000005"));
  save(store, model, 5);  // again: the old one goes only when the new one is there
  EXPECT_THAT(fs.list("c"), ElementsAre("notes.txt", "step-00000004", "step-00000005-r1"));
  EXPECT_EQ(store.find(5)->revision, 1);
  store.discard_after(4);
  EXPECT_EQ(store.latest()->step, 4);
  EXPECT_EQ(error_of([&] { store.pin(7); }).kind(), ErrorKind::kUsage);
  EXPECT_EQ(resolve_checkpoint(fs, "c"), "c/step-00000004");
  EXPECT_EQ(resolve_checkpoint(fs, "c/step-00000004/"), "c/step-00000004/");
  fs.make_dirs("run");
  fs.rename("c", "run/checkpoints");
  EXPECT_EQ(resolve_checkpoint(fs, "run"), "run/checkpoints/step-00000004");
  EXPECT_EQ(error_of([&] { resolve_checkpoint(fs, "nowhere"); }).kind(), ErrorKind::kUsage);
}

TEST(Store, ReplayRecordComesBackToTheBit) {
  MemoryFileSystem fs;
  Store store(fs, "c");
  Model model({10});
  save(store, model, 4);
  EXPECT_FALSE(store.open_latest().replay_record());
  const ReplayRecord record{5, 0.1 + 0.2, std::nextafter(1.0, 2.0), Hash128{1, 2}};
  store.add_replay_record(4, record);
  EXPECT_EQ(store.open_latest().replay_record(), record);
  fs.flip_bit("c/step-00000004/replay.json", 20, 1);
  EXPECT_EQ(error_of([&] { store.open_latest().replay_record(); }).kind(), ErrorKind::kData);
  const ReplayRecord odd{6, std::nan(""), -INFINITY, {}};
  const ReplayRecord back = parse_replay_record(to_json(odd), "r");
  EXPECT_TRUE(std::isnan(back.loss));
  EXPECT_EQ(back.gradient_norm, -INFINITY);
}

TEST(Damage, EveryFlippedBitIsFoundAndAnOlderCheckpointOffered) {
  const OneThread quick;
  MemoryFileSystem fs;
  Store store(fs, "c");
  Model model({30, 7});
  save(store, model, 1);
  const std::string dir = save(store, model, 2).directory;
  for (const std::string& name : fs.list(dir)) {
    const std::string path = io::join(dir, name);
    const uint64_t size = fs.info(path).size;
    for (uint64_t at = 0; at < size; ++at) {
      fs.flip_bit(path, at, static_cast<int>(at % 8));
      const Error e = error_of([&] { store.open_latest(true); });
      EXPECT_EQ(e.kind(), ErrorKind::kData) << name << " byte " << at << ": " << e.what();
      EXPECT_THAT(e.what(), HasSubstr("An older one is committed at step 1 ('c/step-00000001')"));
      fs.flip_bit(path, at, static_cast<int>(at % 8));
    }
    const std::string whole = io::read_text(fs, path);
    fs.truncate(path, size - 1);
    EXPECT_EQ(error_of([&] { store.open_latest(true); }).kind(), ErrorKind::kData) << name;
    fs.create(path)->append(whole);
    EXPECT_NO_THROW(store.open_latest(true));
  }
}

TEST(Damage, NamesTensorFileAndPlace) {
  MemoryFileSystem fs;
  Store store(fs, "c");
  Model model({3 * 1024 * 1024, 5});
  const std::string dir = save(store, model, 1).directory;
  const Checkpoint sound = Checkpoint::open(fs, dir);
  const Piece& piece = sound.tensor("w0").pieces.front();
  fs.flip_bit(io::join(dir, piece.file), piece.offset + kBlockBytes + 17, 3);
  const Checkpoint c = Checkpoint::open(fs, dir);
  const std::vector<Damage> found = c.verify();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].tensor, "w0");
  EXPECT_EQ(found[0].file, "weights-00000.safetensors");
  EXPECT_EQ(found[0].offset, piece.offset + kBlockBytes);
  EXPECT_EQ(found[0].bytes, kBlockBytes);
  std::vector<float> w(3 * 1024 * 1024);
  const Error e = error_of([&] { c.load("w0", view_of(w.data(), {3 * 1024 * 1024})); });
  EXPECT_EQ(e.kind(), ErrorKind::kData);
  EXPECT_THAT(e.what(),
              HasSubstr(fmt::format("tensor 'w0' in '{}/weights-00000.safetensors', bytes {} to {}", dir,
                                    piece.offset + kBlockBytes, piece.offset + 2 * kBlockBytes)));
  c.load_rows("w0", 0, 1000, view_of(w.data(), {1000}));  // a sound block still loads
  fs.remove(io::join(dir, "optimizer-00000.safetensors"));
  EXPECT_THAT(error_of([&] { Checkpoint::open(fs, dir); }).what(), HasSubstr("optimizer-00000.safetensors"));
  fs.remove(io::join(dir, "COMMIT"));
  EXPECT_THAT(error_of([&] { Checkpoint::open(fs, dir); }).what(), HasSubstr("not a committed checkpoint"));
}

TEST(SeveralWriters, RowsOfManyAreOneTensor) {
  MemoryFileSystem fs;
  constexpr int64_t kRows = 7, kColumns = 5;
  float whole[kRows * kColumns], bias[3] = {1, 2, 3};
  for (int i = 0; i < kRows * kColumns; ++i) whole[i] = static_cast<float>(i) * 0.5f;
  const TrainingState state = state_at(10);
  const auto rows = [&](int64_t begin, int64_t end) {
    return TensorToSave{"w", view_of(whole + begin * kColumns, {end - begin, kColumns}), Part::kWeights,
                        begin, kRows};
  };
  Hash128 one_writer;
  {
    Store store(fs, "one");
    BackgroundWriter writer(store);
    writer.start({{"w", view_of(whole, {kRows, kColumns})}, {"b", view_of(bias, {3})}}, state);
    one_writer = writer.wait()->weights_hash;
  }
  Store store(fs, "many");
  const int64_t cuts[] = {0, 3, 4, 7};
  for (int w : {2, 0, 1}) {  // in any order, at any time
    BackgroundWriter writer(store, {.writer = w, .writers = 3});
    std::vector<TensorToSave> mine = {rows(cuts[w], cuts[w + 1])};
    if (w == 1) mine.push_back({"b", view_of(bias, {3})});
    writer.start(mine, state);
    ASSERT_FALSE(writer.wait()->error);
  }
  EXPECT_FALSE(store.latest());  // not before it is committed
  const std::string dir = store.directory_for_save(10);
  store.commit(dir, 10, 3, {}, std::nullopt, 0);
  const Checkpoint c = store.open_latest(true);
  EXPECT_EQ(c.weights_hash(), one_writer);
  float got[kRows * kColumns] = {};
  c.load("w", view_of(got, {kRows, kColumns}));
  EXPECT_EQ(std::memcmp(got, whole, sizeof got), 0);
  for (int64_t begin = 0; begin <= kRows; ++begin)
    for (int64_t end = begin; end <= kRows; ++end) {
      c.load_rows("w", begin, end, view_of(got, {end - begin, kColumns}));
      EXPECT_EQ(std::memcmp(got, whole + begin * kColumns, static_cast<size_t>((end - begin) * kColumns) * 4),
                0);
    }
  // Rows that nobody or two writers saved are refused at the commit.
  struct Case {
    int64_t begin, end;
    const char* says;
  };
  for (const Case& bad : {Case{4, 7, "rows are missing"}, Case{2, 7, "two writers saved the same rows"},
                          Case{3, 6, "6 of 7 rows"}}) {
    Store broken(fs, "broken");
    for (int w : {0, 1}) {
      BackgroundWriter writer(broken, {.writer = w, .writers = 2});
      writer.start({w == 0 ? rows(0, 3) : rows(bad.begin, bad.end)}, state);
      ASSERT_FALSE(writer.wait()->error);
    }
    const Error e =
        error_of([&] { broken.commit(broken.directory_for_save(10), 10, 2, {}, std::nullopt, 0); });
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_THAT(e.what(), HasSubstr(bad.says));
    EXPECT_FALSE(broken.latest());
  }
}

// The real thing: a process that saves without end, killed at moments that the file system does not choose.
TEST(KillNine, AnyMomentLeavesTheNewestReportedCheckpoint) {
  std::string pattern = testing::TempDir() + "stoker-kill-XXXXXX";
  const std::string root = mkdtemp(pattern.data());
  io::FileSystem& fs = io::real_file_system();
  Model model({400000, 1000}), like({400000, 1000});
  int64_t reported = 0;
  for (int round = 0; round < 12; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      set_compute_threads(1);  // the team's threads were not forked along
      for (int64_t step = reported + 1;; ++step) {
        Store store(fs, root, 2);
        if (save(store, model, step).error) _exit(1);
        if (write(pipe_ends[1], &step, sizeof step) != sizeof step) _exit(1);
      }
    }
    close(pipe_ends[1]);
    const auto hear_a_step = [&] {
      int64_t step;
      if (read(pipe_ends[0], &step, sizeof step) != sizeof step) return false;
      reported = step;
      return true;
    };
    // Every other child is left to finish one save first: on a slow machine no number of milliseconds suffices for that.
    if (round % 2) {
      EXPECT_TRUE(hear_a_step());
    }
    usleep(static_cast<useconds_t>(1000 + random_u64({42, 0}, static_cast<uint64_t>(round)) % 60000));
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    while (hear_a_step()) {
    }
    close(pipe_ends[0]);
    Store store(fs, root, 2);
    if (!reported && !store.latest()) continue;
    const Checkpoint c = store.open_latest();
    EXPECT_GE(c.step(), reported);
    EXPECT_LE(c.step(), reported + 1);
    expect_step(c, like, c.step());
    reported = c.step();
  }
  EXPECT_GT(reported, 0);
  io::remove_tree(fs, root);
}

TEST(Record, NamesOfDirectories) {
  EXPECT_EQ(directory_name(7, 0), "step-00000007");
  EXPECT_EQ(parse_directory_name("step-00000007-r2").revision, 2);
  EXPECT_EQ(parse_directory_name("step-123456789").step, 123456789);
  for (const char* bad : {"step-", "step-x", "step-1-r", "step-1-r0", "step-1-rx", "step--1", "steps-1",
                          "step-1.tmp-3-4", "step-99999999999999999999"})
    EXPECT_EQ(parse_directory_name(bad).step, -1) << bad;
}

TEST(Record, ForeignAndBrokenTextIsRefused) {
  struct Case {
    std::string text;
    const char* says;
  };
  const Hash128 zero;
  WriterIndex index;
  index.files = {{"weights-00000.safetensors", 100, 60, zero}};
  Piece p;
  p.tensor = "w", p.shape = {10}, p.rows = 10, p.file = "weights-00000.safetensors", p.offset = 60,
  p.bytes = 40, p.blocks = {1};
  index.pieces = {p};
  const std::string good = to_json(index);
  EXPECT_EQ(to_json(parse_index(good, "i")), good);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string s = good;
    const size_t at = s.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return s.replace(at, from.size(), to);
  };
  const std::vector<Case> cases = {
      {"", "not a JSON object"},
      {"[1]", "not a JSON object"},
      {"{}", "expected format"},
      {with("\"version\": 1", "\"version\": 2"), "A newer Stoker wrote it"},
      {with("\"rows\": 10", "\"rows\": 11"), "rows 0 to 11 of 10"},
      {with("\"rows\": 10", "\"rows\": -1"), "at least 0"},
      {with("\"offset\": 60", "\"offset\": 61"), "no such place"},
      {with("\"offset\": 60", "\"offset\": 59"), "no such place"},
      {with("\"bytes\": 40", "\"bytes\": 44"), "needs 40 bytes"},
      {with("\"file\": \"weights-00000.safetensors\"", "\"file\": \"../w\""), "plain file name"},
      {with("F32", "F99"), "F99"},
      {with("0000000000000001", "000000000000000g"), "not a hash"},
      {with("\"writer\": 0", "\"writer\": 1"), "writer 1 of 1"},
  };
  for (const Case& c : cases) {
    const Error e = error_of([&] { parse_index(c.text, "i"); });
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_THAT(e.what(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace stoker::checkpoint
