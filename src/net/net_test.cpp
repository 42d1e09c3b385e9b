#include <gtest/gtest.h>

#include "net/rpc.h"
#include "net/tls_identity.h"

namespace stoker::net {
namespace {

TEST(Identity, IsAFunctionOfTheToken) {
  const std::string token = new_token(), other = new_token();
  EXPECT_NE(token, other);
  EXPECT_EQ(identity_of(token).certificate_pem, identity_of(token).certificate_pem);
  EXPECT_EQ(identity_of(token).key_pem, identity_of(token).key_pem);
  EXPECT_NE(identity_of(token).certificate_pem, identity_of(other).certificate_pem);
}

TEST(Identity, BadTokensAreRefused) {
  for (const char* bad : {"", "short", "UPPERCASE0UPPERCASE0UPPERC", "iiiiiiiiiiiiiiiiiiiiiiiiii"})
    EXPECT_THROW(check_token(bad), Error) << bad;
  EXPECT_TRUE(same_secret("abc", "abc"));
  EXPECT_FALSE(same_secret("abc", "abd"));
  EXPECT_FALSE(same_secret("abc", "ab"));
}

TEST(Address, Parses) {
  EXPECT_EQ(parse_address("node1:7000").host, "node1");
  EXPECT_EQ(parse_address("[::1]:7000").port, 7000);
  EXPECT_EQ(parse_address("[::1]:7000").text(), "[::1]:7000");
  for (const char* bad :
       {"", "node1", ":7", "node1:", "node1:x", "node1:70000", "::1:7", "[::1]", "[]:7", "a:-1"})
    EXPECT_THROW(parse_address(bad), Error) << bad;
}

TEST(Address, LoopbackNeedsNoTls) {
  EXPECT_TRUE(is_loopback("127.0.0.1"));
  EXPECT_TRUE(is_loopback("127.8.9.1"));
  EXPECT_TRUE(is_loopback("::1"));
  EXPECT_FALSE(is_loopback("0.0.0.0"));
  EXPECT_FALSE(is_loopback("10.0.0.1"));
  EXPECT_FALSE(wants_tls(Tls::kAuto, "127.0.0.1"));
  EXPECT_TRUE(wants_tls(Tls::kAuto, "10.0.0.1"));
  EXPECT_TRUE(wants_tls(Tls::kOn, "127.0.0.1"));
  EXPECT_EQ(local_address_towards({"127.0.0.1", 80}), "127.0.0.1");
}

}  // namespace
}  // namespace stoker::net
