#include "net/door.h"

#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <memory>

#include "net/tls_identity.h"

namespace stoker::net {
namespace {

struct Socket {
  int fd = -1;
  ~Socket() {
    if (fd >= 0) close(fd);
  }
};

int dial(const Address& address, double timeout_s) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) != 0) return -1;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, freeaddrinfo);
  Socket s{socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const timeval limit{static_cast<time_t>(timeout_s),
                      static_cast<suseconds_t>(std::fmod(timeout_s, 1) * 1e6)};
  setsockopt(s.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // of connect too
  setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (s.fd < 0 || connect(s.fd, found->ai_addr, found->ai_addrlen) != 0) return -1;
  return std::exchange(s.fd, -1);
}

std::string text_of(X509* certificate) {
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new(BIO_s_mem()), BIO_free_all);
  char* data = nullptr;
  if (!bio || PEM_write_bio_X509(bio.get(), certificate) != 1) return "";
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

Door knock(const Address& address, const std::string& token, double timeout_s) {
  const Socket s{dial(address, timeout_s)};
  if (s.fd < 0) return Door::kNobody;
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  SSL_CTX_free);
  if (!context) return Door::kUnknown;
  const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  if (!tls || SSL_set_fd(tls.get(), s.fd) != 1 || SSL_set_alpn_protos(tls.get(), kHttp2, sizeof kHttp2) != 0)
    return Door::kUnknown;
  const int shaken = SSL_connect(tls.get());
  const std::unique_ptr<X509, decltype(&X509_free)> shown(SSL_get1_peer_certificate(tls.get()), X509_free);
  if (shown)
    return text_of(shown.get()) == identity_of(token).certificate_pem ? Door::kSameToken : Door::kOtherToken;
  // Bytes that are no TLS end the handshake with a protocol error; silence with a timeout.
  return shaken != 1 && SSL_get_error(tls.get(), shaken) == SSL_ERROR_SSL ? Door::kPlain : Door::kUnknown;
}

}  // namespace stoker::net
