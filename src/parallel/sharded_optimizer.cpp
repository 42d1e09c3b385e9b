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
                                   std::vector<Range> ranges)
    : ranges_(std::move(ranges)) {
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
      parameters.push_back({name, p.row.role, cut(p.weight.value), cut(p.weight.grad),
                            store.precision() == Precision::kBf16 ? cut(p.weight.compute) : TensorView{}});
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
  if (pieces_.empty()) return out;
  const auto names = optimizer_->state();
  for (size_t s = 0; s < pieces_.front().state.size(); ++s) {
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
    out.emplace_back(parameter + names.at(s).name.substr(names[s].name.rfind('.')), std::move(copy));
  }
  return out;
}

void ShardedOptimizer::take_state(const ShardedOptimizer& other) {
  for (const Piece& mine : pieces_)
    for (const Piece& theirs : other.pieces_) {
      const size_t begin = std::max(mine.flat.begin, theirs.flat.begin),
                   end = std::min(mine.flat.end, theirs.flat.end);
      if (begin >= end) continue;
      for (size_t s = 0; s < mine.state.size(); ++s)
        std::memcpy(mine.state[s] + (begin - mine.flat.begin), theirs.state[s] + (begin - theirs.flat.begin),
                    (end - begin) * sizeof(float));
    }
}

}  // namespace stoker::parallel
