// base/error.h
// Errors named after the reaction they call for; the exit codes are the contract between a worker and its
// supervisor.
//   throw Error (through fail) when the operation cannot go on;
//   return Result<T> when failing is a normal outcome that may happen many times a second (a bad record, a
//   lookup).
// A message says what was expected, what was found and what to do. Exceptions never cross threads, C
// callbacks, destructors or processes: catch at the border and carry the Error over.
#pragma once
#include <fmt/format.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace stoker {

enum class ErrorKind { kUsage, kData, kPeer, kInternal, kDevice, kStorage, kCancelled, kNumeric };

// Usage 64, Data 65, Peer 69, Internal 70, Device 71, Storage 74, Cancelled 75, Numeric 76 (sysexits.h where
// it has one).
int exit_code(ErrorKind kind);
std::string_view to_string(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// A programming error: the message names the broken condition and where.
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& detail);
#define STOKER_CHECK(condition, ...)                                                         \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::stoker::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return check(), std::get<0>(state_); }
  const T& value() const& { return check(), std::get<0>(state_); }
  T value() && { return check(), std::move(std::get<0>(state_)); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  void check() const {
    if (!ok()) throw std::get<1>(state_);
  }
  std::variant<T, Error> state_;
};

}  // namespace stoker
