#include "net/tls_identity.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

#include "base/error.h"

namespace stoker::net {
namespace {

constexpr std::string_view kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr size_t kTokenLength = 26;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Deleter<EVP_PKEY_CTX_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;

void need(bool ok, const char* what) {
  if (ok) return;
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  fail(ErrorKind::kInternal, "OpenSSL cannot {}: {}", what, text.data());
}

std::array<unsigned char, 32> seed_of(std::string_view token) {
  std::array<unsigned char, 32> seed{};
  size_t size = seed.size();
  constexpr std::string_view kInfo = "stoker run identity";
  KeyContext kdf(EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr));
  need(kdf && EVP_PKEY_derive_init(kdf.get()) > 0 && EVP_PKEY_CTX_set_hkdf_md(kdf.get(), EVP_sha256()) > 0 &&
           EVP_PKEY_CTX_set1_hkdf_key(kdf.get(), reinterpret_cast<const unsigned char*>(token.data()),
                                      static_cast<int>(token.size())) > 0 &&
           EVP_PKEY_CTX_add1_hkdf_info(kdf.get(), reinterpret_cast<const unsigned char*>(kInfo.data()),
                                       static_cast<int>(kInfo.size())) > 0 &&
           EVP_PKEY_derive(kdf.get(), seed.data(), &size) > 0,
       "derive a key from the token");
  return seed;
}

void add_extension(X509* certificate, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  need(extension && X509_add_ext(certificate, extension.get(), -1) == 1, "add a certificate extension");
}

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

std::string new_token() {
  std::array<unsigned char, kTokenLength> random{};
  need(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1, "draw random bytes");
  std::string token;
  for (unsigned char r : random) token += kAlphabet[r % 32];  // 5 of 8 bits each: 130 bits
  return token;
}

void check_token(std::string_view token) {
  if (token.size() != kTokenLength || token.find_first_not_of(kAlphabet) != std::string_view::npos)
    fail(ErrorKind::kUsage,
         "join token: expected {} characters of 0-9 and a-z without i, l, o, u; found {}. Copy it from the "
         "line that "
         "`stoker launch` printed or from RUN/token.",
         kTokenLength, token.size());
}

TlsIdentity identity_of(std::string_view token) {
  check_token(token);
  const auto seed = seed_of(token);
  Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
  Certificate certificate(X509_new());
  need(key && certificate, "make a key");
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  need(ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), "20200101000000Z") == 1 &&
           ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), "20991231235959Z") == 1,
       "set dates");
  X509_NAME* name = X509_get_subject_name(certificate.get());
  need(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                  reinterpret_cast<const unsigned char*>(kTlsName.data()),
                                  static_cast<int>(kTlsName.size()), -1, 0) == 1 &&
           X509_set_issuer_name(certificate.get(), name) == 1 &&
           X509_set_pubkey(certificate.get(), key.get()) == 1,
       "name a certificate");
  add_extension(certificate.get(), NID_basic_constraints, "critical,CA:TRUE");
  add_extension(certificate.get(), NID_subject_alt_name, "DNS:stoker.run");
  need(X509_sign(certificate.get(), key.get(), nullptr) > 0, "sign a certificate");
  TlsIdentity out;
  Bio bio(BIO_new(BIO_s_mem()));
  need(bio && PEM_write_bio_X509(bio.get(), certificate.get()) == 1, "write a certificate");
  out.certificate_pem = text_of(bio);
  Bio key_bio(BIO_new(BIO_s_mem()));
  need(key_bio &&
           PEM_write_bio_PrivateKey(key_bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1,
       "write a key");
  out.key_pem = text_of(key_bio);
  return out;
}

bool same_secret(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace stoker::net
