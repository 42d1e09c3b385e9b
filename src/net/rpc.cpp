#include "net/rpc.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>

#include "net/door.h"
#include "net/tls_identity.h"

namespace stoker::net {
namespace {
constexpr const char* kTokenKey = "stoker-token";

// gRPC logs handshakes and refused connections to stderr by itself; our errors say the same in our words.
void quiet_grpc() {
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
}
}  // namespace

std::string Address::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

Address parse_address(std::string_view text) {
  const auto bad = [&]() {
    fail(ErrorKind::kUsage,
         "address '{}': expected HOST:PORT with a port from 0 to 65535, such as node1:7000 or [::1]:7000",
         text);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) bad();
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') bad();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    bad();
  }
  Address out{std::string(host), -1};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc{} || end != port.data() + port.size() || out.port < 0 || out.port > 65535) bad();
  return out;
}

bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  in_addr v4{};
  return inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

std::string host_name() {
  char name[256] = "unknown";
  gethostname(name, sizeof name - 1);
  return name;
}

std::string local_address_towards(const Address& towards) {
  if (is_loopback(towards.host)) return towards.host == "localhost" ? "127.0.0.1" : towards.host;
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (const int e = getaddrinfo(towards.host.c_str(), std::to_string(towards.port).c_str(), &hints, &found);
      e != 0)
    fail(ErrorKind::kUsage, "cannot resolve '{}': {}", towards.host, gai_strerror(e));
  std::string out;
  const int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage local{};
  socklen_t size = sizeof local;
  char text[NI_MAXHOST] = "";
  if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0 &&
      getnameinfo(reinterpret_cast<sockaddr*>(&local), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) ==
          0)
    out = text;
  if (fd >= 0) close(fd);
  freeaddrinfo(found);
  if (out.empty()) fail(ErrorKind::kPeer, "no route to {}", towards.text());
  return out;
}

bool wants_tls(Tls tls, std::string_view host) {
  return tls == Tls::kOn || (tls == Tls::kAuto && !is_loopback(host));
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(bool tls, const std::string& token) {
  quiet_grpc();
  if (!tls) return grpc::InsecureServerCredentials();
  const TlsIdentity identity = identity_of(token);
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = identity.certificate_pem;
  options.pem_key_cert_pairs.push_back({identity.key_pem, identity.certificate_pem});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::Channel> make_channel(const Address& address, bool tls, const std::string& token) {
  quiet_grpc();
  grpc::ChannelArguments arguments;
  // How long one attempt to connect may take, TLS and all, in spite of its name: too short, and a busy coordinator is kept busy
  // by handshakes that are given up before they end.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                   1);  // two links of one process must not share a connection
  if (!tls) return grpc::CreateCustomChannel(address.text(), grpc::InsecureChannelCredentials(), arguments);
  const TlsIdentity identity = identity_of(token);
  arguments.SetSslTargetNameOverride(std::string(kTlsName));
  grpc::SslCredentialsOptions options{identity.certificate_pem, identity.key_pem, identity.certificate_pem};
  return grpc::CreateCustomChannel(address.text(), grpc::SslCredentials(options), arguments);
}

void add_token(grpc::ClientContext& context, const std::string& token, double timeout_s) {
  context.AddMetadata(kTokenKey, token);
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::microseconds(static_cast<int64_t>(timeout_s * 1e6)));
}

bool has_token(const grpc::ServerContext& context, std::string_view token) {
  const auto found = context.client_metadata().find(kTokenKey);
  return found != context.client_metadata().end() &&
         same_secret({found->second.data(), found->second.size()}, token);
}

Error status_error(const grpc::Status& status, std::string_view what, const Address& address, bool tls,
                   const std::string& token) {
  const std::string at = fmt::format("{} at {}", what, address.text());
  const Error refused{
      ErrorKind::kUsage,
      at + " refused the join token: expected the token of this run. Copy it from RUN/token."};
  if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) return refused;
  if (status.error_code() == grpc::StatusCode::INVALID_ARGUMENT)
    return {ErrorKind::kUsage, status.error_message()};
  const Door door = knock(address, token);
  if (door == Door::kNobody)
    return {ErrorKind::kPeer,
            at + " does not answer: nothing listens there, or a firewall is between. Check that it runs "
                 "and that the address is right (RUN/coordinator)."};
  if (tls && door == Door::kOtherToken) return refused;
  if (tls && door == Door::kPlain)
    return {ErrorKind::kUsage,
            at + " speaks without TLS: expected TLS, as beyond loopback by default. Give --no-tls if the "
                 "run was started with it."};
  if (!tls && (door == Door::kOtherToken || door == Door::kSameToken))
    return {ErrorKind::kUsage,
            at + " speaks TLS and was called without: leave --no-tls away; on loopback give --tls."};
  return {ErrorKind::kPeer, fmt::format("{} does not answer: {}. It is there, and busy or stopped.", at,
                                        status.error_message())};
}

// Nothing here cancels a call of its own, so a cancelled one was under way when its server left: as if there were none.
bool is_retryable(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED ||
         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace stoker::net
