// base/peak_memory.h
// The most memory this process has had resident so far: program, libraries and mapped pages included.
#pragma once
#include <sys/resource.h>

#include <cstdint>

namespace stoker {

inline uint64_t peak_resident_bytes() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<uint64_t>(use.ru_maxrss) * 1024;
}

}  // namespace stoker
