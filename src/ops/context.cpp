#include "ops/context.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/edit_distance.h"

namespace stoker::ops {
namespace {

// Every name that an op gives to Context::run: what --kernel may name.
constexpr auto kOps = std::to_array<std::string_view>({"activation_backward",
                                                       "activation_forward",
                                                       "adamw",
                                                       "add_into",
                                                       "attention_backward",
                                                       "attention_forward",
                                                       "attention_part_backward",
                                                       "attention_part_forward",
                                                       "cross_entropy",
                                                       "embedding_backward",
                                                       "embedding_forward",
                                                       "linear_backward_input",
                                                       "linear_backward_weight",
                                                       "linear_forward",
                                                       "norm_backward",
                                                       "norm_forward",
                                                       "rope_backward",
                                                       "rope_forward",
                                                       "round_copy",
                                                       "sgd",
                                                       "slice_gradient",
                                                       "slice_softmax",
                                                       "sum_squares"});

bool is_op(std::string_view name) { return std::find(kOps.begin(), kOps.end(), name) != kOps.end(); }

}  // namespace

Context::Context() = default;
Context::~Context() = default;

void Context::force(std::string_view choices) {
  while (!choices.empty()) {
    const size_t comma = choices.find(',');
    const std::string_view item = choices.substr(0, comma);
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size())
      fail(ErrorKind::kUsage, "--kernel \"{}\": expected op=candidate, for example norm_forward=ref", item);
    const std::string_view op = item.substr(0, equals);
    if (!is_op(op))
      fail(ErrorKind::kUsage, "--kernel \"{}\": there is no op {}. Did you mean {}? Ops: {}", item, op,
           nearest_name(op, kOps), fmt::join(kOps, ", "));
    forced_[std::string(op)] = std::string(item.substr(equals + 1));
    choices = comma == std::string_view::npos ? std::string_view() : choices.substr(comma + 1);
  }
}

void* Context::scratch(size_t bytes) {
  if (bytes > scratch_.bytes()) scratch_ = Buffer(bytes);
  return scratch_.data();
}

void Context::add_time(std::string_view op, double seconds) {
  auto it = times_.find(op);
  if (it == times_.end()) {
    STOKER_CHECK(is_op(op), "{} is missing among the names that --kernel may say", op);
    it = times_.emplace(std::string(op), OpTime{}).first;
  }
  it->second.seconds += seconds;
  it->second.calls += 1;
}

void Context::no_candidate(std::string_view op, Device device,
                           const std::vector<std::string>& refusals) const {
  const auto forced = forced_.find(op);
  if (device.kind != DeviceKind::kCpu && (forced == forced_.end() || !refusals.empty()))
    fail(ErrorKind::kDevice, "op {}: its tensors are on {}, where no candidate runs: {}. Train on the CPU.",
         op, to_string(device),
         refusals.empty() ? "none is written yet" : fmt::format("{}", fmt::join(refusals, "; ")));
  if (forced == forced_.end())
    fail(ErrorKind::kInternal, "op {}: every candidate refused: {}", op, fmt::join(refusals, "; "));
  if (refusals.empty())
    fail(ErrorKind::kUsage, "--kernel {}={}: op {} has no candidate of that name", op, forced->second, op);
  fail(ErrorKind::kUsage, "--kernel {}={}: {}", op, forced->second, fmt::join(refusals, "; "));
}

}  // namespace stoker::ops
