// net/door.h
// Why a call got no answer: what stands at the other end of the address. gRPC reports a wrong token, missing TLS and an empty port
// alike, as a deadline that has passed.
//   One TCP connection and one TLS handshake that believes nothing: the certificate shown is compared with the one of this token
//   (net/tls_identity.h). Nothing secret is sent.
// Cost         at most 2 x timeout_s; for after a failure, never before a call
#pragma once
#include <string>

#include "net/rpc.h"

namespace stoker::net {

enum class Door {
  kUnknown,     // it could be the right one: slow, or gone meanwhile
  kNobody,      // nothing listens there, or nothing that lets us in
  kPlain,       // it does not speak TLS
  kOtherToken,  // it speaks TLS, with the identity of another token
  kSameToken,   // it speaks TLS, with the identity of this token
};

Door knock(const Address& address, const std::string& token, double timeout_s = 2);

}  // namespace stoker::net
