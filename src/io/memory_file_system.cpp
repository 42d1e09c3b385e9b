#include "io/memory_file_system.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include "base/hash.h"
#include "base/random.h"

namespace stoker::io {
namespace {

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, slash - at);
    if (!part.empty() && part != ".") parts.push_back(part);
    at = slash + 1;
  }
  return parts;
}

class MemoryReadable final : public ReadableFile {
 public:
  MemoryReadable(std::string path, std::string bytes) : path_(std::move(path)), bytes_(std::move(bytes)) {}
  const std::string& path() const override { return path_; }
  uint64_t size() const override { return bytes_.size(); }
  void read_at(uint64_t offset, void* to, size_t n) const override {
    if (offset > bytes_.size() || n > bytes_.size() - offset)
      fail(ErrorKind::kData, "'{}' ends at byte {}: expected {} bytes from byte {}. The file is truncated.",
           path_, bytes_.size(), n, offset);
    if (n) std::memcpy(to, bytes_.data() + offset, n);
  }
  std::span<const std::byte> map() const override { return std::as_bytes(std::span(bytes_)); }

 private:
  std::string path_, bytes_;
};

}  // namespace

class MemoryWritable final : public WritableFile {
 public:
  MemoryWritable(MemoryFileSystem& fs, std::string path, std::shared_ptr<MemoryFileSystem::Node> node)
      : fs_(fs), path_(std::move(path)), node_(std::move(node)), size_(node_->bytes.size()) {}
  const std::string& path() const override { return path_; }
  uint64_t size() const override { return size_; }
  void append(const void* data, size_t bytes) override { write_at(size_, data, bytes); }
  void write_at(uint64_t offset, const void* data, size_t bytes) override {
    std::lock_guard lock(fs_.mutex_);
    fs_.write(*node_, path_, offset, data, bytes);
    size_ = node_->bytes.size();
  }
  void sync() override {
    std::lock_guard lock(fs_.mutex_);
    node_->durable_bytes = node_->bytes;
  }
  void close() override {}

 private:
  MemoryFileSystem& fs_;
  std::string path_;
  std::shared_ptr<MemoryFileSystem::Node> node_;
  uint64_t size_;
};

MemoryFileSystem::MemoryFileSystem(uint64_t capacity_bytes)
    : root_(std::make_shared<Node>()), capacity_bytes_(capacity_bytes) {
  root_->directory = true;
}

MemoryFileSystem::NodePtr MemoryFileSystem::find(const std::string& path) const {
  NodePtr node = root_;
  for (const std::string& part : parts_of(path)) {
    if (!node->directory) return nullptr;
    const auto it = node->names.find(part);
    if (it == node->names.end()) return nullptr;
    node = it->second;
  }
  return node;
}

MemoryFileSystem::NodePtr MemoryFileSystem::need(const std::string& operation,
                                                 const std::string& path) const {
  NodePtr node = find(path);
  if (!node) fail_errno(operation, path, ENOENT);
  return node;
}

MemoryFileSystem::Node& MemoryFileSystem::parent_node(const std::string& operation,
                                                      const std::string& path) const {
  const NodePtr parent = find(parent_of(path));
  if (!parent) fail_errno(operation, path, ENOENT);
  if (!parent->directory) fail_errno(operation, path, ENOTDIR);
  return *parent;
}

uint64_t MemoryFileSystem::used_bytes(const Node& node) const {
  uint64_t sum = node.bytes.size();
  for (const auto& [name, child] : node.names) sum += used_bytes(*child);
  return sum;
}

void MemoryFileSystem::write(Node& node, const std::string& path, uint64_t offset, const void* data,
                             size_t bytes) {
  const uint64_t end = offset + bytes;
  if (end > node.bytes.size()) {
    const uint64_t used = capacity_bytes_ == ~uint64_t{0} ? 0 : used_bytes(*root_);
    if (end - node.bytes.size() > capacity_bytes_ - std::min(used, capacity_bytes_))
      fail_errno("write", path, ENOSPC, capacity_bytes_ - std::min(used, capacity_bytes_));
    node.bytes.resize(end);
  }
  if (bytes) std::memcpy(node.bytes.data() + offset, data, bytes);
}

MemoryFileSystem::NodePtr MemoryFileSystem::open_for_writing(const std::string& path, bool append) {
  Node& parent = parent_node("create", path);
  NodePtr& node = parent.names[name_of(path)];
  if (!node) node = std::make_shared<Node>();
  if (node->directory) fail_errno("create", path, EISDIR);
  if (!append) node->bytes.clear();
  return node;
}

std::unique_ptr<ReadableFile> MemoryFileSystem::open_read(const std::string& path, Access) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("open", path);
  if (node->directory) fail(ErrorKind::kUsage, "cannot read '{}': it is a directory, expected a file.", path);
  return std::make_unique<MemoryReadable>(path, node->bytes);
}
std::unique_ptr<WritableFile> MemoryFileSystem::create(const std::string& path) {
  std::lock_guard lock(mutex_);
  return std::make_unique<MemoryWritable>(*this, path, open_for_writing(path, false));
}
std::unique_ptr<WritableFile> MemoryFileSystem::open_append(const std::string& path) {
  std::lock_guard lock(mutex_);
  return std::make_unique<MemoryWritable>(*this, path, open_for_writing(path, true));
}
bool MemoryFileSystem::exists(const std::string& path) {
  std::lock_guard lock(mutex_);
  return find(path) != nullptr;
}
FileInfo MemoryFileSystem::info(const std::string& path) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("stat", path);
  return {node->bytes.size(), node->directory, 0};
}
std::vector<std::string> MemoryFileSystem::list(const std::string& directory) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("list", directory);
  if (!node->directory) fail_errno("list", directory, ENOTDIR);
  std::vector<std::string> names;
  for (const auto& [name, child] : node->names) names.push_back(name);
  return names;
}
void MemoryFileSystem::make_dirs(const std::string& directory) {
  std::lock_guard lock(mutex_);
  NodePtr node = root_;
  for (const std::string& part : parts_of(directory)) {
    if (!node->directory) fail_errno("make directory", directory, ENOTDIR);
    NodePtr& child = node->names[part];
    if (!child) {
      child = std::make_shared<Node>();
      child->directory = true;
      node->durable_names[part] = child;
    }
    node = child;
  }
  if (!node->directory) fail_errno("make directory", directory, ENOTDIR);
}
void MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("rename", from);
  Node& target = parent_node("rename", to);
  const auto old = target.names.find(name_of(to));
  if (old != target.names.end()) {
    if (old->second->directory && !old->second->names.empty())
      fail_errno("rename to '" + to + "' the path", from, ENOTEMPTY);
    if (old->second->directory != node->directory)
      fail_errno("rename to '" + to + "' the path", from, node->directory ? ENOTDIR : EISDIR);
  }
  parent_node("rename", from).names.erase(name_of(from));
  target.names[name_of(to)] = node;
}
void MemoryFileSystem::remove(const std::string& path) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("remove", path);
  if (node->directory && !node->names.empty()) fail_errno("remove", path, ENOTEMPTY);
  parent_node("remove", path).names.erase(name_of(path));
}
void MemoryFileSystem::sync_dir(const std::string& directory) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("open directory", directory);
  node->durable_names = node->names;
}
uint64_t MemoryFileSystem::free_bytes(const std::string&) {
  std::lock_guard lock(mutex_);
  const uint64_t used = used_bytes(*root_);
  return capacity_bytes_ - std::min(used, capacity_bytes_);
}

void MemoryFileSystem::crash(Crash how, uint64_t seed) {
  std::lock_guard lock(mutex_);
  uint64_t draws = 0;
  const auto coin = [&](uint64_t sides) { return random_u64({seed, hash64("crash")}, draws++) % sides; };
  const std::function<void(Node&)> settle = [&](Node& node) {
    if (how == Crash::kLoseUnsynced) {
      node.names = node.durable_names;
      node.bytes = node.durable_bytes;
    } else {
      std::map<std::string, NodePtr> survivors;
      std::map<std::string, NodePtr> all = node.names;
      all.insert(node.durable_names.begin(), node.durable_names.end());
      for (const auto& [name, unused] : all) {
        const auto live = node.names.find(name);
        const auto durable = node.durable_names.find(name);
        const bool take_live = coin(2) == 0;
        if (take_live && live != node.names.end()) survivors[name] = live->second;
        if (!take_live && durable != node.durable_names.end()) survivors[name] = durable->second;
      }
      node.names = std::move(survivors);
      if (node.bytes != node.durable_bytes) {
        const uint64_t what = coin(3);
        if (what == 0) node.bytes = node.durable_bytes;
        if (what == 1 && !node.bytes.empty()) {  // size arrived, part of the data did not
          const size_t from = coin(node.bytes.size());
          std::fill(node.bytes.begin() + static_cast<std::ptrdiff_t>(from), node.bytes.end(), '\0');
        }
      }
    }
    node.durable_names = node.names;
    node.durable_bytes = node.bytes;
    for (auto& [name, child] : node.names) settle(*child);
  };
  settle(*root_);
}

void MemoryFileSystem::flip_bit(const std::string& path, uint64_t byte, int bit) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("damage", path);
  STOKER_CHECK(byte < node->bytes.size(), "{} has {} bytes", path, node->bytes.size());
  node->bytes[byte] = static_cast<char>(node->bytes[byte] ^ (1 << bit));
  node->durable_bytes = node->bytes;
}

void MemoryFileSystem::truncate(const std::string& path, uint64_t size) {
  std::lock_guard lock(mutex_);
  const NodePtr node = need("damage", path);
  node->bytes.resize(size);
  node->durable_bytes = node->bytes;
}

}  // namespace stoker::io
