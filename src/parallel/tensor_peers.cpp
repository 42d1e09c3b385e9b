#include "parallel/tensor_peers.h"

#include <cstring>

#include "base/threads.h"

namespace stoker::parallel {
namespace {

constexpr int64_t kPieceRows = 128;  // enough for a product to be as fast as a large one (docs/layouts.md)

template <typename T>
void round_rows(const float* in, const float* bias, const TensorView& out) {
  const int64_t width = out.columns();
  parallel_ranges(out.rows(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * width; i < end * width; ++i)
      out.as<T>()[i] = from_float<T>(bias ? in[i] + bias[i % width] : in[i]);
  });
}

}  // namespace

CommTensorPeers::CommTensorPeers(comm::Communicator& group, bool split_rows)
    : group_(group),
      split_rows_(split_rows),
      folds_(comm::fold_plan(comm::even_spans(group.size(), group.size()), group.size())) {}

size_t CommTensorPeers::memory_bytes(int64_t rows, int64_t width, int64_t workers) {
  return static_cast<size_t>((rows + workers - 1) / workers * (workers - 1) * width) * sizeof(float);
}

CommTensorPeers::Stretch CommTensorPeers::rows_of(int64_t rows, int worker) const {
  return {worker * rows / group_.size(), (worker + 1) * rows / group_.size()};
}

void CommTensorPeers::await(std::vector<comm::Ticket>& tickets) {
  for (const comm::Ticket& t : tickets) group_.await(t);
  tickets.clear();
}

// What is sent or used at a time of one worker's rows: the same on both ends, for it depends on their number alone.
std::vector<CommTensorPeers::Stretch> CommTensorPeers::pieces_of(int64_t rows, int worker) const {
  const Stretch all = rows_of(rows, worker);
  const int64_t count = std::max<int64_t>(1, all.size() / kPieceRows);
  std::vector<Stretch> out;
  for (int64_t p = 0; p < count && all.size() > 0; ++p)
    out.push_back({all.begin + p * all.size() / count, all.begin + (p + 1) * all.size() / count});
  return out;
}

// A worker without rows of its own (fewer rows than workers) neither gets nor owes any.
void CommTensorPeers::sum(TensorView partial, const Rows& make, const Work& beside, TensorView bias,
                          TensorView out) {
  const int64_t rows = partial.rows(), width = partial.columns();
  const Stretch own = rows_of(rows, group_.rank());
  STOKER_CHECK(out.columns() == width && out.rows() == (split_rows_ ? own.size() : rows), "{} into {}",
               to_string(partial.shape), to_string(out.shape));
  const auto share = static_cast<size_t>(own.size() * width);
  arrived_.resize(share * static_cast<size_t>(group_.size() - 1));
  std::vector<float*> slots(static_cast<size_t>(group_.size()));
  std::vector<comm::Ticket> coming, going;
  for (int hop = 1; hop < group_.size(); ++hop) {
    float* to = slots[static_cast<size_t>(before(hop))] =
        arrived_.data() + static_cast<size_t>(hop - 1) * share;
    for (const Stretch& s : pieces_of(rows, group_.rank())) {
      const std::span<float> piece(to + (s.begin - own.begin) * width, static_cast<size_t>(s.size() * width));
      coming.push_back(group_.post_receive(std::as_writable_bytes(piece), before(hop)));
    }
  }
  for (int hop = 1; hop < group_.size(); ++hop)
    for (const Stretch& s : pieces_of(rows, after(hop))) {
      if (make) make(s.begin, s.end);
      going.push_back(group_.post_send(partial.slice_rows(s.begin, s.end).byte_span(), after(hop)));
      group_.poll();
    }
  if (make)
    for (const Stretch& s : pieces_of(rows, group_.rank())) {
      make(s.begin, s.end);
      group_.poll();
    }
  if (beside) beside();
  await(coming);
  const TensorView rounded = split_rows_ ? out : out.slice_rows(own.begin, own.end);
  if (share > 0) {
    slots[static_cast<size_t>(group_.rank())] = partial.as<float>() + own.begin * width;
    for (const comm::Fold& f : folds_)
      comm::add_into(slots[static_cast<size_t>(f.into)], slots[static_cast<size_t>(f.from)], share);
    const float* add = bias ? bias.as<float>() : nullptr;
    if (out.dtype == Dtype::kF32) round_rows<float>(slots[0], add, rounded);
    else round_rows<Bf16>(slots[0], add, rounded);
  }
  await(going);
  if (split_rows_) return;
  send_out(out);
  await_rows();
}

// This worker's rows of all, which are in their place.
void CommTensorPeers::send_out(TensorView all) {
  STOKER_CHECK(!all_, "rows are under way already");
  all_ = all;
  for (int hop = 1; hop < group_.size(); ++hop) {
    for (const Stretch& s : pieces_of(all.rows(), before(hop)))
      coming_.push_back(group_.post_receive(all.slice_rows(s.begin, s.end).byte_span(), before(hop)));
    for (const Stretch& s : pieces_of(all.rows(), group_.rank()))
      going_.push_back(group_.post_send(all.slice_rows(s.begin, s.end).byte_span(), after(hop)));
  }
}

void CommTensorPeers::send_rows(TensorView mine, TensorView all) {
  STOKER_CHECK(mine.dtype == all.dtype && mine.count() * group_.size() == all.count());
  const Stretch own = rows_of(all.rows(), group_.rank());
  std::memcpy(all.slice_rows(own.begin, own.end).data, mine.data, mine.bytes());
  send_out(all);
}

void CommTensorPeers::await_rows() {
  await(coming_);
  await(going_);
  all_ = {};
}

void CommTensorPeers::gather_rows(TensorView mine, TensorView all, const Rows& use) {
  send_rows(mine, all);
  const auto used = [&](const Stretch& rows) {
    if (use) use(rows.begin, rows.end);
    group_.poll();
  };
  for (const Stretch& s : pieces_of(all.rows(), group_.rank())) used(s);
  auto ticket = coming_.begin();
  for (int hop = 1; hop < group_.size(); ++hop)
    for (const Stretch& s : pieces_of(all.rows(), before(hop))) {
      group_.await(*ticket++);
      used(s);
    }
  coming_.clear();
  await_rows();
}

void CommTensorPeers::gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  group_.all_gather(mine, all);
}

void CommTensorPeers::sum(std::span<float> partial) { group_.all_reduce(partial); }

}  // namespace stoker::parallel
