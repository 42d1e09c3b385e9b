#include "io/file_system.h"

#include <cerrno>
#include <cstring>

#include "base/progress.h"

namespace stoker::io {

void fail_errno(std::string_view operation, const std::string& path, int error_number, uint64_t free_bytes) {
  const char* words = std::strerror(error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      fail(ErrorKind::kStorage,
           "cannot {} '{}': {} ({} free there). Free some space or choose another directory.", operation,
           path, words, human_bytes(static_cast<double>(free_bytes)));
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case EISDIR:
      fail(ErrorKind::kUsage, "cannot {} '{}': {}. Check the path.", operation, path, words);
    case EACCES:
    case EPERM:
    case EROFS:
      fail(ErrorKind::kUsage, "cannot {} '{}': {}. Check who owns it and how it is mounted.", operation, path,
           words);
    case EMFILE:
    case ENFILE:
      fail(ErrorKind::kStorage, "cannot {} '{}': {}. Raise the limit (ulimit -n).", operation, path, words);
    case EIO:
      fail(ErrorKind::kStorage, "cannot {} '{}': {}. The device may be failing: look into the kernel log.",
           operation, path, words);
    default:
      fail(ErrorKind::kStorage, "cannot {} '{}': {}.", operation, path, words);
  }
}

std::string parent_of(const std::string& path) {
  size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path.empty() ? "." : "/";
  const size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  end = path.find_last_not_of('/', slash);
  return end == std::string::npos ? "/" : path.substr(0, end + 1);
}

std::string name_of(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "";
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end + 1 - begin);
}

std::string join(const std::string& directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  std::string out = directory;
  if (out.back() != '/') out += '/';
  return out += name;
}

std::string read_text(FileSystem& fs, const std::string& path, uint64_t max_bytes) {
  const auto file = fs.open_read(path, Access::kSequential);
  if (file->size() > max_bytes)
    fail(ErrorKind::kData, "'{}' has {} bytes: expected at most {}", path, file->size(), max_bytes);
  std::string out(file->size(), '\0');
  file->read_at(0, out.data(), out.size());
  return out;
}

void remove_tree(FileSystem& fs, const std::string& path) {
  if (!fs.exists(path)) return;
  if (fs.info(path).directory)
    for (const std::string& name : fs.list(path)) remove_tree(fs, join(path, name));
  fs.remove(path);
}

}  // namespace stoker::io
