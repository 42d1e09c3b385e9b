#include <fmt/core.h>
#include <fmt/ranges.h>

#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "checkpoint/store.h"
#include "cli/command.h"
#include "cli/hf_exchange.h"

namespace stoker::cli {
namespace {

using OrderedJson = nlohmann::ordered_json;
using checkpoint::Checkpoint;

struct CkptOptions {
  std::string path, out, dtype;
  bool json = false, tensors = false;
  double max_file_gb = 5;
  int64_t step = 0;
};

Checkpoint open(const std::string& path) {
  io::FileSystem& fs = io::real_file_system();
  return Checkpoint::open(fs, checkpoint::resolve_checkpoint(fs, path));
}

std::string when(double unix_s) {
  const auto t = static_cast<std::time_t>(unix_s);
  std::tm utc{};
  gmtime_r(&t, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &utc);
  return text;
}

OrderedJson describe(const Checkpoint& c) {
  const checkpoint::TrainingState& s = c.state();
  OrderedJson j{{"directory", c.directory()},
                {"step", c.step()},
                {"weights_hash", c.weights_hash().hex()},
                {"tensor_bytes", c.total_bytes()},
                {"next_batch", s.next_batch},
                {"tokens_seen", s.tokens_seen},
                {"manifest_hash", s.manifest_hash},
                {"seed", s.seed},
                {"recipe_hash", s.recipe_hash.hex()},
                {"software", s.software},
                {"saved_unix_s", c.commit().unix_s},
                {"writers", c.commit().writers},
                {"attachments", c.attachments()}};
  const auto replay = c.replay_record();
  j["replay_step"] = replay ? OrderedJson(replay->step) : OrderedJson(nullptr);
  j["model_config"] = OrderedJson::parse(s.model_config, nullptr, false);
  if (j["model_config"].is_discarded()) j["model_config"] = nullptr;
  j["tensors"] = OrderedJson::array();
  for (const auto& [name, t] : c.tensors()) {
    OrderedJson pieces = OrderedJson::array();
    for (const checkpoint::Piece& p : t.pieces)
      pieces.push_back(
          {{"file", p.file}, {"first_row", p.first_row}, {"rows", p.rows}, {"hash", p.hash.hex()}});
    j["tensors"].push_back({{"name", name},
                            {"part", std::string(to_string(t.part))},
                            {"dtype", std::string(to_string(t.dtype))},
                            {"shape", t.shape.dims()},
                            {"pieces", std::move(pieces)}});
  }
  return j;
}

void show(const CkptOptions& o) {
  const Checkpoint c = open(o.path);
  if (o.json) {
    fmt::print("{}\n", describe(c).dump(2));
    return;
  }
  int64_t parameters = 0;
  size_t weights = 0;
  for (const auto& [name, t] : c.tensors())
    if (t.part == checkpoint::Part::kWeights) parameters += t.shape.count(), ++weights;
  const checkpoint::TrainingState& s = c.state();
  fmt::print("checkpoint    {}\nstep          {}\nweights hash  {}\nsaved         {} by {}\n", c.directory(),
             c.step(), c.weights_hash().hex(), when(c.commit().unix_s), s.software);
  fmt::print(
      "parameters    {} in {} tensors\noptimizer     {} tensors\nsize          {} of tensors, {} writer{}\n",
      human_count(static_cast<double>(parameters)), weights, c.tensors().size() - weights,
      human_bytes(static_cast<double>(c.total_bytes())), c.commit().writers,
      c.commit().writers == 1 ? "" : "s");
  if (!s.manifest_hash.empty())
    fmt::print("data          dataset {}, next batch {}, {} tokens seen\n", s.manifest_hash, s.next_batch,
               human_count(static_cast<double>(s.tokens_seen)));
  if (!c.attachments().empty()) fmt::print("files         {}\n", fmt::join(c.attachments(), ", "));
  if (const auto replay = c.replay_record())
    fmt::print("replay        step {} is recorded: loss {:.6f}, gradient norm {:.6f}\n", replay->step,
               replay->loss, replay->gradient_norm);
  if (!o.tensors) return;
  fmt::print("\n{:<10} {:<5} {:<20} {:<32}  name\n", "part", "type", "shape", "hash");
  for (const auto& [name, t] : c.tensors())
    for (const checkpoint::Piece& p : t.pieces)
      fmt::print("{:<10} {:<5} {:<20} {}  {}\n", to_string(t.part), to_string(t.dtype), to_string(t.shape),
                 p.hash.hex(), name);
}

void verify(const CkptOptions& o) {
  const Checkpoint c = open(o.path);
  std::vector<checkpoint::Damage> found;
  {
    Progress progress("verify", c.total_bytes());
    found = c.verify([&](uint64_t bytes) { progress.add(bytes); });
  }
  if (o.json) {
    OrderedJson damage = OrderedJson::array();
    for (const checkpoint::Damage& d : found)
      damage.push_back({{"tensor", d.tensor},
                        {"file", d.file},
                        {"offset", d.offset},
                        {"bytes", d.bytes},
                        {"what", d.what}});
    fmt::print("{}\n", OrderedJson{{"directory", c.directory()},
                                   {"step", c.step()},
                                   {"weights_hash", c.weights_hash().hex()},
                                   {"sound", found.empty()},
                                   {"damage", damage}}
                           .dump(2));
  } else if (found.empty()) {
    fmt::print("sound: {} tensors, {}, weights hash {}\n", c.tensors().size(),
               human_bytes(static_cast<double>(c.total_bytes())), c.weights_hash().hex());
  }
  if (found.empty()) return;
  constexpr size_t kShown = 20;
  for (size_t i = 0; i < std::min(found.size(), kShown); ++i) fmt::print(stderr, "{}\n", found[i].what);
  if (found.size() > kShown) fmt::print(stderr, "... and {} more\n", found.size() - kShown);
  fail(ErrorKind::kData,
       "the checkpoint '{}' is damaged in {} place{}. Use an older one: stoker ckpt list {}", c.directory(),
       found.size(), found.size() == 1 ? "" : "s", io::parent_of(c.directory()));
}

// A store, or a run's directory.
checkpoint::Store store_at(const std::string& path) {
  io::FileSystem& fs = io::real_file_system();
  const std::string inner = io::join(path, "checkpoints");
  if (!fs.exists(path)) fail(ErrorKind::kUsage, "'{}' does not exist: expected a run's directory", path);
  return checkpoint::Store(fs, fs.exists(inner) ? inner : path);
}

void list(const CkptOptions& o) {
  const checkpoint::Store store = store_at(o.path);
  const std::vector<checkpoint::Listed> all = store.list();
  OrderedJson out = OrderedJson::array();
  for (const checkpoint::Listed& l : all) {
    const std::string marker = io::join(l.directory, checkpoint::kCommitName);
    const auto commit = checkpoint::parse_commit(io::read_text(store.file_system(), marker), marker);
    if (o.json)
      out.push_back({{"step", l.step},
                     {"directory", l.directory},
                     {"pinned", l.pinned},
                     {"tensor_bytes", commit.tensor_bytes},
                     {"saved_unix_s", commit.unix_s},
                     {"weights_hash", commit.weights_hash.hex()}});
    else
      fmt::print("step {:>8}  {:>10}  {}  {}  {}{}\n", l.step,
                 human_bytes(static_cast<double>(commit.tensor_bytes)), when(commit.unix_s),
                 commit.weights_hash.hex(), l.directory, l.pinned ? "  pinned" : "");
  }
  if (o.json) fmt::print("{}\n", OrderedJson{{"directory", store.directory()}, {"checkpoints", out}}.dump(2));
  else if (all.empty()) fmt::print("no committed checkpoint in {}\n", store.directory());
}

void report(const ExchangeReport& r, bool json) {
  for (const std::string& w : r.warnings) fmt::print(stderr, "note: {}\n", w);
  if (json) {
    fmt::print("{}\n", OrderedJson{{"out", r.out},
                                   {"parameters", r.parameters},
                                   {"dtype", r.dtype},
                                   {"bytes", r.bytes},
                                   {"weights_hash", r.weights_hash},
                                   {"files", r.files}}
                           .dump(2));
    return;
  }
  fmt::print("{}: {} parameters as {}, {}\nweights hash  {}\nfiles         {}\n", r.out,
             human_count(static_cast<double>(r.parameters)), r.dtype,
             human_bytes(static_cast<double>(r.bytes)), r.weights_hash, fmt::join(r.files, ", "));
}

Command* add_with_path(Command* parent, const char* name, const char* what,
                       const std::shared_ptr<CkptOptions>& o, const char* path_is) {
  Command* cmd = parent->add_subcommand(name, what);
  cmd->add_option("PATH", o->path, path_is)->required();
  cmd->add_flag("--json", o->json, "Print JSON (docs/json.md)");
  return cmd;
}

constexpr const char* kAnyCheckpoint = "A checkpoint, a directory of them or a run's directory (its newest)";

}  // namespace

void add_ckpt(Command& app) {
  const auto o = std::make_shared<CkptOptions>();
  Command* ckpt = app.add_subcommand("ckpt", "Show, verify, import and export checkpoints");
  ckpt->require_subcommand(1, 1);
  ckpt->footer(
      "Examples:\n"
      "  stoker ckpt show runs/demo                      the newest checkpoint of a run\n"
      "  stoker ckpt verify runs/demo/checkpoints/step-00000200\n"
      "  stoker ckpt import Qwen2.5-0.5B --out start     Hugging Face directory -> checkpoint\n"
      "  stoker ckpt export runs/demo --out model --dtype bfloat16");
  Command* show_cmd = add_with_path(ckpt, "show", "Step, hashes, tensors", o, kAnyCheckpoint);
  show_cmd->add_flag("--tensors", o->tensors, "List every tensor");
  show_cmd->callback([o] { show(*o); });
  show_cmd->footer(
      "Examples:\n  stoker ckpt show runs/demo\n  stoker ckpt show runs/demo/checkpoints/step-00000200 "
      "--tensors");
  add_with_path(ckpt, "verify", "Read every byte and compare with the hashes", o, kAnyCheckpoint)
      ->callback([o] { verify(*o); })
      ->footer("Example:\n  stoker ckpt verify runs/demo/checkpoints/step-00000200");
  add_with_path(ckpt, "list", "The committed checkpoints of a run", o, "A run's directory or its checkpoints")
      ->callback([o] { list(*o); })
      ->footer("Example:\n  stoker ckpt list runs/demo");
  for (const bool pin : {true, false}) {
    Command* cmd = ckpt->add_subcommand(
        pin ? "pin" : "unpin", pin ? "Keep the checkpoint of a step for ever" : "Let it be replaced again");
    cmd->add_option("PATH", o->path, "A run's directory or its checkpoints")->required();
    cmd->add_option("STEP", o->step, "Of the checkpoint, as `stoker ckpt list` names it")->required();
    cmd->footer(fmt::format("Example:\n  stoker ckpt {} runs/demo 200", pin ? "pin" : "unpin"));
    cmd->callback([o, pin] {
      checkpoint::Store store = store_at(o->path);
      pin ? store.pin(o->step) : store.unpin(o->step);
    });
  }
  Command* import_cmd = add_with_path(ckpt, "import", "Make a checkpoint from a Hugging Face directory", o,
                                      "Directory with config.json and safetensors");
  import_cmd->add_option("--out", o->out, "Directory for the checkpoint")->required();
  import_cmd->callback(
      [o] { report(import_hugging_face(io::real_file_system(), o->path, o->out), o->json); });
  import_cmd->footer("Example:\n  stoker ckpt import Qwen2.5-0.5B --out start");
  Command* export_cmd =
      add_with_path(ckpt, "export", "Make a Hugging Face directory from a checkpoint", o, kAnyCheckpoint);
  export_cmd->add_option("--out", o->out, "Directory to make; must not exist")->required();
  export_cmd->add_option("--dtype", o->dtype,
                         "float32, bfloat16 or float16 (as the model says when not given)");
  export_cmd->add_option("--max-file-gb", o->max_file_gb, "Shard above this many GB")
      ->capture_default_str()
      ->positive();
  export_cmd->footer("Example:\n  stoker ckpt export runs/demo --out model --dtype bfloat16");
  export_cmd->callback([o] {
    report(export_hugging_face(io::real_file_system(), o->path, o->out,
                               {o->dtype, static_cast<uint64_t>(o->max_file_gb * 1e9)}),
           o->json);
  });
}

}  // namespace stoker::cli
