#include "parallel/sharded_optimizer.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace stoker::parallel {
namespace {

TensorView part_of(const TensorView& whole, size_t begin, size_t count) {
  if (!whole || count == static_cast<size_t>(whole.count())) return whole;
  TensorView out = whole;
  out.data = static_cast<char*>(whole.data) + begin * dtype_size(whole.dtype);
  out.shape = Shape{static_cast<int64_t>(count)};
  return out;
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(nn::ParameterStore& store, const optim::OptimizerSettings& settings)
    : ShardedOptimizer(store, settings, {{0, ~size_t{0}}}) {
  ranges_.clear();
  for (const Piece& p : pieces_) ranges_.push_back(p.flat);
}

ShardedOptimizer::ShardedOptimizer(nn::ParameterStore& store, const optim::OptimizerSettings& settings,
                                   std::vector<Range> ranges, OwnMemory own)
    : ranges_(std::move(ranges)) {
  size_t held = 0;
  for (const Range& r : ranges_) held += r.size();
  if (own.gradients) gradients_ = Buffer(held * sizeof(float));
  if (own.values) values_ = Buffer(held * sizeof(float));
  std::vector<optim::OptimizedParameter> parameters;
  std::map<std::string, size_t> piece_of;
  for (const nn::Parameter& p : store.parameters()) {
    if (!p.trained) continue;
    const size_t first = p.flat;
    const size_t last = first + static_cast<size_t>(p.weight.value.count());
    for (const Range& r : ranges_) {
      const size_t begin = std::max(first, r.begin), end = std::min(last, r.end);
      if (begin >= end) continue;
      const bool whole = begin == first && end == last;
      if (!whole && settings.kind == OptimizerKind::kMuon)
        fail(ErrorKind::kUsage,
             "layout.zero_stage cuts {} into pieces and optimizer.name is muon: Muon needs whole matrices. "
             "Use "
             "zero_stage 0 or adamw.",
             p.row.name);
      const std::string name = whole ? p.row.name : fmt::format("{}@{}", p.row.name, begin - first);
      const auto cut = [&](const TensorView& t) { return part_of(t, begin - first, end - begin); };
      const auto mine = [&](const Buffer& memory, const TensorView& t) {
        if (memory.bytes() == 0) return cut(t);
        const auto n = static_cast<int64_t>(end - begin);
        return whole ? view_of(at(memory, {begin, end}), t.shape)
                     : view_of(at(memory, {begin, end}), Shape{n});
      };
      const bool copies = store.precision() == Precision::kBf16 && !own.values;
      parameters.push_back({name, p.row.role, mine(values_, p.weight.value), mine(gradients_, p.weight.grad),
                            copies ? cut(p.weight.compute) : TensorView{}});
      piece_of[name] = pieces_.size();
      pieces_.push_back({{begin, end}, parameters.back().value.as<float>(), {}});
    }
  }
  optimizer_ = std::make_unique<optim::Optimizer>(std::move(parameters), settings);
  for (const NamedTensor& t : optimizer_->state())
    pieces_[piece_of.at(t.name.substr(0, t.name.rfind('.')))].state.push_back(t.tensor.as<float>());
}

void ShardedOptimizer::update(ops::Context& context, const optim::UpdateArguments& arguments) {
  optimizer_->update(context, arguments);
}

float* ShardedOptimizer::at(const Buffer& memory, Range range) const {
  size_t offset = 0;
  for (const Range& r : ranges_) {
    if (r.begin <= range.begin && range.end <= r.end && memory.bytes() > 0)
      return static_cast<float*>(memory.data()) + offset + (range.begin - r.begin);
    offset += r.size();
  }
  STOKER_CHECK(false, "[{},{}) is not held", range.begin, range.end);
}

std::vector<std::string> ShardedOptimizer::moments() const {
  std::vector<std::string> out;
  if (pieces_.empty()) return out;
  const auto names = optimizer_->state();
  for (size_t s = 0; s < pieces_.front().state.size(); ++s)
    out.push_back(names.at(s).name.substr(names[s].name.rfind('.')));
  return out;
}

void ShardedOptimizer::put(size_t flat, std::span<const float> row, int what) {
  for (const Piece& p : pieces_) {
    const size_t begin = std::max(flat, p.flat.begin), end = std::min(flat + row.size(), p.flat.end);
    if (begin >= end) continue;
    float* to = what == 0 ? p.value : p.state.at(static_cast<size_t>(what) - 1);
    std::memcpy(to + (begin - p.flat.begin), row.data() + (begin - flat), (end - begin) * sizeof(float));
  }
}

// each(array, count): the parts of a range in a fixed order, values first.
template <typename Each>
void ShardedOptimizer::visit(Range range, const Each& each) const {
  for (const Piece& p : pieces_) {
    const size_t begin = std::max(range.begin, p.flat.begin), end = std::min(range.end, p.flat.end);
    if (begin >= end) continue;
    each(p.value + (begin - p.flat.begin), end - begin);
    for (float* s : p.state) each(s + (begin - p.flat.begin), end - begin);
  }
}

size_t ShardedOptimizer::packed_floats(Range range) const {
  size_t n = 0;
  visit(range, [&](const float*, size_t count) { n += count; });
  return n;
}
void ShardedOptimizer::pack(Range range, float* out) const {
  visit(range, [&](const float* from, size_t count) {
    std::memcpy(out, from, count * sizeof(float));
    out += count;
  });
}
void ShardedOptimizer::unpack(Range range, const float* in) {
  visit(range, [&](float* to, size_t count) {
    std::memcpy(to, in, count * sizeof(float));
    in += count;
  });
}

std::vector<std::pair<std::string, Buffer>> ShardedOptimizer::copy_state(const std::string& parameter,
                                                                         Range range) const {
  std::vector<std::pair<std::string, Buffer>> out;
  const auto names = moments();
  for (size_t s = 0; s < names.size(); ++s) {
    Buffer copy(range.size() * sizeof(float));
    size_t copied = 0;
    for (const Piece& p : pieces_) {
      const size_t begin = std::max(range.begin, p.flat.begin), end = std::min(range.end, p.flat.end);
      if (begin >= end) continue;
      std::memcpy(static_cast<float*>(copy.data()) + (begin - range.begin),
                  p.state.at(s) + (begin - p.flat.begin), (end - begin) * sizeof(float));
      copied += end - begin;
    }
    STOKER_CHECK(copied == range.size(), "{} of {} elements of {} are held here", copied, range.size(),
                 parameter);
    out.emplace_back(parameter + names[s], std::move(copy));
  }
  return out;
}

void ShardedOptimizer::take_state(const ShardedOptimizer& other) {
  for (const Piece& mine : pieces_)
    for (const Piece& theirs : other.pieces_) {
      const size_t begin = std::max(mine.flat.begin, theirs.flat.begin),
                   end = std::min(mine.flat.end, theirs.flat.end);
      if (begin >= end) continue;
      float* to = mine.value + (begin - mine.flat.begin);
      const float* from = theirs.value + (begin - theirs.flat.begin);
      if (to != from) std::memcpy(to, from, (end - begin) * sizeof(float));
      for (size_t s = 0; s < mine.state.size(); ++s)
        std::memcpy(mine.state[s] + (begin - mine.flat.begin), theirs.state[s] + (begin - theirs.flat.begin),
                    (end - begin) * sizeof(float));
    }
}

}  // namespace stoker::parallel
