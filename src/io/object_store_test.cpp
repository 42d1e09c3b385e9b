#include "io/object_store.h"

#include <gtest/gtest.h>

#include "base/stop.h"
#include "io/memory_file_system.h"
#include "io/retry.h"
#include "io/s3_signature.h"

namespace stoker::io {
namespace {

// The GET Object example of Amazon's "Signature Calculations for the Authorization Header" page.
TEST(S3Signature, PublishedExample) {
  S3Request r;
  r.host = "examplebucket.s3.amazonaws.com";
  r.path = "/test.txt";
  r.headers = {{"range", "bytes=0-9"}};
  const auto headers = sign_s3(r, {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""},
                               "20130524T000000Z");
  EXPECT_EQ(
      headers.back(),
      "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
      "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

// The list example of the same page: the query is sorted and encoded.
TEST(S3Signature, PublishedListExample) {
  S3Request r;
  r.host = "examplebucket.s3.amazonaws.com";
  r.path = "/";
  r.query = {{"prefix", "J"}, {"max-keys", "2"}};
  const auto headers = sign_s3(r, {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""},
                               "20130524T000000Z");
  EXPECT_NE(headers.back().find("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            std::string::npos)
      << headers.back();
  EXPECT_EQ(percent_encode("a b/c~\xc3\xa9", true), "a%20b/c~%C3%A9");
  EXPECT_EQ(percent_encode("a/b", false), "a%2Fb");
}

TEST(ObjectFileSystem, ListingIsReadAndHostileNamesAreNot) {
  const auto page = parse_s3_listing(
      "<ListBucketResult><Contents><Key>d/a&amp;b.txt</Key></Contents><Contents><Key>d/</Key></"
      "Contents><Contents><Key>d/..</Key>"
      "</Contents><Contents><Key>other</Key></Contents><CommonPrefixes><Prefix>d/sub/</Prefix></"
      "CommonPrefixes>"
      "<NextContinuationToken>x&lt;</NextContinuationToken></ListBucketResult>",
      "d/");
  EXPECT_EQ(page.names, (std::vector<std::string>{"a&b.txt", "sub"}));
  EXPECT_EQ(page.next, "x<");
  EXPECT_TRUE(parse_s3_listing("<Key>unclosed", "").names.empty());
}

TEST(ObjectFileSystem, LocalPathsPassThroughAndUrlsAreReadOnly) {
  MemoryFileSystem below;
  ObjectFileSystem fs(below, {});
  fs.make_dirs("d");
  fs.create("d/x")->append("abc");
  EXPECT_EQ(read_text(fs, "d/x"), "abc");
  EXPECT_EQ(fs.list("d"), std::vector<std::string>{"x"});
  for (const char* url : {"s3://b/k", "http://h/k", "https://h/k"}) {
    EXPECT_TRUE(is_url(url));
    try {
      fs.create(url);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    }
  }
}

TEST(ObjectFileSystem, AnUnreachableServerIsAStorageError) {
  ObjectStoreOptions options;
  options.connect_timeout_s = 1;
  ObjectFileSystem fs(real_file_system(), options);
  try {
    fs.open_read("http://127.0.0.1:1/x");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kStorage) << e.what();
    EXPECT_NE(std::string(e.what()).find("cannot fetch http://127.0.0.1:1/x"), std::string::npos);
  }
}

class TestClock final : public Clock {
 public:
  double now_s() const override { return now_; }
  double unix_s() const override { return now_; }
  void sleep_s(double s) override { now_ += s; }

 private:
  double now_ = 0;
};

TEST(Retry, BacksOffSaysSoAndGivesUp) {
  TestClock clock;
  std::vector<std::string> said;
  std::vector<double> at;
  RetryPolicy policy;
  policy.give_up_after_s = 100;
  policy.say = [&](const std::string& m) { said.push_back(m); };
  const int failures = retry_storage(policy, clock, [&] {
    at.push_back(clock.now_s());
    if (at.size() < 8) fail(ErrorKind::kStorage, "down");
  });
  EXPECT_EQ(failures, 7);
  for (size_t i = 1; i < at.size(); ++i) {
    const double longest =
        std::min(policy.longest_wait_s, policy.first_wait_s * static_cast<double>(1 << (i - 1)));
    EXPECT_LE(at[i] - at[i - 1], longest + 1e-9);
    EXPECT_GE(at[i] - at[i - 1], longest / 2 - 1e-9);
  }
  ASSERT_EQ(said.size(), 2u);
  EXPECT_NE(said[0].find("waiting for storage"), std::string::npos);
  EXPECT_NE(said[1].find("storage is back after"), std::string::npos);

  EXPECT_THROW(retry_storage(policy, clock, [] { fail(ErrorKind::kStorage, "down"); }), Error);
  int calls = 0;
  EXPECT_THROW(retry_storage(policy, clock, [&] { ++calls, fail(ErrorKind::kData, "bad"); }), Error);
  EXPECT_EQ(calls, 1);
  request_stop();
  try {
    retry_storage(policy, clock, [] { fail(ErrorKind::kStorage, "down"); });
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kCancelled);
  }
  clear_stop();
}

}  // namespace
}  // namespace stoker::io
