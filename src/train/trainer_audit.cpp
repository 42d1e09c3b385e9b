// Who lies: gradients that were computed wrongly look like any other once they are summed, so from time to time each worker's
// share is computed a second time by its neighbour before the sum; the same bits must come out. And what is on disk may lie too.
#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

struct Opinion {
  Hash128 own, neighbour;
};

}  // namespace

// What a replica adds to the sums, computed here (all stages of a pipeline together, all replicas at the same time). Leaves the store's
// gradients in disorder: call before the sum is there.
Hash128 Trainer::gradient_hash(int64_t replica) {
  const auto rows = static_cast<uint64_t>(recipe_.micro_batch),
             batch = static_cast<uint64_t>(recipe_.global_batch),
             per_leaf = batch / static_cast<uint64_t>(recipe_.virtual_ranks);
  const std::vector<int> leaves = share_->leaves_of(replica);
  uint64_t done = 0;  // samples
  return share_->repeat(
      replica,
      [&](data::Batch& b) {
        const auto leaf = static_cast<uint64_t>(leaves.at(static_cast<size_t>(done / per_leaf)));
        loader_->fill(next_batch_ * batch + leaf * per_leaf + done % per_leaf, recipe_.micro_batch, b);
        done += rows;
      },
      gradient_scale());
}

bool Trainer::audit_due() const {
  return hooks_.audit_every > 0 && next_batch_ % static_cast<uint64_t>(hooks_.audit_every) == 0 &&
         mesh_.layout.data > 1;
}

// Each replica repeats its neighbour's share, stage by stage. Where two do not agree, everybody repeats it, and who differs from the
// majority of these lies.
void Trainer::audit_gradients() {
  if (!audit_due()) return;
  const auto replicas = static_cast<int>(mesh_.layout.data);
  team_->phase("audit", step_);
  const auto all_say = [&]<typename Said>(const Said& mine) {
    std::vector<Said> said(static_cast<size_t>(team_->size()));
    team_->comm().all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(said)));
    return said;
  };
  // The rank of the same stage in the replica before.
  const auto auditor_of = [&](int rank) {
    MeshCoordinates at = mesh_coordinates(mesh_.layout, rank);
    at.data = (at.data + replicas - 1) % replicas;
    return static_cast<int>(mesh_rank(mesh_.layout, at));
  };
  Opinion mine;
  if (share_) mine = {share_->signature(), gradient_hash((mesh_.at.data + 1) % replicas)};
  const std::vector<Opinion> said = all_say(mine);
  const auto members = static_cast<int>(mesh_.layout.world_size());
  int suspect = -1;
  for (int r = 0; r < members && suspect < 0; ++r)
    if (said[static_cast<size_t>(r)].own != said[static_cast<size_t>(auditor_of(r))].neighbour) suspect = r;
  if (suspect < 0) return;
  const int auditor = auditor_of(suspect);
  const MeshCoordinates place = mesh_coordinates(mesh_.layout, suspect);
  const std::vector<Hash128> votes = all_say(share_ ? gradient_hash(place.data) : Hash128{});
  const auto agree = [&](const Hash128& hash) {
    int same = 0;
    for (const int64_t r : mesh_group(mesh_.layout, suspect, MeshAxis::kData))
      same += votes[static_cast<size_t>(r)] == hash;
    return same * 2 > replicas;
  };
  const bool owner_right = agree(said[static_cast<size_t>(suspect)].own);
  const bool auditor_right = agree(said[static_cast<size_t>(auditor)].neighbour);
  if (owner_right == auditor_right)
    fail(ErrorKind::kDevice,
         "the gradients of rank {} ({}) differ at step {} from what rank {} ({}) computes for the same "
         "samples, and repeating it "
         "does not tell who is right: check both machines (stoker doctor) and start again from the last "
         "checkpoint",
         suspect, team_->worker(suspect), step_ + 1, auditor, team_->worker(auditor));
  name_liar(owner_right ? auditor : suspect, "gradient of its samples, as others compute it,");
}

// Every rank comes here with the same rank to name. It ends; the others go on without it.
void Trainer::name_liar(int rank, const std::string& what) {
  if (rank == team_->rank()) {
    const std::string why = fmt::format(
        "{} of rank {} ({}, {}) differ from the other workers' at step {}: its memory or processor lies",
        what, rank, team_->worker(), team_->host(), step_ + 1);
    team_->note("corrupt", why);
    fail(ErrorKind::kDevice, "{}. This process ends; the others go on without its state.", why);
  }
  throw comm::PeerError(rank, fmt::format("{}: its {} differ at step {}",
                                          comm::describe(team_->comm().peer(rank)), what, step_ + 1));
}

// With a team nobody may be there to choose another checkpoint: one that is damaged is set aside with a note, and the one before
// it leads to the same weights.
void Trainer::discard_damaged() {
  if (!speaks()) return;
  bool damaged = false;
  for (;;) {
    const auto listed = checkpoints_->list();
    if (listed.empty() && damaged)
      fail(ErrorKind::kData, "no checkpoint in {} is whole: see the run's events", checkpoints_->directory());
    if (listed.empty()) return;
    const std::string& directory = listed.back().directory;
    std::string what;
    try {
      const auto found = checkpoint::Checkpoint::open(fs_, directory).verify();
      if (found.empty()) return;
      const checkpoint::Damage& d = found.front();
      what = fmt::format("{} bytes at {} of {}{}: {}", d.bytes, d.offset, d.file,
                         d.tensor.empty() ? "" : fmt::format(" ({})", d.tensor), d.what);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kData) throw;
      what = e.what();
    }
    damaged = true;
    std::string aside = directory + ".damaged";  // the step may have been stored and damaged before
    for (int n = 2; fs_.exists(aside); ++n) aside = fmt::format("{}.damaged-{}", directory, n);
    team_->note("damaged", fmt::format("{} is not used: {}. Kept as {}", directory, what, aside));
    fs_.rename(directory, aside);
  }
}

}  // namespace stoker::train
