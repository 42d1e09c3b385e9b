#include "plan/collectives.h"

#include <algorithm>
#include <cmath>

namespace stoker::plan {
namespace {

double members_per_domain(const Fabric& f, Group g) {
  if (f.domain == 0) return static_cast<double>(g.ranks);
  return static_cast<double>(std::clamp<int64_t>(f.domain / std::max<int64_t>(1, g.stride), 1, g.ranks));
}

double ring_bandwidth(const Fabric& f, Group g) {
  if (!spans_domains(f, g)) return f.inside;
  return std::min(f.inside, members_per_domain(f, g) * f.between);
}

double start_of(const Fabric& f, Group g) { return f.start * std::log2(static_cast<double>(g.ranks)); }

}  // namespace

bool spans_domains(const Fabric& f, Group g) { return f.domain != 0 && g.ranks * g.stride > f.domain; }

double all_gather_seconds(const Fabric& f, Group g, double total_bytes) {
  if (g.ranks <= 1) return 0;
  const double n = static_cast<double>(g.ranks);
  const double domains = n / members_per_domain(f, g);
  return start_of(f, g) + f.hop * (domains - 1) + (n - 1) / n * total_bytes / ring_bandwidth(f, g);
}

double all_reduce_seconds(const Fabric& f, Group g, double bytes) {
  if (g.ranks <= 1) return 0;
  // large groups reduce over trees: no hop per domain
  const double n = static_cast<double>(g.ranks);
  return 2 * (start_of(f, g) + (n - 1) / n * bytes / ring_bandwidth(f, g));
}

AllToAll all_to_all_seconds(const Fabric& f, Group g, double bytes_of_one_copy, double copies) {
  if (g.ranks <= 1) return {};
  const double n = static_cast<double>(g.ranks), near = members_per_domain(f, g), domains = n / near;
  // Of several experts that a token wants some stand together: how many of `places` get it.
  auto wanted = [copies](double places) { return places * (1 - std::pow(1 - 1 / places, copies)); };
  const double inside = bytes_of_one_copy * wanted(n) * (near - 1) / near / f.inside;
  const double between = bytes_of_one_copy * wanted(domains) * (domains - 1) / domains / f.between;
  return {inside, between};
}

double send_seconds(const Fabric& f, int64_t distance, double bytes) {
  const bool far = f.domain != 0 && distance >= f.domain;
  return f.start + bytes / (far ? f.between : f.inside);
}

}  // namespace stoker::plan
