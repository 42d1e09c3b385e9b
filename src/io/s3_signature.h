// io/s3_signature.h
// AWS Signature Version 4 for S3 requests without a body (GET, HEAD): which headers to send. Pure arithmetic, no clock, no network.
// Source        AWS General Reference, "Signature Version 4 signing process"; tested with its published example
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stoker::io {

struct S3Credentials {
  std::string access_key, secret_key;
  std::string session_token;  // empty: none
};

struct S3Request {
  std::string method = "GET";
  std::string host;                                          // with the port when it is not the scheme's own
  std::string path;                                          // percent-encoded, begins with '/'
  std::vector<std::pair<std::string, std::string>> query;    // plain; encoded and sorted here
  std::vector<std::pair<std::string, std::string>> headers;  // lower-case names, to be signed too
  std::string region = "us-east-1";
};

// Everything that is not a letter, digit, '-', '.', '_', '~' (or, if keep_slash, '/') as %XX.
std::string percent_encode(std::string_view text, bool keep_slash);
std::string canonical_query(std::vector<std::pair<std::string, std::string>> query);

// The request's headers and Authorization, x-amz-date, x-amz-content-sha256 (and the session token), as "name: value". `time` is
// "YYYYMMDDTHHMMSSZ".
std::vector<std::string> sign_s3(const S3Request& request, const S3Credentials& credentials,
                                 const std::string& time);

}  // namespace stoker::io
