// net/rpc.h
// How Stoker's gRPC services are reached: addresses, credentials, and the token that every call carries.
//   On loopback plain TCP is enough (the token still keeps strangers out); anywhere else TLS 1.3 with mutual
//   proof of the token (net/tls_identity.h), unless the user asks for plain explicitly.
// Errors       Usage: an address that cannot be parsed. Peer: from calls, see status_error
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace grpc {
class Channel;
class ChannelInterface;
class ClientContext;
class ServerContext;
class ServerCredentials;
class Status;
}  // namespace grpc

namespace stoker::net {

struct Address {
  std::string host;
  int port = 0;
  std::string text() const;  // host:port, [v6]:port
};
Address parse_address(std::string_view text);  // "host:port", "[::1]:7000"
bool is_loopback(std::string_view host);
std::string host_name();
// The address of this machine that reaches `towards` (the local end of a UDP "connection"; no packet is
// sent).
std::string local_address_towards(const Address& towards);

enum class Tls { kAuto, kOn, kOff };
bool wants_tls(Tls tls, std::string_view host);

std::shared_ptr<grpc::ServerCredentials> server_credentials(bool tls, const std::string& token);
std::shared_ptr<grpc::Channel> make_channel(const Address& address, bool tls, const std::string& token);

void add_token(grpc::ClientContext& context, const std::string& token, double timeout_s);
bool has_token(const grpc::ServerContext& context, std::string_view token);

// "coordinator 10.0.0.1:7000 does not answer: ..." as Peer; a refused token, and TLS at one end only, as Usage. Where the call got no
// answer it looks once what stands there (net/door.h).
Error status_error(const grpc::Status& status, std::string_view what, const Address& address, bool tls,
                   const std::string& token);
bool is_retryable(const grpc::Status& status);

}  // namespace stoker::net
