#include "base/error.h"

#include <array>

namespace stoker {
namespace {
struct KindRow {
  std::string_view name;
  int exit;
};
constexpr std::array<KindRow, 8> kKinds{{{"usage", 64},
                                         {"data", 65},
                                         {"peer", 69},
                                         {"internal", 70},
                                         {"device", 71},
                                         {"storage", 74},
                                         {"cancelled", 75},
                                         {"numeric", 76}}};
}  // namespace

int exit_code(ErrorKind kind) { return kKinds[static_cast<size_t>(kind)].exit; }
std::string_view to_string(ErrorKind kind) { return kKinds[static_cast<size_t>(kind)].name; }

void check_failed(const char* condition, const char* file, int line, const std::string& detail) {
  throw Error(
      ErrorKind::kInternal,
      fmt::format("internal check failed: {} at {}:{}{}{}. This is a bug in Stoker; please report it.",
                  condition, file, line, detail.empty() ? "" : ": ", detail));
}

}  // namespace stoker
