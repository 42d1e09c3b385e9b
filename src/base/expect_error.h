// base/expect_error.h
// For tests: the error that a call throws. None is a failure of the test.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/error.h"

namespace stoker {

template <typename F>
Error error_of(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorKind::kInternal, ""};
}

// Its message; an error of another kind is a failure too.
template <typename F>
std::string message_of(F&& f, ErrorKind kind = ErrorKind::kData) {
  const Error e = error_of(std::forward<F>(f));
  EXPECT_EQ(e.kind(), kind) << e.what();
  return e.what();
}

}  // namespace stoker
