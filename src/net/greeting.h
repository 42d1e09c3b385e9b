// net/greeting.h
// How the two ends of a fresh connection prove to each other that they hold the same secret and mean the same thing, without saying the
// secret: so that a stranger, a port scanner or a worker of another run that dials a data port is turned away.
//   caller   -> magic 8, nonce 16, from 4, to 4
//   listener -> nonce 16, proof 32     HMAC-SHA256(secret, "listener", topic, from, to, both nonces)
//   caller   -> proof 32               HMAC-SHA256(secret, "caller", ...)
// What follows on the connection is neither encrypted nor signed: this keeps strangers out, not somebody who rewrites packets.
// Pure: bytes in, bytes out; no sockets. Errors: none but Internal when the system has no randomness; who is not one of us gets nothing
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stoker::net {

class Greeting {
 public:
  static constexpr size_t kCallBytes = 32, kAnswerBytes = 48, kProofBytes = 32;
  // topic: what this connection is for, as both sides name it (run, generation).
  Greeting(std::string secret, std::string topic, uint32_t self);

  std::string call(uint32_t to);  // the caller's first word
  std::optional<std::string> prove(
      std::string_view answer) const;  // its second; nothing: the listener is a stranger

  std::optional<std::string> answer(
      std::string_view call);  // the listener's word; nothing: not a call, or not for us
  bool accept(std::string_view proof) const;
  uint32_t caller() const { return from_; }  // after answer(); true only after accept()

 private:
  std::string proof(std::string_view side) const;
  std::string secret_, topic_, caller_nonce_, listener_nonce_;
  uint32_t self_, from_ = 0, to_ = 0;
};

}  // namespace stoker::net
