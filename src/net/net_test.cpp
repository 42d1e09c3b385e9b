#include <gtest/gtest.h>

#include "net/greeting.h"
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

TEST(Greeting, WhoHoldsTheSecretGetsInAndIsKnown) {
  Greeting caller("secret", "run/7", 2), listener("secret", "run/7", 0);
  const auto answer = listener.answer(caller.call(0));
  ASSERT_TRUE(answer);
  const auto proof = caller.prove(*answer);
  ASSERT_TRUE(proof);
  EXPECT_TRUE(listener.accept(*proof));
  EXPECT_EQ(listener.caller(), 2U);
  EXPECT_FALSE(Greeting("secret", "run/7", 0).accept(*proof));  // before any call
}

TEST(Greeting, NobodyElseDoes) {
  const auto meet = [](Greeting caller, Greeting listener, uint32_t to, int flip) {
    std::string call = caller.call(to);
    if (flip >= 0 && flip < 32) call[static_cast<size_t>(flip)] ^= 1;
    auto answer = listener.answer(call);
    if (!answer) return false;
    if (flip >= 32 && flip < 80) (*answer)[static_cast<size_t>(flip - 32)] ^= 1;
    auto proof = caller.prove(*answer);
    if (!proof) return false;
    if (flip >= 80) (*proof)[static_cast<size_t>(flip - 80)] ^= 1;
    return listener.accept(*proof);
  };
  const Greeting caller("secret", "run/7", 2), listener("secret", "run/7", 0);
  EXPECT_TRUE(meet(caller, listener, 0, -1));
  for (int flip = 0; flip < 112; ++flip) EXPECT_FALSE(meet(caller, listener, 0, flip)) << "byte " << flip;
  EXPECT_FALSE(meet(Greeting("other", "run/7", 2), listener, 0, -1));
  EXPECT_FALSE(meet(Greeting("secret", "run/8", 2), listener, 0, -1));  // of another generation
  EXPECT_FALSE(meet(caller, listener, 1, -1));                          // for somebody else
  EXPECT_FALSE(meet(Greeting("secret", "run/7", 0), listener, 0, -1));  // from itself
}

// What was said once is worth nothing the next time.
TEST(Greeting, ARecordedOneIsRefused) {
  Greeting caller("secret", "run/7", 2), listener("secret", "run/7", 0), later("secret", "run/7", 0);
  const std::string call = caller.call(0);
  const auto proof = caller.prove(*listener.answer(call));
  ASSERT_TRUE(listener.accept(*proof));
  ASSERT_TRUE(later.answer(call));
  EXPECT_FALSE(later.accept(*proof));
}

}  // namespace
}  // namespace stoker::net
