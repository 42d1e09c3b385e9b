// Checkpoints, written beside the training. Alone, the whole state; of a team, every worker stores its part. When all parts are durable,
// which the votes tell, rank 0 asks whether this team is still the run's and then makes the checkpoint real. Until then it does not
// exist, whoever dies.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/hash.h"
#include "spec/hf_config.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

constexpr int64_t kNothing = -1, kFailed = -2;

Hash128 hash_of_weights(const nn::ParameterStore& store) {
  std::map<std::string, TensorView> by_name;
  for (const nn::Parameter& p : store.parameters()) by_name[p.row.name] = p.weight.value;
  Hasher hasher;
  for (const auto& [name, view] : by_name) hasher.update(view.data, view.bytes());
  return hasher.digest();
}

}  // namespace

checkpoint::TrainingState Trainer::state() const {
  checkpoint::TrainingState s;
  s.step = step_;
  s.next_batch = next_batch_;
  s.tokens_seen = tokens_seen_;
  s.manifest_hash = loader_->manifest_hash().hex();
  s.seed = recipe_.seed;
  s.recipe = recipe_.identity();
  s.recipe_hash = hash128(s.recipe);
  HfConfig config;
  config.model = recipe_.model;
  config.eos_token = loader_->manifest().tokenizer.eod >= 0 ? std::optional(loader_->manifest().tokenizer.eod)
                                                            : std::nullopt;
  config.bos_token = loader_->manifest().tokenizer.bos >= 0 ? std::optional(loader_->manifest().tokenizer.bos)
                                                            : config.eos_token;
  s.model_config = to_hf_config(config);
  s.software = "stoker " STOKER_VERSION;
  s.trainer = nlohmann::json{{"losses", watch_.state()},
                             {"skips_in_a_row", skips_in_a_row_},
                             {"bit_class", bit_class(recipe_.layout)},
                             {"feed", nlohmann::json::parse(loader_->description())}}
                  .dump();
  return s;
}

void Trainer::save() {
  collect_saves(true);
  std::vector<checkpoint::TensorToSave> tensors;
  for (const nn::Parameter& p : share_->store().parameters())
    tensors.push_back({p.row.name, p.weight.value, checkpoint::Part::kWeights});
  for (const NamedTensor& t : optimizer_->state())
    tensors.push_back({t.name, t.tensor, checkpoint::Part::kOptimizer});
  std::vector<checkpoint::Attachment> attachments;
  if (!hooks_.tokenizer_json.empty()) attachments.push_back({"tokenizer.json", hooks_.tokenizer_json});
  writer_->start(std::move(tensors), state(), std::move(attachments));
  record_for_ = step_;
  recorded_.reset();
  if (speaks()) log_data(next_batch_);
}

void Trainer::collect_saves(bool wait) {
  if (team_) return add_replay_record();
  if (const auto done = wait ? writer_->wait() : writer_->poll()) {
    nlohmann::json event{{"event", "checkpoint"},    {"step", done->step},
                         {"seconds", done->seconds}, {"stall_s", done->stall_s},
                         {"bytes", done->bytes},     {"staged_bytes", done->staged_bytes}};
    if (done->error) {
      event["error"] = done->error->what();
      if (!hooks_.quiet)
        fmt::print(stderr, "\ncheckpoint of step {} failed: {}\n", done->step, done->error->what());
      record_for_.reset();
      if (done->step == recipe_.steps) throw *done->error;
    } else {
      event["directory"] = done->directory;
      event["weights_hash"] = done->weights_hash.hex();
      summary_.checkpoint = done->directory;
      summary_.weights_hash = done->weights_hash.hex();
    }
    log_->write(event);
  }
  if (record_for_ && recorded_ && !writer_->busy() && checkpoints_->find(*record_for_)) {
    checkpoints_->add_replay_record(*record_for_, *recorded_);
    record_for_.reset();
    recorded_.reset();
  }
}

// Rows [from, to) of a tensor shaped like row i of the store's table, into the checkpoint, where the whole tensor is. `keep` owns the
// memory where it is a copy. All tensor workers call this with the same rows of the same tensor: columns have to come together.
void Trainer::add_rows(std::vector<checkpoint::TensorToSave>& out, size_t i, const std::string& name,
                       checkpoint::Part part, int64_t from, int64_t to, const float* rows) {
  const nn::Parameter& p = share_->store().parameters()[i];
  const ShareCut& cut = share_->cut(i);
  auto dims = p.weight.value.shape.dims();
  const auto add = [&](const float* data, int64_t width, int64_t whole_row, int64_t count) {
    dims[0] = count;
    if (dims.size() > 1) dims[1] = width;
    if (count > 0)
      out.push_back({name, view_of(const_cast<float*>(data), Shape(dims)), part, whole_row, cut.whole_rows});
  };
  if (cut.replicated) {
    if (mesh_.at.tensor == 0) add(rows, cut.columns, from, to - from);
  } else if (!cut.cuts_columns()) {
    int64_t at = 0;  // of the share's rows
    for (const ShareCut::Stretch& s : cut.rows) {
      const int64_t begin = std::max(from, at), end = std::min(to, at + s.end - s.begin);
      if (begin < end)
        add(rows + (begin - from) * cut.columns, cut.columns, s.begin + begin - at, end - begin);
      at += s.end - s.begin;
    }
  } else {
    const int64_t n = mesh_.layout.tensor, me = mesh_.at.tensor;
    const auto first = [&](int64_t t) { return from + (to - from) * t / n; };
    const int64_t mine = first(me + 1) - first(me);
    Buffer whole(static_cast<size_t>(mine * cut.whole_columns) * sizeof(float));
    std::vector<float> arriving(static_cast<size_t>(mine * cut.columns));
    auto* to_rows = static_cast<float*>(whole.data());
    for (int64_t u = 0; u < n; ++u) {  // u's rows, from everybody to u
      const float* own = rows + (first(u) - from) * cut.columns;
      if (u != me) {
        mesh_.tensor->send(
            std::as_bytes(std::span(own, static_cast<size_t>((first(u + 1) - first(u)) * cut.columns))),
            static_cast<int>(u), kPatience_s);
        continue;
      }
      for (int64_t w = 0; w < n; ++w) {
        if (w != me)
          mesh_.tensor->receive(std::as_writable_bytes(std::span(arriving)), static_cast<int>(w),
                                kPatience_s);
        const float* from_w = w == me ? own : arriving.data();
        for (int64_t r = 0; r < mine; ++r)
          std::copy_n(from_w + r * cut.columns, cut.columns,
                      to_rows + r * cut.whole_columns + w * cut.columns);
      }
    }
    add(to_rows, cut.whole_columns, first(me), mine);
    part_copies_.push_back(std::move(whole));
  }
}

// What this rank stores: of each parameter that its replica's stage trains the rows that end in its shard. A row across a cut begins
// in the shard before, which this rank mirrors, so it has all of it. Where all replicas hold the same, it is dealt evenly.
std::vector<checkpoint::TensorToSave> Trainer::own_part() {
  std::vector<checkpoint::TensorToSave> out;
  if (!share_) return out;
  const int64_t n = mesh_.shards(), me = mesh_.shard();
  const nn::ParameterStore& store = share_->store();
  const std::vector<parallel::Range> mine = share_->holdings().owned(n, me);
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < store.parameters().size(); ++i) {
    const nn::Parameter& p = store.parameters()[i];
    if (!p.trained) continue;
    index[p.row.name] = i;
    const TensorView& value = p.weight.value;
    const int64_t rows = value.shape[0];
    const auto row = static_cast<size_t>(value.count() / rows);
    const auto add = [&](const std::string& name, checkpoint::Part part, int64_t from, int64_t to,
                         const float* data) { add_rows(out, i, name, part, from, to, data); };
    if (!shards()) {
      const int64_t from = rows * me / n, to = rows * (me + 1) / n;
      if (from < to)
        add(p.row.name, checkpoint::Part::kWeights, from, to,
            value.as<float>() + from * static_cast<int64_t>(row));
      continue;
    }
    const auto row_of = [&](size_t at) {
      return at <= p.flat ? int64_t{0} : std::min(rows, static_cast<int64_t>((at - p.flat) / row));
    };
    for (const parallel::Range& shard : mine) {
      const int64_t from = row_of(shard.begin), to = row_of(shard.end);
      if (from >= to) continue;
      const parallel::Range flat{p.flat + static_cast<size_t>(from) * row,
                                 p.flat + static_cast<size_t>(to) * row};
      add(p.row.name, checkpoint::Part::kWeights, from, to,
          shards_values() ? optimizer_->value(flat) : value.as<float>() + from * static_cast<int64_t>(row));
      for (auto& [name, copy] : optimizer_->copy_state(p.row.name, flat)) {
        add(name, checkpoint::Part::kOptimizer, from, to, static_cast<const float*>(copy.data()));
        part_copies_.push_back(std::move(copy));
      }
    }
  }
  if (shards()) return out;
  for (const NamedTensor& t : optimizer_->state()) {
    const int64_t rows = t.tensor.shape[0], from = rows * me / n, to = rows * (me + 1) / n;
    if (from < to)
      add_rows(out, index.at(t.name.substr(0, t.name.rfind('.'))), t.name, checkpoint::Part::kOptimizer, from,
               to, t.tensor.as<float>() + from * (t.tensor.count() / rows));
  }
  return out;
}

// A disk that is slow or full must not keep the team waiting: while a save is not settled no other begins. All agree on that, for
// saves are settled by votes.
void Trainer::save_if_settled() {
  if (!shared_save_) save_together();
}

void Trainer::save_together() {
  team_->phase("checkpoint", step_);
  drop_save();
  std::vector<checkpoint::Attachment> attachments;
  if (speaks() && !hooks_.tokenizer_json.empty())
    attachments.push_back({"tokenizer.json", hooks_.tokenizer_json});
  shared_save_.emplace(SharedSave{step_, monotonic_s(), kNothing, {}, {}, {}});
  if (speaks()) {
    log_data(next_batch_);
    if (mesh_.layout.pipeline == 1 && mesh_.layout.tensor == 1 && !shards_values())
      shared_save_->weights = hash_of_weights(share_->store());
    record_for_ = step_;
    recorded_.reset();
  }
  writer_->start(own_part(), state(), std::move(attachments));
}

// A save that the team has not agreed on never happened.
void Trainer::drop_save() {
  (void)writer_->wait();
  forget_save();
}

void Trainer::forget_save() {
  stop_hashing_ = true;
  shared_save_.reset();
  stop_hashing_ = false;
  part_copies_.clear();
}

// What this rank says in the vote.
int64_t Trainer::saved_part(bool wait) {
  if (!shared_save_) return kNothing;
  if (shared_save_->mine == kFailed) return kFailed;
  if (shared_save_->mine != kNothing) return ready_to_commit(wait) ? shared_save_->mine : kNothing;
  const auto done = wait ? writer_->wait() : writer_->poll();
  if (!done) return kNothing;
  part_copies_.clear();
  shared_save_->mine = done->error ? kFailed : done->step;
  shared_save_->directory = done->directory;
  if (done->error || done->retries > 0)
    team_->note("storage",
                fmt::format("{} on {} had trouble storing its part of the checkpoint of step {}: {}",
                            team_->worker(), team_->host(), done->step,
                            done->error ? done->error->what()
                                        : fmt::format("stored after {} more tries", done->retries)));
  nlohmann::json event{{"event", "checkpoint_part"}, {"step", done->step},
                       {"seconds", done->seconds},   {"stall_s", done->stall_s},
                       {"bytes", done->bytes},       {"staged_bytes", done->staged_bytes}};
  if (done->error) event["error"] = done->error->what();
  log_->write(event);
  return shared_save_->mine == kFailed || ready_to_commit(wait) ? shared_save_->mine : kNothing;
}

// Rank 0 holds its vote back until it knows the hash of all weights, and while the coordinator, whom it has to ask before it commits,
// is away: the run goes on meanwhile.
bool Trainer::ready_to_commit(bool wait) {
  return hash_stored_weights(wait) && (wait || !speaks() || team_->coordinator_answers());
}

// Rank 0 of a pipeline, of a shared width or of sharded weights has never seen all of them: when all parts are stored (settle_save
// begins it) it reads them, beside the training.
bool Trainer::hash_stored_weights(bool wait) {
  SharedSave& save = *shared_save_;
  if (!speaks() || save.weights) return true;
  if (!save.hashing.valid()) return false;
  if (!wait && save.hashing.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return false;
  try {
    save.weights = save.hashing.get();
  } catch (const Error& e) {
    team_->note("storage", fmt::format("{} on {} could not read back the checkpoint of step {}: {}",
                                       team_->worker(), team_->host(), save.step, e.what()));
    save.mine = kFailed;
  }
  return true;
}

// After a vote: everybody knows what everybody has stored.
void Trainer::settle_save(std::span<const int64_t> parts, bool wait) {
  if (!shared_save_) return;
  if (std::count(parts.begin(), parts.end(), kFailed) > 0) {
    record_for_.reset();
    return shared_save_.reset();
  }
  const auto stored = [&](int64_t p) { return p == shared_save_->step; };
  if (speaks() && !shared_save_->weights && !shared_save_->hashing.valid() && stored(shared_save_->mine) &&
      std::all_of(parts.begin() + 1, parts.end(), stored))
    shared_save_->hashing =
        std::async(std::launch::async, [this, directory = shared_save_->directory, writers = team_->size()] {
          return checkpoints_->weights_hash(directory, writers, [this](uint64_t) {
            if (stop_hashing_) fail(ErrorKind::kCancelled, "the save was given up");
          });
        });
  if (!std::all_of(parts.begin(), parts.end(), stored)) return;
  const SharedSave save = std::move(*shared_save_);
  shared_save_.reset();
  if (!speaks()) return;
  if (!may_commit(save.step, wait)) return record_for_.reset();
  const double begin = monotonic_s();
  std::vector<std::string> attachments;
  if (!hooks_.tokenizer_json.empty()) attachments.push_back("tokenizer.json");
  try {
    const checkpoint::Commit done = checkpoints_->commit(save.directory, save.step, team_->size(),
                                                         attachments, save.weights, system_clock().unix_s());
    checkpoints_->prune(save.step);
    summary_.checkpoint = save.directory;
    summary_.weights_hash = done.weights_hash.hex();
    log_->write({{"event", "checkpoint"},
                 {"step", save.step},
                 {"seconds", monotonic_s() - save.began_s},
                 {"stall_s", monotonic_s() - begin},
                 {"bytes", done.tensor_bytes},
                 {"writers", team_->size()},
                 {"directory", save.directory},
                 {"weights_hash", done.weights_hash.hex()}});
    add_replay_record();
  } catch (const Error& e) {
    record_for_.reset();
    team_->note("storage", fmt::format("{} on {} could not commit the checkpoint of step {}: {}",
                                       team_->worker(), team_->host(), save.step, e.what()));
    log_->write({{"event", "checkpoint"}, {"step", save.step}, {"error", e.what()}});
  }
}

// Where the coordinator went away since ready_to_commit() this save is let go, unless it is the last one: the others, who go on, would
// take a rank 0 that waits for lost.
bool Trainer::may_commit(int64_t step, bool wait) {
  std::string why;
  const std::optional<bool> allowed = team_->may_commit(&why, wait);
  if (!allowed)
    log_->write({{"event", "checkpoint"}, {"step", step}, {"error", "the coordinator does not answer"}});
  else if (!*allowed) fail(ErrorKind::kPeer, "this worker may not write checkpoints any more: {}", why);
  return allowed.has_value();
}

// The step after a save may be done before or after the save is committed.
void Trainer::add_replay_record() {
  if (!record_for_ || !recorded_ || shared_save_ || !checkpoints_->find(*record_for_)) return;
  const int64_t of = *std::exchange(record_for_, std::nullopt);
  const auto record = *std::exchange(recorded_, std::nullopt);
  try {
    checkpoints_->add_replay_record(of, record);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kStorage)
      throw;  // a resume will not be able to prove itself; nothing else is lost
    team_->note("storage", fmt::format("{} on {} could not store the replay record of step {}: {}",
                                       team_->worker(), team_->host(), of, e.what()));
  }
}

// The end: the last checkpoint exists, whoever has to write it, before anybody leaves.
void Trainer::finish_together() {
  for (;;) {
    try {
      if (!team_->formed()) regroup();
      std::vector<int64_t> missing{team_->rank() == 0 && !checkpoints_->find(step_) ? 1 : 0};
      team_->comm().all_reduce(std::span(missing), comm::Reduce::kMax, kPatience_s);
      if (missing[0]) {
        if (!shared_save_ || shared_save_->step != step_) save_together();
        std::vector<int64_t> parts(static_cast<size_t>(team_->size()));
        do {
          const int64_t mine = saved_part(true);
          team_->comm().all_gather(std::as_bytes(std::span(&mine, 1)),
                                   std::as_writable_bytes(std::span(parts)), kPatience_s);
          settle_save(parts, true);
        } while (std::count(parts.begin(), parts.end(), kNothing) > 0 &&
                 std::count(parts.begin(), parts.end(), kFailed) == 0);
        std::vector<int64_t> there{team_->rank() == 0 && checkpoints_->find(step_) ? 1 : 0};
        team_->comm().all_reduce(std::span(there), comm::Reduce::kMax, kPatience_s);
        if (!there[0])
          fail(ErrorKind::kStorage,
               "the checkpoint of step {} could not be stored: see {}/events.jsonl. Free some space and run "
               "the same command.",
               step_, recipe_.run_dir);
      }
      team_->comm().barrier(kPatience_s);
      return;
    } catch (const comm::PeerError& e) {
      team_->lost(e);
      regroup();
    }
  }
}

}  // namespace stoker::train
