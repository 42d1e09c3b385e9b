// net/tls_identity.h
// A run's TLS identity, derived from its join token: whoever holds the token computes the same Ed25519 key
// and the same self-signed certificate, byte for byte. So a short token is all that a machine needs to join,
// server and client prove to each other that they hold it (mutual TLS), and nothing is copied around.
//   seed = HKDF-SHA256(token, "stoker run identity"); Ed25519 signatures are deterministic, serial and dates
//   are fixed.
// Security     the token is the secret of the run: 128 random bits, never printed to logs, kept in files of
// mode 0600 Errors       Usage: a token that is too short or holds other characters; Internal: OpenSSL
// refuses
#pragma once
#include <string>
#include <string_view>

namespace stoker::net {

struct TlsIdentity {
  std::string certificate_pem;
  std::string key_pem;
};

std::string new_token();  // 128 bits from the system's generator, 26 characters of Crockford's base 32
void check_token(std::string_view token);
TlsIdentity identity_of(std::string_view token);

// The name in the certificate, to be checked instead of a host name.
inline constexpr std::string_view kTlsName = "stoker.run";

bool same_secret(std::string_view a, std::string_view b);  // in constant time

}  // namespace stoker::net
