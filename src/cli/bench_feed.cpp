// The online feed measured: starting anywhere in a very large dataset, and what training waits for data that lies far away.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/median.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/stop.h"
#include "cli/command.h"
#include "data/loader/feed.h"
#include "data/loader/prefetcher.h"
#include "data/loader/staged_source.h"
#include "data/shard/dataset_writer.h"
#include "data/shard/pack_plan.h"
#include "io/memory_file_system.h"
#include "io/object_store.h"
#include "net/file_server.h"

namespace stoker::cli {
namespace {
using Json = nlohmann::json;

struct FeedBenchFlags {
  double samples = 1e10, delay_ms = 50, step_ms = 250, seconds = 10;
  int64_t length = 2048, rows = 8, plan_rows = 64, mb = 96, cache_mb = 24;
  bool start_only = false, plan_only = false, json = false;
};

// ---- Starting anywhere

constexpr uint64_t kDocument = 700;  // tokens of each made-up document

// Tokens that are a function of their place, so that a dataset of any size needs no disk.
class MadeUpShards final : public data::ShardSource {
 public:
  explicit MadeUpShards(uint64_t per_shard) : per_shard_(per_shard) {}
  void read(size_t shard, uint64_t first, std::span<int32_t> out) override {
    for (size_t i = 0; i < out.size(); ++i) {
      const uint64_t at = shard * per_shard_ + first + i;
      out[i] =
          (first + i) % kDocument == kDocument - 1 ? 0 : static_cast<int32_t>(1 + at * 2654435761u % 49999);
    }
  }
  void document_starts(size_t, uint64_t first, uint64_t count, std::vector<uint64_t>& out) override {
    for (uint64_t at = (first + kDocument - 1) / kDocument * kDocument; at < first + count; at += kDocument)
      out.push_back(at);
  }
  std::unique_ptr<io::ReadableFile> open_side(const data::FileRecord&) override {
    fail(ErrorKind::kInternal, "made-up shards have no files");
  }

 private:
  uint64_t per_shard_;
};

Json bench_start(const FeedBenchFlags& f) {
  constexpr uint64_t kPerShard = kDocument * 1'500'000;  // about 2 GB of uint16
  const auto tokens = static_cast<uint64_t>(f.samples * static_cast<double>(f.length));
  const uint64_t shards = std::max<uint64_t>(1, (tokens + kPerShard - 1) / kPerShard);
  io::MemoryFileSystem fs;
  data::Manifest m;
  m.tokenizer = {{"tokenizer.json", 2, hash128("{}")}, 50000, 0, -1};
  m.sources = {"sources.jsonl", 0, hash128("")};
  data::SplitRecord split{"train", 0, 0, 0, {}};
  for (uint64_t s = 0; s < shards; ++s) {
    const std::string name = fmt::format("train_{:06}", s);
    const auto file = [&](const char* ending, uint64_t bytes) {
      return data::FileRecord{name + ending, bytes, hash128(name + ending)};
    };
    const uint64_t documents = kPerShard / kDocument;
    split.add({documents, kPerShard, 4 * kPerShard, file(".bin", 2 * kPerShard),
               file(".idx", 42 + 20 * documents), file(".docs", 24 + 40 * documents),
               file(".sums", 32 + 8 * (2 * kPerShard / (256 * 1024)))});
  }
  m.splits.push_back(split);
  const std::string text = m.to_json();
  {
    const auto file = fs.create("manifest.json");
    file->append(text);
    file->close();
  }
  Json out{{"shards", shards}, {"manifest_bytes", text.size()}, {"sources", Json::array()}};
  for (const size_t sources : {size_t{1}, size_t{3}}) {
    std::vector<double> open_s, build_s, first_s, last_s;
    uint64_t samples = 0;
    for (int round = 0; round < 5 && !stop_requested(); ++round) {
      data::FeedOptions options;
      options.sequence_length = f.length;
      options.seed = static_cast<uint64_t>(round);
      data::LoaderOptions one;
      one.sequence_length = f.length;
      one.seed = options.seed;
      double began = monotonic_s();
      const auto dataset = data::Dataset::open(fs, "manifest.json");
      open_s.push_back(monotonic_s() - began);
      began = monotonic_s();
      std::vector<data::Loader> loaders;
      for (size_t s = 0; s < sources; ++s) {
        loaders.emplace_back(dataset, one, std::make_unique<MadeUpShards>(kPerShard));
        data::FeedSource source;
        source.name = fmt::format("s{}", s);
        source.weight = static_cast<double>(1 + s);
        options.sources.push_back(source);
      }
      if (sources > 1) options.phases = {{1'000'000'007, {{"s0", 3}, {"s2", 1}}}};
      const data::Feed feed(std::move(loaders), options);
      build_s.push_back(monotonic_s() - began);
      samples = feed.loader(0).samples_per_epoch() * sources;
      data::Batch batch;
      const auto fill = [&](uint64_t at, std::vector<double>& into) {
        const double start = monotonic_s();
        feed.fill(at, f.rows, batch);
        into.push_back(monotonic_s() - start);
      };
      fill(0, first_s);
      fill(samples - static_cast<uint64_t>(f.rows), last_s);
    }
    out["sources"].push_back({{"datasets", sources},
                              {"samples", samples},
                              {"open_s", median(open_s)},
                              {"construct_s", median(build_s)},
                              {"first_batch_s", median(first_s)},
                              {"last_batch_s", median(last_s)}});
  }
  return out;
}

// ---- Waiting

struct Case {
  const char* name;
  bool remote, near;
  uint64_t cache_bytes;
};

// A dataset of random tokens in a folder of its own that goes away with it.
class Folder {
 public:
  Folder(int64_t megabytes, uint64_t shard_bytes)
      : path_((std::filesystem::temp_directory_path() / fmt::format("stoker-bench-feed-{}", ::getpid()))
                  .string()) {
    std::filesystem::create_directories(path_);
    auto& fs = io::real_file_system();
    data::DatasetWriterOptions options;
    options.shard_bytes = shard_bytes;
    data::DatasetWriter writer(fs, path_ + "/set", data::TokenType::kUint16, options);
    // Of different lengths, or all shards would have one index and one packing: files are kept by their content.
    const uint64_t wanted = static_cast<uint64_t>(megabytes) * 1'000'000 / 2;
    uint64_t written = 0;
    std::vector<int32_t> tokens;
    for (uint64_t d = 0; written < wanted; ++d, written += tokens.size()) {
      tokens.resize(kDocument / 2 + random_u64({8, d}, 0) % kDocument);
      for (size_t i = 0; i + 4 < tokens.size(); i += 4) {
        const auto four = philox({9, d}, i);
        for (size_t k = 0; k < 4; ++k) tokens[i + k] = static_cast<int32_t>(1 + four[k] % 49999);
      }
      tokens.back() = 0;
      writer.add("train", tokens, {hash128(&d, sizeof d), 4 * tokens.size(), d, 0});
    }
    data::Manifest m;
    m.tokenizer = {writer.add_file("tokenizer.json", "{}"), 50000, 0, -1};
    m.sources = writer.add_file("sources.jsonl", "{\"name\":\"made up\"}\n");
    m.source_files = 1;
    writer.commit(std::move(m));
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Json bench_wait(const FeedBenchFlags& f) {
  const Folder folder(f.mb, uint64_t{16} << 20);
  net::FileServer server({folder.path(), "127.0.0.1", 0, f.delay_ms / 1000});
  auto& fs = io::real_file_system();
  io::ObjectFileSystem urls(fs);
  Json out = Json::array();
  const auto big = static_cast<uint64_t>(f.mb) * 2'000'000,
             small = static_cast<uint64_t>(f.cache_mb) * 1'000'000;
  for (const Case& c : {Case{"local disk", false, false, 0}, Case{"far, cache holds it", true, false, big},
                        Case{"far, small cache, near order", true, true, small}}) {
    if (stop_requested()) break;
    data::LoaderOptions options;
    options.sequence_length = f.length;
    options.seed = 5;
    if (c.near) options.shuffle_rows = small / 2 / (2 * static_cast<uint64_t>(f.length));
    const std::string path = c.remote ? server.url() + "/set" : folder.path() + "/set";
    const uint64_t requests = server.requests(), bytes = server.bytes();
    double began = monotonic_s();
    std::unique_ptr<data::Loader> loader;
    data::StagedShardSource* staged = nullptr;
    if (c.remote) {
      data::StagingOptions staging;
      staging.cache_directory = fmt::format("{}/cache-{}", folder.path(), c.near);
      staging.cache_bytes = c.cache_bytes;
      const auto dataset = data::Dataset::open(urls, path);
      auto source = std::make_unique<data::StagedShardSource>(urls, fs, dataset, "train", staging);
      staged = source.get();
      loader = std::make_unique<data::Loader>(dataset, options, std::move(source));
    } else {
      loader = std::make_unique<data::Loader>(fs, path, options);
    }
    data::Prefetcher prefetcher(*loader, f.rows, 0, 4);
    data::Batch batch;
    prefetcher.next(batch);
    const double first_s = monotonic_s() - began;
    const double waited_before = prefetcher.wait_s();
    began = monotonic_s();
    int64_t steps = 0;
    double longest = 0;
    for (; monotonic_s() - began < f.seconds && !stop_requested(); ++steps) {
      system_clock().sleep_s(f.step_ms / 1000);
      const double before = prefetcher.wait_s();
      prefetcher.next(batch);
      longest = std::max(longest, prefetcher.wait_s() - before);
    }
    const double took = monotonic_s() - began, waited = prefetcher.wait_s() - waited_before;
    Json row{{"case", c.name},
             {"first_batch_s", first_s},
             {"steps", steps},
             {"wait_s", waited},
             {"wait_share", waited / took},
             {"longest_wait_s", longest},
             {"requests", server.requests() - requests},
             {"fetched_bytes", server.bytes() - bytes},
             {"used_bytes", 2 * (steps + 1) * f.rows * f.length}};
    if (staged)
      row["cached_bytes"] = staged->stats().cached_bytes,
      row["waited_blocks"] = staged->stats().waited_blocks;
    out.push_back(std::move(row));
  }
  return out;
}

// ---- The rows of a packing plan

// Shards whose plan's rows are fetched when they are needed, and not before.
class RowsNotAhead final : public data::ShardSource {
 public:
  explicit RowsNotAhead(std::unique_ptr<data::ShardSource> source) : source_(std::move(source)) {}
  void read(size_t shard, uint64_t first, std::span<int32_t> out) override {
    source_->read(shard, first, out);
  }
  void document_starts(size_t shard, uint64_t first, uint64_t count, std::vector<uint64_t>& out) override {
    source_->document_starts(shard, first, count, out);
  }
  std::unique_ptr<io::ReadableFile> open_side(const data::FileRecord& file) override {
    return source_->open_side(file);
  }
  void will_read(size_t shard, uint64_t first, uint64_t count) override {
    source_->will_read(shard, first, count);
  }

 private:
  std::unique_ptr<data::ShardSource> source_;
};

// The first step over many shards of a far dataset with a packing plan, nothing cached: the plan's rows of all shards read ahead
// side by side, and fetched one after the other.
Json bench_plan(const FeedBenchFlags& f) {
  constexpr uint64_t kShards = 32;
  const Folder folder(f.mb, static_cast<uint64_t>(f.mb) * 1'000'000 / kShards);
  auto& fs = io::real_file_system();
  const std::string plan = data::default_plan_name("train", static_cast<uint64_t>(f.length));
  data::build_pack_plan(fs, data::Dataset::open(fs, folder.path() + "/set"), "train", plan,
                        static_cast<uint64_t>(f.length));
  net::FileServer server({folder.path(), "127.0.0.1", 0, f.delay_ms / 1000});
  io::ObjectFileSystem urls(fs);
  data::LoaderOptions options;
  options.sequence_length = f.length;
  options.seed = 5;
  options.plan = plan;
  uint64_t shards = 0;
  std::vector<double> first_s[2];
  std::vector<int32_t> seen[2];
  for (int round = 0; round < 3 && !stop_requested(); ++round)
    for (const bool ahead : {true, false}) {
      data::StagingOptions staging;
      staging.cache_directory = fmt::format("{}/plan-{}-{}", folder.path(), round, ahead);
      const auto dataset = data::Dataset::open(urls, server.url() + "/set");
      shards = dataset.split("train").shards.size();
      std::unique_ptr<data::ShardSource> source =
          std::make_unique<data::StagedShardSource>(urls, fs, dataset, "train", staging);
      if (!ahead) source = std::make_unique<RowsNotAhead>(std::move(source));
      const data::Loader loader(dataset, options, std::move(source));
      data::Batch batch;
      const double began = monotonic_s();
      loader.will_fill(0, f.plan_rows);
      loader.fill(0, f.plan_rows, batch);
      first_s[ahead].push_back(monotonic_s() - began);
      seen[ahead].assign(batch.tokens.begin(), batch.tokens.end());
    }
  if (first_s[false].empty()) return nullptr;
  STOKER_CHECK(seen[true] == seen[false], "reading ahead changed the batch");
  return {{"rows", f.plan_rows},
          {"shards", shards},
          {"first_step_s", median(first_s[true])},
          {"first_step_one_after_the_other_s", median(first_s[false])}};
}

void print_plan(const Json& plan, const FeedBenchFlags& f) {
  fmt::print(
      "\nfirst step of {} rows of a packing plan over {} shards, server {:.0f} ms away, nothing cached:\n",
      plan["rows"].get<int64_t>(), plan["shards"].get<uint64_t>(), f.delay_ms);
  fmt::print("  {:.2f} s; {:.2f} s where the plan's rows are fetched one after the other\n",
             plan["first_step_s"].get<double>(), plan["first_step_one_after_the_other_s"].get<double>());
}

void print(const Json& start, const Json& waits, const FeedBenchFlags& f) {
  fmt::print("starting anywhere: {} shards, manifest {}\n", start["shards"].get<uint64_t>(),
             human_bytes(start["manifest_bytes"].get<double>()));
  for (const auto& s : start["sources"])
    fmt::print(
        "  {} dataset{}, {} samples: manifest read in {:.1f} ms, feed made in {:.2f} ms, first batch {:.3f} "
        "ms, "
        "batch at the far end {:.3f} ms\n",
        s["datasets"].get<uint64_t>(), s["datasets"] == 1 ? "" : "s", human_count(s["samples"].get<double>()),
        s["open_s"].get<double>() * 1e3, s["construct_s"].get<double>() * 1e3,
        s["first_batch_s"].get<double>() * 1e3, s["last_batch_s"].get<double>() * 1e3);
  if (waits.empty()) return;
  fmt::print("\nwaiting for data: {} rows of {} every {:.0f} ms, {} MB of tokens, server {:.0f} ms away\n",
             f.rows, f.length, f.step_ms, f.mb, f.delay_ms);
  for (const auto& w : waits)
    fmt::print(
        "  {:<30} first batch {:6.3f} s; {} steps waited {:.3f} % of the time, at most {:.1f} ms; {} "
        "requests, {} "
        "fetched for {} used\n",
        w["case"].get<std::string>(), w["first_batch_s"].get<double>(), w["steps"].get<int64_t>(),
        w["wait_share"].get<double>() * 100, w["longest_wait_s"].get<double>() * 1e3,
        w["requests"].get<uint64_t>(), human_bytes(w["fetched_bytes"].get<double>()),
        human_bytes(w["used_bytes"].get<double>()));
}

}  // namespace

void add_bench_feed(Command& bench_parent) {
  auto* cmd = bench_parent.add_subcommand(
      "feed", "The data feed: starting anywhere in 10 billion samples; waiting for data that lies far away");
  auto f = std::make_shared<FeedBenchFlags>();
  cmd->add_option("--samples", f->samples, "Of the made-up dataset")->capture_default_str()->range(1.0, 1e13);
  cmd->add_option("--length", f->length, "Tokens a sequence")->capture_default_str()->range(16, 1 << 20);
  cmd->add_option("--rows", f->rows, "Sequences a step")->capture_default_str()->range(1, 1 << 16);
  cmd->add_option("--delay-ms", f->delay_ms, "Before each answer of the server")
      ->capture_default_str()
      ->range(0.0, 10000.0);
  cmd->add_option("--step-ms", f->step_ms, "What a step takes beside its data")
      ->capture_default_str()
      ->range(1.0, 60000.0);
  cmd->add_option("--seconds", f->seconds, "Of each case")->capture_default_str()->range(0.1, 600.0);
  cmd->add_option("--mb", f->mb, "Size of the dataset that is served")
      ->capture_default_str()
      ->range(1, 100000);
  cmd->add_option("--cache-mb", f->cache_mb, "Of the small cache")->capture_default_str()->range(1, 100000);
  cmd->add_option("--plan-rows", f->plan_rows, "Of the first step behind a packing plan")
      ->capture_default_str()
      ->range(1, 1 << 16);
  cmd->add_flag("--start-only", f->start_only, "Only how fast it starts");
  cmd->add_flag("--plan-only", f->plan_only, "Only the first step behind a packing plan");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Examples:\n  stoker bench feed --delay-ms 50 --step-ms 250\n  stoker bench feed --plan-only");
  cmd->callback([f] {
    if (f->start_only && f->plan_only)
      fail(ErrorKind::kUsage, "--start-only and --plan-only leave nothing to do");
    Json out = Json::object();
    if (!f->plan_only) out["start"] = bench_start(*f);
    if (!f->plan_only && !f->start_only) out["wait"] = bench_wait(*f);
    if (!f->start_only && !stop_requested()) out["plan"] = bench_plan(*f);
    if (f->json) return fmt::print("{}\n", out.dump(2));
    if (out.contains("start")) print(out["start"], out.value("wait", Json::array()), *f);
    if (out.contains("plan") && !out["plan"].is_null()) print_plan(out["plan"], *f);
  });
}

}  // namespace stoker::cli
