#include "net/greeting.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "net/tls_identity.h"

namespace stoker::net {
namespace {

constexpr std::string_view kMagic = "stkrhi01";
constexpr size_t kNonce = 16;

std::string new_nonce() {
  std::array<unsigned char, kNonce> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    fail(ErrorKind::kInternal, "the system gives no random bytes");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string number(uint32_t v) {  // little-endian on every machine
  std::string out(4, '\0');
  for (size_t i = 0; i < 4; ++i) out[i] = static_cast<char>(v >> (8 * i));
  return out;
}
uint32_t number_at(std::string_view text, size_t at) {
  uint32_t v = 0;
  for (size_t i = 0; i < 4; ++i)
    v |= static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])) << (8 * i);
  return v;
}

}  // namespace

Greeting::Greeting(std::string secret, std::string topic, uint32_t self)
    : secret_(std::move(secret)), topic_(std::move(topic)), self_(self) {}

std::string Greeting::proof(std::string_view side) const {
  // Lengths first: no two different meanings spell the same text.
  std::string text = number(static_cast<uint32_t>(side.size())) + std::string(side) +
                     number(static_cast<uint32_t>(topic_.size())) + topic_ + number(from_) + number(to_) +
                     caller_nonce_ + listener_nonce_;
  std::array<unsigned char, kProofBytes> out{};
  unsigned size = out.size();
  if (HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &size) == nullptr ||
      size != out.size())
    fail(ErrorKind::kInternal, "OpenSSL cannot compute HMAC-SHA256");
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

std::string Greeting::call(uint32_t to) {
  from_ = self_;
  to_ = to;
  caller_nonce_ = new_nonce();
  return std::string(kMagic) + caller_nonce_ + number(from_) + number(to_);
}

std::optional<std::string> Greeting::prove(std::string_view answer) const {
  if (answer.size() != kAnswerBytes) return {};
  Greeting theirs = *this;
  theirs.listener_nonce_ = answer.substr(0, kNonce);
  if (!same_secret(theirs.proof("listener"), answer.substr(kNonce))) return {};
  return theirs.proof("caller");
}

std::optional<std::string> Greeting::answer(std::string_view call) {
  if (call.size() != kCallBytes || call.substr(0, kMagic.size()) != kMagic) return {};
  caller_nonce_ = call.substr(kMagic.size(), kNonce);
  from_ = number_at(call, kMagic.size() + kNonce);
  to_ = number_at(call, kMagic.size() + kNonce + 4);
  if (to_ != self_ || from_ == self_) return {};
  listener_nonce_ = new_nonce();
  return listener_nonce_ + proof("listener");
}

bool Greeting::accept(std::string_view proof_found) const {
  return !listener_nonce_.empty() && proof_found.size() == kProofBytes &&
         same_secret(proof("caller"), proof_found);
}

}  // namespace stoker::net
