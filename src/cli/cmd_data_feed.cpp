// What makes a dataset ready to be fed: packing plans, and serving it to other machines.
#include <fmt/core.h>
#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/stop.h"
#include "cli/command.h"
#include "data/shard/best_fit.h"
#include "data/shard/pack_plan.h"
#include "net/file_server.h"

namespace stoker::cli {
namespace {
using Json = nlohmann::json;

struct PackFlags {
  std::string path, split = "train", name, exclude;
  uint64_t length = 0, window = uint64_t{1} << 23, min_tokens = 0, max_tokens = 0;
  std::vector<std::string> sources, not_sources;
  bool json = false;
};

// Text hashes, one a line, as `data show` and `data trace` print them; `#` begins a remark.
std::vector<Hash128> read_hashes(io::FileSystem& fs, const std::string& path) {
  const std::string text = io::read_text(fs, path, uint64_t{4} << 30);
  std::vector<Hash128> out;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    line = line.substr(0, line.find('#'));
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t'))
      line.remove_suffix(1);
    if (!line.empty()) out.push_back(data::hash_from_hex(line, path, fmt::format("line {}", number)));
  }
  std::sort(out.begin(), out.end());
  return out;
}

// By line of the dataset's sources file: whether its documents are wanted.
std::vector<bool> wanted_sources(io::FileSystem& fs, const data::Dataset& dataset, const PackFlags& f) {
  const std::string path = dataset.path_of(dataset.manifest().sources),
                    text = io::read_text(fs, path, uint64_t{4} << 30);
  std::vector<bool> wanted;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const auto line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                  text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    at = end + 1;
    if (!line.is_object() || !line.contains("name") || !line["name"].is_string())
      fail(ErrorKind::kData, "{}:{}: expected a JSON object with a name", path, wanted.size() + 1);
    const auto name = line["name"].get<std::string>();
    const auto matches = [&](const std::string& pattern) {
      return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    };
    wanted.push_back((f.sources.empty() || std::any_of(f.sources.begin(), f.sources.end(), matches)) &&
                     std::none_of(f.not_sources.begin(), f.not_sources.end(), matches));
  }
  return wanted;
}

data::PackOptions pack_options(io::FileSystem& fs, const data::Dataset& dataset, const PackFlags& f) {
  data::PackOptions options;
  options.window_tokens = f.window;
  Json filter = Json::object();
  if (f.min_tokens) filter["min_tokens"] = f.min_tokens;
  if (f.max_tokens) filter["max_tokens"] = f.max_tokens;
  if (!f.sources.empty()) filter["sources"] = f.sources;
  if (!f.not_sources.empty()) filter["not_sources"] = f.not_sources;
  std::vector<Hash128> excluded;
  if (!f.exclude.empty()) {
    excluded = read_hashes(fs, f.exclude);
    filter["excluded"] = {{"hashes", excluded.size()},
                          {"xxh3_128", hash128(excluded.data(), excluded.size() * sizeof(Hash128)).hex()}};
  }
  if (filter.empty()) return options;
  std::vector<bool> wanted;
  if (!f.sources.empty() || !f.not_sources.empty()) wanted = wanted_sources(fs, dataset, f);
  options.filter = filter.dump();
  options.keep = [=, low = f.min_tokens, high = f.max_tokens, directory = dataset.directory()](
                     const data::DocumentOrigin& origin, uint64_t tokens) {
    if (tokens < low || (high && tokens > high)) return false;
    if (!wanted.empty() && origin.source >= wanted.size())
      fail(ErrorKind::kData, "{}: a document is from source {} of {}", directory, origin.source,
           wanted.size());
    if (!wanted.empty() && !wanted[origin.source]) return false;
    return !std::binary_search(excluded.begin(), excluded.end(), origin.text_hash);
  };
  return options;
}

// What windows of the plain stream do with the same documents: nothing is left empty, but documents are cut.
uint64_t cut_by_windows(const data::Dataset& dataset, const data::SplitRecord& split, uint64_t length) {
  uint64_t cut = 0, at = 0;
  for (const auto& shard : split.shards) {
    const auto file = dataset.open_shard(shard);
    for (uint64_t d = 0; d < file->index().documents(); ++d) {
      const uint64_t tokens = file->document_start(d + 1) - file->document_start(d);
      cut += tokens && at / length != (at + tokens - 1) / length;
      at += tokens;
    }
  }
  return cut;
}

void pack(const PackFlags& f) {
  auto& fs = io::real_file_system();
  const auto dataset = data::Dataset::open(fs, f.path);
  const auto& split = dataset.split(f.split);
  const std::string name = f.name.empty() ? data::default_plan_name(f.split, f.length) : f.name;
  data::PackPlanManifest plan;
  {
    Progress progress("packing", split.documents, "documents");
    plan = data::build_pack_plan(fs, dataset, f.split, name, f.length, pack_options(fs, dataset, f),
                                 [&](uint64_t n) { progress.add(n); });
  }
  const uint64_t windows_cut = cut_by_windows(dataset, split, f.length);
  if (f.json) {
    fmt::print("{}\n", Json{{"plan", name},
                            {"version", plan.hash().hex()},
                            {"split", f.split},
                            {"length", plan.length},
                            {"rows", plan.rows},
                            {"tokens", plan.tokens},
                            {"padding", plan.padding()},
                            {"documents", plan.documents},
                            {"documents_cut", plan.documents_cut},
                            {"documents_left_out", plan.documents_left_out},
                            {"windows_cut", windows_cut},
                            {"filter", Json::parse(plan.filter)}}
                           .dump(2));
    return;
  }
  fmt::print("plan        {} (version {})\nrows        {} of {} tokens, {:.3f} % of them empty\n", name,
             plan.hash().hex(), plan.rows, plan.length, plan.padding() * 100);
  fmt::print("documents   {} packed, {} of them cut ({} by windows of the stream), {} left out\n",
             plan.documents, plan.documents_cut, windows_cut, plan.documents_left_out);
}

void add_pack(Command& data) {
  auto* cmd = data.add_subcommand(
      "pack", "Plan rows of whole documents for training (best fit), over all documents or a part of them");
  auto f = std::make_shared<PackFlags>();
  cmd->add_option("dataset", f->path, "Directory")->required();
  cmd->add_option("--length", f->length, "Tokens of a row: data.sequence_length of the run")
      ->required()
      ->range(2, 1 << 24);
  cmd->add_option("--split", f->split, "Split")->capture_default_str();
  cmd->add_option("--name", f->name, "Of the plan (default: pack-LENGTH-SPLIT, which data.packing finds)");
  cmd->add_option("--min-tokens", f->min_tokens, "Leave out shorter documents");
  cmd->add_option("--max-tokens", f->max_tokens, "Leave out longer documents");
  cmd->add_option("--source", f->sources, "Only documents of sources whose name matches; may be repeated");
  cmd->add_option("--not-source", f->not_sources, "None of sources whose name matches; may be repeated");
  cmd->add_option("--exclude", f->exclude, "File of text hashes, one a line, whose documents are left out");
  cmd->add_option("--window-tokens", f->window, "Documents packed among each other at a time, in tokens")
      ->capture_default_str()
      ->positive();
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Examples:\n  stoker data pack docs.stk --length 2048\n"
      "  stoker data pack docs.stk --length 2048 --name clean --not-source 'forum/*' --exclude removed.txt");
  cmd->callback([f] { pack(*f); });
}

void add_serve(Command& data) {
  auto* cmd =
      data.add_subcommand("serve", "Serve a folder of datasets over HTTP, for training on other machines");
  struct Flags {
    net::FileServerOptions options;
    double delay_ms = 0;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("folder", f->options.root, "What is served, with all below it")->required();
  cmd->add_option("--host", f->options.host, "Address to listen at; 0.0.0.0: all")->capture_default_str();
  cmd->add_option("--port", f->options.port, "Port (default: any that is free)")->range(0, 65535);
  cmd->add_option("--delay-ms", f->delay_ms, "Answer later by this: to see what a far store does to a run")
      ->range(0.0, 60000.0);
  cmd->footer(
      "Example:\n  stoker data serve data --port 8090 &\n"
      "  stoker train recipe.toml --set data.path=http://127.0.0.1:8090/docs.stk\n"
      "No TLS and no passwords: for a trusted network.");
  cmd->callback([f] {
    f->options.delay_s = f->delay_ms / 1000;
    net::FileServer server(f->options);
    fmt::print("serving {} at {}/\n", f->options.root, server.url());
    std::fflush(stdout);
    while (!stop_requested()) system_clock().sleep_s(0.05);
    server.stop();
    fmt::print(stderr, "served {} requests, {}\n", server.requests(),
               human_bytes(static_cast<double>(server.bytes())));
  });
}

}  // namespace

void add_data_feed(Command& data_parent) {
  add_pack(data_parent);
  add_serve(data_parent);
}

}  // namespace stoker::cli
