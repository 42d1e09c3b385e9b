// io/object_store.h
// A FileSystem whose paths may be URLs: s3://bucket/key, http://..., https://... for reading; all other paths go to the file system
// below. Every read_at is one ranged GET, so that nothing is fetched but what is asked for.
// S3            signed (Signature Version 4). From the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
//               AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (then addressed by path). Without a key the
//               request is not signed (public buckets)
// Sequential    files opened with Access::kSequential are fetched kReadAheadBytes at a time
// Errors        Usage: nothing there, not allowed, writing, listing over plain HTTP. Storage: unreachable, timeout, 429, 5xx, an answer
//               cut short: tried again as options.retry says, or not at all without it. Data: a read beyond the end
// Threads       all methods from any thread; connections are kept and reused
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/retry.h"
#include "io/s3_signature.h"

namespace stoker::io {

bool is_url(std::string_view path);  // s3://, http:// or https://

struct ObjectStoreOptions {
  S3Credentials credentials;
  std::string region = "us-east-1";
  std::string endpoint;  // empty: Amazon's
  double connect_timeout_s = 10;
  double stall_timeout_s = 30;  // without a byte
  std::optional<RetryPolicy> retry;
};
ObjectStoreOptions object_store_options_from_environment();
// The same for a command that reads and has nobody else to retry: for up to give_up_after_s.
ObjectStoreOptions patient_object_store_options(double give_up_after_s = 300);

inline constexpr uint64_t kReadAheadBytes = uint64_t{8} << 20;

class ObjectFileSystem final : public FileSystem {
 public:
  explicit ObjectFileSystem(FileSystem& below,
                            ObjectStoreOptions options = object_store_options_from_environment());
  ~ObjectFileSystem() override;

  std::unique_ptr<ReadableFile> open_read(const std::string& path, Access access = Access::kNormal) override;
  std::unique_ptr<WritableFile> create(const std::string& path) override;
  std::unique_ptr<WritableFile> open_append(const std::string& path) override;
  bool exists(const std::string& path) override;
  FileInfo info(const std::string& path) override;
  std::vector<std::string> list(const std::string& directory) override;
  void make_dirs(const std::string& directory) override;
  void rename(const std::string& from, const std::string& to) override;
  void remove(const std::string& path) override;
  void sync_dir(const std::string& directory) override;
  uint64_t free_bytes(const std::string& path) override;

 private:
  friend class ObjectReadable;
  struct Reply;
  struct Connections;
  Reply request(const std::string& method, const std::string& path,
                std::vector<std::pair<std::string, std::string>> query, const std::string& range,
                uint64_t max_bytes);
  Reply request_once(const std::string& method, const std::string& path,
                     const std::vector<std::pair<std::string, std::string>>& query, const std::string& range,
                     uint64_t max_bytes);
  Reply head(const std::string& path);
  bool any_below(const std::string& path);
  FileSystem& below_;
  ObjectStoreOptions options_;
  std::unique_ptr<Connections> connections_;
};

// The names that ListObjectsV2 gives below a prefix, less the prefix; and where to go on ("" at the end). For tests.
struct S3Listing {
  std::vector<std::string> names;
  std::string next;
};
S3Listing parse_s3_listing(std::string_view xml, std::string_view prefix);

}  // namespace stoker::io
