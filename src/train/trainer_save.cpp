// Checkpoints of a team: every worker stores its part beside the training. When all parts are durable, which the votes tell, rank 0
// asks whether this team is still the run's and then makes the checkpoint real. Until then it does not exist, whoever dies.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/hash.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

constexpr double kPatience_s = 600;  // one rank may be slower to store than the others
constexpr int64_t kNothing = -1, kFailed = -2;

Hash128 hash_of_weights(const nn::ParameterStore& store) {
  std::map<std::string, TensorView> by_name;
  for (const nn::Parameter& p : store.parameters()) by_name[p.row.name] = p.weight.value;
  Hasher hasher;
  for (const auto& [name, view] : by_name) hasher.update(view.data, view.bytes());
  return hasher.digest();
}

}  // namespace

// What this rank stores: of each parameter that its replica's stage trains the rows that end in its shard. A row across a cut begins
// in the shard before, which this rank mirrors, so it has all of it.
std::vector<checkpoint::TensorToSave> Trainer::own_part() {
  std::vector<checkpoint::TensorToSave> out;
  if (!share_) return out;
  const int64_t n = mesh_.layout.data, me = mesh_.at.data;
  const nn::ParameterStore& store = share_->store();
  const std::vector<parallel::Range> mine = share_->holdings().owned(n, me);
  for (const nn::Parameter& p : store.parameters()) {
    if (!p.trained) continue;
    const TensorView& value = p.weight.value;
    const int64_t rows = value.shape[0];
    const auto row = static_cast<size_t>(value.count() / rows);
    const auto row_of = [&](size_t at) {
      return at <= p.flat ? int64_t{0} : std::min(rows, static_cast<int64_t>((at - p.flat) / row));
    };
    for (const parallel::Range& shard : mine) {
      const int64_t from = row_of(shard.begin), to = row_of(shard.end);
      if (from >= to) continue;
      const parallel::Range flat{p.flat + static_cast<size_t>(from) * row,
                                 p.flat + static_cast<size_t>(to) * row};
      auto dims = value.shape.dims();
      dims[0] = to - from;
      out.push_back(
          {p.row.name,
           shards_values() ? view_of(optimizer_->value(flat), Shape(dims)) : value.slice_rows(from, to),
           checkpoint::Part::kWeights, from, rows});
      if (!shards()) continue;
      for (auto& [name, copy] : optimizer_->copy_state(p.row.name, flat)) {
        out.push_back({name, view_of(static_cast<float*>(copy.data()), Shape(dims)),
                       checkpoint::Part::kOptimizer, from, rows});
        part_copies_.push_back(std::move(copy));
      }
    }
  }
  if (shards()) return out;
  for (const NamedTensor& t : optimizer_->state()) {  // every replica has all of it: dealt evenly
    const int64_t rows = t.tensor.shape[0], from = rows * me / n, to = rows * (me + 1) / n;
    if (from < to)
      out.push_back({t.name, t.tensor.slice_rows(from, to), checkpoint::Part::kOptimizer, from, rows});
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
    if (mesh_.layout.pipeline == 1 && !shards_values())
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
  if (shared_save_->mine != kNothing) return hash_stored_weights(wait) ? shared_save_->mine : kNothing;
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
  return shared_save_->mine == kFailed || hash_stored_weights(wait) ? shared_save_->mine : kNothing;
}

// Rank 0 of a pipeline, or of sharded weights, has never seen all of them: when all parts are stored (settle_save begins it) it reads them, beside the
// training, and holds its own vote back until then.
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
void Trainer::settle_save(std::span<const int64_t> parts) {
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
  std::string why;
  if (!team_->may_commit(&why))
    fail(ErrorKind::kPeer, "this worker may not write checkpoints any more: {}", why);
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
          settle_save(parts);
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
