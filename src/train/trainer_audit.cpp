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

Hash128 hash_of(comm::TreeAccumulator& tree, size_t elements) {
  Hash128 out;
  std::vector<Hash128> parts;
  for (const float* p : tree.partials()) parts.push_back(hash128(p, elements * sizeof(float)));
  return hash128(parts.data(), parts.size() * sizeof(Hash128));
}

}  // namespace

// The hash of the subtrees of `rank`, computed here. Leaves store_->grads() in disorder: call before the sum is there.
Hash128 Trainer::gradient_hash(int rank) {
  const comm::LeafSpan leaves = team_->spans().at(static_cast<size_t>(rank));
  const auto elements = static_cast<size_t>(store_->grads().count());
  const int64_t per_leaf = recipe_.global_batch / recipe_.micro_batch / recipe_.virtual_ranks;
  comm::TreeAccumulator tree(leaves, recipe_.virtual_ranks, elements);
  data::Batch batch;
  for (int v = leaves.begin; v < leaves.end; ++v) {
    store_->zero_grads();
    for (int64_t m = 0; m < per_leaf; ++m) {
      const int64_t at = (v * per_leaf + m) * recipe_.micro_batch;
      loader_->fill(next_batch_ * static_cast<uint64_t>(recipe_.global_batch) + static_cast<uint64_t>(at),
                    recipe_.micro_batch, batch);
      (void)model_->forward_backward(view(batch), gradient_scale());
    }
    std::copy_n(store_->grads().as<float>(), elements, tree.open(v));
    tree.close(v);
  }
  return hash_of(tree, elements);
}

// Each worker repeats its neighbour's share. Where the two do not agree, everybody repeats it, and who differs from the majority of
// these lies.
void Trainer::audit_gradients() {
  const bool due = hooks_.audit_every > 0 && next_batch_ % static_cast<uint64_t>(hooks_.audit_every) == 0;
  if (std::exchange(flip_shard_, false) && !tree_->partials().empty())
    *reinterpret_cast<uint8_t*>(tree_->partials().front()) ^= 0x04;
  const int n = team_->size(), me = team_->rank();
  if (!due || n < 2) return;
  team_->phase("audit", step_);
  const Opinion mine{hash_of(*tree_, static_cast<size_t>(store_->grads().count())),
                     gradient_hash((me + 1) % n)};
  std::vector<Opinion> said(static_cast<size_t>(n));
  team_->comm().all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(said)));
  int suspect = -1;
  for (int r = 0; r < n && suspect < 0; ++r)
    if (said[static_cast<size_t>(r)].own != said[static_cast<size_t>((r + n - 1) % n)].neighbour) suspect = r;
  if (suspect < 0) return;
  const int auditor = (suspect + n - 1) % n;
  const Hash128 again = gradient_hash(suspect);
  std::vector<Hash128> votes(static_cast<size_t>(n));
  team_->comm().all_gather(std::as_bytes(std::span(&again, 1)), std::as_writable_bytes(std::span(votes)));
  const auto agree = [&](const Hash128& hash) {
    return std::count(votes.begin(), votes.end(), hash) * 2 > n;
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
    team_->note("damaged", fmt::format("{} is not used: {}. Kept as {}.damaged", directory, what, directory));
    fs_.rename(directory, directory + ".damaged");
  }
}

}  // namespace stoker::train
