#include "io/object_store.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <optional>

namespace stoker::io {
namespace {
constexpr uint64_t kMostMapped = uint64_t{1} << 32;

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

struct S3Path {
  std::string bucket, key;
};
S3Path s3_path(const std::string& path) {
  const std::string rest = path.substr(5);
  const size_t slash = rest.find('/');
  S3Path out{rest.substr(0, slash), slash == std::string::npos ? "" : rest.substr(slash + 1)};
  if (out.bucket.empty()) fail(ErrorKind::kUsage, "{}: expected s3://bucket/key", path);
  return out;
}

[[noreturn]] void read_only(const std::string& path) {
  fail(ErrorKind::kUsage,
       "{}: object storage is only read here. Write to a local directory and copy it with your storage's own "
       "tool",
       path);
}

std::string unescape_xml(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    bool found = false;
    for (const auto& [from, to] :
         {std::pair{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}})
      if (text.starts_with(from)) {
        out += to;
        text.remove_prefix(std::strlen(from));
        found = true;
        break;
      }
    if (!found) out += text.front(), text.remove_prefix(1);
  }
  return out;
}
}  // namespace

bool is_url(std::string_view path) {
  return path.starts_with("s3://") || path.starts_with("http://") || path.starts_with("https://");
}

ObjectStoreOptions object_store_options_from_environment() {
  ObjectStoreOptions o;
  o.credentials = {env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"), env("AWS_SESSION_TOKEN")};
  for (const char* name : {"AWS_DEFAULT_REGION", "AWS_REGION"})
    if (const auto region = env(name); !region.empty()) o.region = region;
  for (const char* name : {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"})
    if (const auto endpoint = env(name); !endpoint.empty()) o.endpoint = endpoint;
  while (o.endpoint.ends_with('/')) o.endpoint.pop_back();
  return o;
}

ObjectStoreOptions patient_object_store_options(double give_up_after_s) {
  ObjectStoreOptions o = object_store_options_from_environment();
  o.retry.emplace();
  o.retry->give_up_after_s = give_up_after_s;
  return o;
}

S3Listing parse_s3_listing(std::string_view xml, std::string_view prefix) {
  S3Listing out;
  auto between = [](std::string_view text, std::string_view open, std::string_view close,
                    size_t& at) -> std::optional<std::string_view> {
    const size_t begin = text.find(open, at);
    if (begin == std::string_view::npos) return std::nullopt;
    const size_t end = text.find(close, begin);
    if (end == std::string_view::npos) return std::nullopt;
    at = end + close.size();
    return text.substr(begin + open.size(), end - begin - open.size());
  };
  auto add = [&](std::string_view escaped) {
    std::string name = unescape_xml(escaped);
    if (!name.starts_with(prefix)) return;
    name.erase(0, prefix.size());
    while (name.ends_with('/')) name.pop_back();
    if (!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos)
      out.names.push_back(name);
  };
  for (const auto& [tag, end] : {std::pair{"<Key>", "</Key>"}, {"<CommonPrefixes><Prefix>", "</Prefix>"}}) {
    size_t at = 0;
    while (const auto value = between(xml, tag, end, at)) add(*value);
  }
  size_t at = 0;
  if (const auto next = between(xml, "<NextContinuationToken>", "</NextContinuationToken>", at))
    out.next = unescape_xml(*next);
  return out;
}

struct ObjectFileSystem::Reply {
  long status = 0;
  std::string body;
  uint64_t length = 0;  // Content-Length
  double modified_unix_s = 0;
  std::optional<uint64_t> range_first;  // Content-Range, where the server sends it
  bool too_long = false;
  uint64_t max_bytes = 0;
};

struct ObjectFileSystem::Connections {
  std::mutex mutex;
  std::vector<CURL*> idle;
  ~Connections() {
    for (CURL* c : idle) curl_easy_cleanup(c);
  }
  CURL* take() {
    {
      std::lock_guard lock(mutex);
      if (!idle.empty()) {
        CURL* c = idle.back();
        idle.pop_back();
        curl_easy_reset(c);  // keeps the connection
        return c;
      }
    }
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    CURL* c = started == CURLE_OK ? curl_easy_init() : nullptr;
    if (!c) fail(ErrorKind::kDevice, "libcurl cannot start: out of memory?");
    return c;
  }
  void give(CURL* c) {
    std::lock_guard lock(mutex);
    idle.push_back(c);
  }
};

class ObjectReadable final : public ReadableFile {
 public:
  ObjectReadable(ObjectFileSystem& fs, std::string path, uint64_t size, bool sequential)
      : fs_(fs), path_(std::move(path)), size_(size), sequential_(sequential) {}
  const std::string& path() const override { return path_; }
  uint64_t size() const override { return size_; }
  void read_at(uint64_t offset, void* to, size_t bytes) const override;
  std::span<const std::byte> map() const override {
    std::lock_guard lock(mutex_);
    if (whole_.empty() && size_) {
      if (size_ > kMostMapped)
        fail(ErrorKind::kUsage, "{}: {} bytes are too many to hold at once", path_, size_);
      std::vector<std::byte> bytes(size_);
      fetch(0, bytes.data(), bytes.size());
      whole_ = std::move(bytes);
    }
    return whole_;
  }

 private:
  void fetch(uint64_t offset, void* to, size_t bytes) const;
  ObjectFileSystem& fs_;
  std::string path_;
  uint64_t size_;
  bool sequential_;
  mutable std::mutex mutex_;
  mutable std::vector<std::byte> whole_;
  mutable std::vector<std::byte> ahead_;  // of a sequential file
  mutable uint64_t ahead_at_ = 0;
};

void ObjectReadable::read_at(uint64_t offset, void* to, size_t bytes) const {
  if (bytes == 0) return;
  const uint64_t end = offset + bytes;
  if (end < offset || end > size_)
    fail(ErrorKind::kData, "'{}' has {} bytes: expected {} bytes from byte {}", path_, size_, bytes, offset);
  if (!sequential_ || bytes >= kReadAheadBytes) return fetch(offset, to, bytes);
  std::lock_guard lock(mutex_);
  if (offset < ahead_at_ || end > ahead_at_ + ahead_.size()) {
    ahead_.clear();  // nothing is there if this fails
    std::vector<std::byte> next(std::min(kReadAheadBytes, size_ - offset));
    fetch(offset, next.data(), next.size());
    ahead_ = std::move(next);
    ahead_at_ = offset;
  }
  std::memcpy(to, ahead_.data() + (offset - ahead_at_), bytes);
}

void ObjectReadable::fetch(uint64_t offset, void* to, size_t bytes) const {
  const uint64_t end = offset + bytes;
  const auto reply = fs_.request("GET", path_, {}, fmt::format("bytes={}-{}", offset, end - 1), bytes);
  if (reply.status == 200 && !(offset == 0 && bytes == size_))
    fail(ErrorKind::kUsage,
         "{}: the server sends whole files instead of the bytes asked for (no Range support). Use another "
         "server",
         path_);
  if (reply.status == 206 && reply.range_first && *reply.range_first != offset)
    fail(ErrorKind::kStorage, "{}: asked for {} bytes from byte {}, got bytes from {}", path_, bytes, offset,
         *reply.range_first);
  if (reply.body.size() != bytes || reply.too_long)
    fail(ErrorKind::kStorage, "{}: asked for {} bytes from byte {}, got {}", path_, bytes, offset,
         reply.body.size());
  std::memcpy(to, reply.body.data(), bytes);
}

ObjectFileSystem::ObjectFileSystem(FileSystem& below, ObjectStoreOptions options)
    : below_(below), options_(std::move(options)), connections_(std::make_unique<Connections>()) {}
ObjectFileSystem::~ObjectFileSystem() = default;

ObjectFileSystem::Reply ObjectFileSystem::request(const std::string& method, const std::string& path,
                                                  std::vector<std::pair<std::string, std::string>> query,
                                                  const std::string& range, uint64_t max_bytes) {
  if (!options_.retry) return request_once(method, path, query, range, max_bytes);
  Reply reply;
  retry_storage(*options_.retry, system_clock(),
                [&] { reply = request_once(method, path, query, range, max_bytes); });
  return reply;
}

ObjectFileSystem::Reply ObjectFileSystem::request_once(
    const std::string& method, const std::string& path,
    const std::vector<std::pair<std::string, std::string>>& query, const std::string& range,
    uint64_t max_bytes) {
  std::string url = path;
  std::vector<std::string> headers;
  const bool s3 = path.starts_with("s3://");
  if (s3) {
    const auto [bucket, key] = s3_path(path);
    const bool listing = !query.empty();
    S3Request r;
    r.method = method;
    r.region = options_.region;
    r.query = query;
    std::string scheme = "https://";
    if (options_.endpoint.empty()) {
      r.host = bucket + ".s3." + options_.region + ".amazonaws.com";
      r.path = "/" + (listing ? "" : percent_encode(key, true));
    } else {
      const size_t at = options_.endpoint.find("://");
      if (at == std::string::npos)
        fail(ErrorKind::kUsage, "AWS_ENDPOINT_URL: expected http://... or https://..., found {}",
             options_.endpoint);
      scheme = options_.endpoint.substr(0, at + 3);
      r.host = options_.endpoint.substr(at + 3);
      r.path = "/" + percent_encode(bucket, false) + (listing ? "" : "/" + percent_encode(key, true));
    }
    url = scheme + r.host + r.path + (listing ? "?" + canonical_query(query) : "");
    if (!range.empty()) r.headers.emplace_back("range", range);
    if (!options_.credentials.access_key.empty()) {
      char time[20];
      const std::time_t now = std::time(nullptr);
      std::tm utc{};
      gmtime_r(&now, &utc);
      std::strftime(time, sizeof time, "%Y%m%dT%H%M%SZ", &utc);
      headers = sign_s3(r, options_.credentials, time);
    } else if (!range.empty()) headers.push_back("range: " + range);
  } else if (!range.empty()) headers.push_back("range: " + range);

  Reply reply;
  reply.max_bytes = max_bytes;
  CURL* c = connections_->take();
  curl_slist* list = nullptr;
  for (const auto& h : headers) list = curl_slist_append(list, h.c_str());
  char words[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, words);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_FILETIME, 1L);
  curl_easy_setopt(c, CURLOPT_NOBODY, method == "HEAD" ? 1L : 0L);
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, s3 ? 0L : 1L);
  curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
  curl_easy_setopt(c, CURLOPT_USERAGENT, "stoker");
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout_s * 1e3));
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, std::max(1L, static_cast<long>(options_.stall_timeout_s)));
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &reply);
  curl_easy_setopt(
      c, CURLOPT_WRITEFUNCTION, +[](char* data, size_t size, size_t count, void* to) -> size_t {
        auto& r = *static_cast<Reply*>(to);
        if (r.body.size() + size * count > std::max<uint64_t>(r.max_bytes, 4096)) {  // error pages are small
          r.too_long = true;
          return 0;
        }
        r.body.append(data, size * count);
        return size * count;
      });
  curl_easy_setopt(c, CURLOPT_HEADERDATA, &reply);
  curl_easy_setopt(
      c, CURLOPT_HEADERFUNCTION, +[](char* data, size_t size, size_t count, void* to) -> size_t {
        std::string line(data, std::min<size_t>(size * count, 100));
        std::transform(line.begin(), line.end(), line.begin(),
                       [](unsigned char ch) { return static_cast<char>(ch < 128 ? std::tolower(ch) : ch); });
        constexpr std::string_view kName = "content-range: bytes ";
        uint64_t first = 0;
        if (line.starts_with(kName) &&
            std::from_chars(line.data() + kName.size(), line.data() + line.size(), first).ec == std::errc())
          static_cast<Reply*>(to)->range_first = first;
        return size * count;
      });
  const CURLcode code = curl_easy_perform(c);
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &reply.status);
  curl_off_t length = -1;
  curl_easy_getinfo(c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  reply.length = length < 0 ? 0 : static_cast<uint64_t>(length);
  curl_off_t modified = -1;
  curl_easy_getinfo(c, CURLINFO_FILETIME_T, &modified);
  if (modified > 0) reply.modified_unix_s = static_cast<double>(modified);
  curl_slist_free_all(list);
  connections_->give(c);
  if (code != CURLE_OK && !reply.too_long)
    fail(ErrorKind::kStorage, "cannot fetch {}: {}", path, words[0] ? words : curl_easy_strerror(code));
  if (reply.status >= 200 && reply.status < 300) return reply;
  if (reply.status == 404 && method == "HEAD") return reply;
  std::string said = reply.body.substr(0, 200);
  std::replace_if(
      said.begin(), said.end(), [](char ch) { return static_cast<unsigned char>(ch) < 32; }, ' ');
  switch (reply.status) {
    case 404:
      fail(ErrorKind::kUsage, "{}: nothing there (HTTP 404). Check the address", path);
    case 401:
    case 403:
      fail(ErrorKind::kUsage, "{}: not allowed (HTTP {}). Check the credentials{}: {}", path, reply.status,
           s3 ? " (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the region" : "", said);
    case 408:
    case 429:
      break;
    default:
      if (reply.status < 500) fail(ErrorKind::kUsage, "{}: refused (HTTP {}): {}", path, reply.status, said);
  }
  fail(ErrorKind::kStorage, "{}: the server is in trouble (HTTP {}): {}", path, reply.status, said);
}

ObjectFileSystem::Reply ObjectFileSystem::head(const std::string& path) {
  return request("HEAD", path, {}, "", 0);
}

bool ObjectFileSystem::any_below(const std::string& path) {
  if (!path.starts_with("s3://")) return false;
  std::string prefix = s3_path(path).key;
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  const auto reply =
      request("GET", path, {{"list-type", "2"}, {"prefix", prefix}, {"max-keys", "1"}}, "", 1 << 20);
  size_t at = reply.body.find("<Key>");
  return at != std::string::npos;
}

std::unique_ptr<ReadableFile> ObjectFileSystem::open_read(const std::string& path, Access access) {
  if (!is_url(path)) return below_.open_read(path, access);
  const Reply reply = head(path);
  if (reply.status == 404) fail(ErrorKind::kUsage, "{}: nothing there (HTTP 404). Check the address", path);
  return std::make_unique<ObjectReadable>(*this, path, reply.length, access == Access::kSequential);
}

bool ObjectFileSystem::exists(const std::string& path) {
  if (!is_url(path)) return below_.exists(path);
  if (path.starts_with("s3://") && (s3_path(path).key.empty() || path.ends_with('/'))) return any_below(path);
  return head(path).status != 404 || any_below(path);
}

FileInfo ObjectFileSystem::info(const std::string& path) {
  if (!is_url(path)) return below_.info(path);
  if (path.starts_with("s3://") && (s3_path(path).key.empty() || path.ends_with('/'))) return {0, true, 0};
  const Reply reply = head(path);
  if (reply.status != 404) return {reply.length, false, reply.modified_unix_s};
  if (any_below(path)) return {0, true, 0};
  fail(ErrorKind::kUsage, "{}: nothing there (HTTP 404). Check the address", path);
}

std::vector<std::string> ObjectFileSystem::list(const std::string& directory) {
  if (!is_url(directory)) return below_.list(directory);
  if (!directory.starts_with("s3://"))
    fail(ErrorKind::kUsage, "{}: plain HTTP has no folders. Name the files one by one", directory);
  std::string prefix = s3_path(directory).key;
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  std::vector<std::string> names;
  std::string next;
  do {
    std::vector<std::pair<std::string, std::string>> query{
        {"list-type", "2"}, {"prefix", prefix}, {"delimiter", "/"}};
    if (!next.empty()) query.emplace_back("continuation-token", next);
    auto page = parse_s3_listing(request("GET", directory, query, "", uint64_t{64} << 20).body, prefix);
    names.insert(names.end(), page.names.begin(), page.names.end());
    next = page.next;
  } while (!next.empty());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::unique_ptr<WritableFile> ObjectFileSystem::create(const std::string& path) {
  if (is_url(path)) read_only(path);
  return below_.create(path);
}
std::unique_ptr<WritableFile> ObjectFileSystem::open_append(const std::string& path) {
  if (is_url(path)) read_only(path);
  return below_.open_append(path);
}
void ObjectFileSystem::make_dirs(const std::string& directory) {
  if (is_url(directory)) read_only(directory);
  below_.make_dirs(directory);
}
void ObjectFileSystem::rename(const std::string& from, const std::string& to) {
  if (is_url(from) || is_url(to)) read_only(is_url(from) ? from : to);
  below_.rename(from, to);
}
void ObjectFileSystem::remove(const std::string& path) {
  if (is_url(path)) read_only(path);
  below_.remove(path);
}
void ObjectFileSystem::sync_dir(const std::string& directory) {
  if (is_url(directory)) read_only(directory);
  below_.sync_dir(directory);
}
uint64_t ObjectFileSystem::free_bytes(const std::string& path) {
  if (is_url(path)) read_only(path);
  return below_.free_bytes(path);
}

}  // namespace stoker::io
