// io/transfer.h
// Moves exactly n bytes through a system call that may move fewer or be interrupted.
// call(done) moves bytes from position `done` on and returns what read(2)/write(2) would: a count, 0 at the
// end, -1 + errno. Returns the number moved: less than n only at the end (0) of a read. A failed call returns
// -1 with errno set; a write that moves nothing without an error counts as ENOSPC.
#pragma once
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

namespace stoker::io {

constexpr size_t kMostPerCall = size_t{1} << 30;  // Linux moves at most 0x7ffff000 bytes a call

template <typename Call>
ssize_t transfer_all(size_t n, bool writing, Call&& call) {
  size_t done = 0;
  while (done < n) {
    const ssize_t moved = call(done, std::min(n - done, kMostPerCall));
    if (moved > 0) {
      done += static_cast<size_t>(moved);
    } else if (moved == 0) {
      if (!writing) break;
      errno = ENOSPC;
      return -1;
    } else if (errno != EINTR) {
      return -1;
    }
  }
  return static_cast<ssize_t>(done);
}

}  // namespace stoker::io
