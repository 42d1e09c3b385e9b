#include "io/atomic_write.h"

#include <unistd.h>

#include <atomic>

namespace stoker::io {
namespace {

constexpr std::string_view kInfix = ".tmp-";

std::string temporary_name(const std::string& path) {
  static std::atomic<uint64_t> counter{0};
  return fmt::format("{}{}{}-{}", path, kInfix, getpid(), counter.fetch_add(1));
}

std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

bool is_temporary_name(std::string_view name) {
  const size_t at = name.rfind(kInfix);
  if (at == std::string_view::npos) return false;
  const std::string_view rest = name.substr(at + kInfix.size());
  const size_t dash = rest.find('-');
  return dash != std::string_view::npos && dash > 0 && dash + 1 < rest.size() &&
         rest.find_first_not_of("0123456789-") == std::string_view::npos;
}

void write_file_atomic(FileSystem& fs, const std::string& path, std::string_view contents) {
  AtomicFile out(fs, path);
  out.file().append(contents);
  out.commit();
}

AtomicFile::AtomicFile(FileSystem& fs, std::string path)
    : fs_(fs), path_(std::move(path)), temporary_(temporary_name(path_)), file_(fs.create(temporary_)) {}

AtomicFile::~AtomicFile() {
  if (done_) return;
  file_.reset();
  try {
    fs_.remove(temporary_);
  } catch (...) {  // a destructor may not throw; is_temporary_name lets a later run clean up
  }
}

void AtomicFile::commit() {
  STOKER_CHECK(!done_, "{} was committed before", path_);
  file_->sync();
  file_->close();
  fs_.rename(temporary_, path_);
  done_ = true;
  fs_.sync_dir(parent_of(path_));
}

AtomicDirectory::AtomicDirectory(FileSystem& fs, std::string path)
    : fs_(fs), path_(without_trailing_slashes(std::move(path))), temporary_(temporary_name(path_)) {
  if (fs_.exists(path_))
    fail(ErrorKind::kUsage, "'{}' exists already. Choose another name or remove it first.", path_);
  fs_.make_dirs(temporary_);
}

AtomicDirectory::~AtomicDirectory() {
  if (done_) return;
  try {
    remove_tree(fs_, temporary_);
  } catch (...) {  // as above
  }
}

void AtomicDirectory::commit() {
  STOKER_CHECK(!done_, "{} was committed before", path_);
  fs_.sync_dir(temporary_);
  fs_.rename(temporary_, path_);
  done_ = true;
  fs_.sync_dir(parent_of(path_));
}

}  // namespace stoker::io
