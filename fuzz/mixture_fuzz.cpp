// Any bytes as the sources and phases of a mixture: a Usage error, or a schedule in which pick, count and sample_of agree and nothing
// is shown beyond a limit.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/error.h"
#include "data/loader/mixture.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  const auto number = [&](int bytes) {
    uint64_t value = 0;
    const size_t n = std::min<size_t>(static_cast<size_t>(bytes), size);
    if (n) std::memcpy(&value, data, n);
    data += n, size -= n;
    return value;
  };
  std::vector<data::MixtureSource> sources(number(1) % 9);
  for (size_t s = 0; s < sources.size(); ++s) {
    sources[s].name = std::to_string(s);
    sources[s].samples_per_epoch = number(2);
    const uint64_t flags = number(1);
    if (flags & 1) sources[s].limit = number(flags & 4 ? 8 : 2);
    sources[s].drop_at_limit = flags & 2;
  }
  std::vector<data::MixturePhase> phases;
  std::vector<uint64_t> probes{0, 1, 100, uint64_t{1} << 40, uint64_t{1} << 62};
  while (size > 0 && phases.size() < 20) {
    const uint64_t flags = number(1);
    data::MixturePhase phase{phases.empty() && !(flags & 1) ? 0 : number(flags & 2 ? 8 : 2), {}};
    for (size_t s = 0; s < sources.size(); ++s) phase.weights.push_back(number(flags & 4 ? 6 : 1));
    for (uint64_t d = 0; d < 3; ++d) probes.push_back(phase.first_sample + d - 1);
    phases.push_back(std::move(phase));
  }
  try {
    const data::MixtureSchedule m(sources, phases);
    for (const uint64_t limit : {uint64_t{1}, uint64_t{2}}) probes.push_back(m.end() - limit);
    for (const uint64_t n : probes) {
      if (n >= m.end() || n > (uint64_t{1} << 63)) continue;
      const auto pick = m.pick(n);
      STOKER_CHECK(pick.source < sources.size() && m.count(pick.source, n) == pick.number);
      STOKER_CHECK(m.sample_of(pick.source, pick.number) == n);
      uint64_t total = 0;
      for (size_t s = 0; s < sources.size(); ++s) {
        const uint64_t count = m.count(s, n);
        STOKER_CHECK(count <= sources[s].limit);
        STOKER_CHECK(m.count(s, n + 1) == count + (s == pick.source));
        total += count;
      }
      STOKER_CHECK(total == n);
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUsage) throw;
  }
  return 0;
}
