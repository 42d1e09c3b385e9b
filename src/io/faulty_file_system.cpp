#include "io/faulty_file_system.h"

#include <cerrno>

namespace stoker::io {
namespace {

class FaultyReadable final : public ReadableFile {
 public:
  FaultyReadable(FaultyFileSystem& fs, std::unique_ptr<ReadableFile> base)
      : fs_(fs), base_(std::move(base)) {}
  const std::string& path() const override { return base_->path(); }
  uint64_t size() const override { return base_->size(); }
  void read_at(uint64_t offset, void* to, size_t bytes) const override {
    fs_.before_read("read", path());
    base_->read_at(offset, to, bytes);
  }
  std::span<const std::byte> map() const override {
    fs_.before_read("map", path());
    return base_->map();
  }

 private:
  FaultyFileSystem& fs_;
  std::unique_ptr<ReadableFile> base_;
};

class FaultyWritable final : public WritableFile {
 public:
  FaultyWritable(FaultyFileSystem& fs, std::unique_ptr<WritableFile> base)
      : fs_(fs), base_(std::move(base)) {}
  const std::string& path() const override { return base_->path(); }
  uint64_t size() const override { return base_->size(); }
  void append(const void* data, size_t bytes) override {
    const size_t allowed = fs_.before_write("write", path(), bytes);
    base_->append(data, allowed);
    if (allowed < bytes) fs_.land_then_fail(path());
  }
  void write_at(uint64_t offset, const void* data, size_t bytes) override {
    const size_t allowed = fs_.before_write("write", path(), bytes);
    base_->write_at(offset, data, allowed);
    if (allowed < bytes) fs_.land_then_fail(path());
  }
  void sync() override {
    fs_.before_write("sync", path(), 0);
    base_->sync();
  }
  void close() override {
    fs_.before_write("close", path(), 0);
    base_->close();
  }

 private:
  FaultyFileSystem& fs_;
  std::unique_ptr<WritableFile> base_;
};

}  // namespace

void FaultyFileSystem::arm(Fault fault, uint64_t at, uint64_t times, std::string in) {
  std::lock_guard lock(mutex_);
  armed_ = true, dead_ = false;
  fault_ = fault, at_ = at, times_ = times, in_ = std::move(in);
}

uint64_t FaultyFileSystem::operations() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

void FaultyFileSystem::check_alive() const {
  std::lock_guard lock(mutex_);
  if (dead_) throw Crashed();
}

bool FaultyFileSystem::strikes_now(const std::string& path) {
  std::lock_guard lock(mutex_);
  if (dead_) throw Crashed();
  const uint64_t index = operations_++;
  const bool strikes = armed_ && index >= at_ && times_ > 0 && path.find(in_) != std::string::npos;
  if (strikes) --times_;
  if (strikes && (fault_ == Fault::kCrash || fault_ == Fault::kTornCrash)) dead_ = true;
  return strikes;
}

void FaultyFileSystem::strike(std::string_view operation, const std::string& path) {
  switch (fault_) {
    case Fault::kFullDisk:
    case Fault::kShortWrite:
      fail_errno(operation, path, ENOSPC, base_.free_bytes(path));
    case Fault::kIoError:
      fail_errno(operation, path, EIO);
    case Fault::kCrash:
    case Fault::kTornCrash:
      break;
  }
  throw Crashed();
}

size_t FaultyFileSystem::before_write(std::string_view operation, const std::string& path, size_t bytes) {
  if (!strikes_now(path)) return bytes;
  if (bytes > 1 && (fault_ == Fault::kShortWrite || fault_ == Fault::kTornCrash)) return bytes / 2;
  strike(operation, path);
}

void FaultyFileSystem::land_then_fail(const std::string& path) { strike("write", path); }

void FaultyFileSystem::before(std::string_view operation, const std::string& path) {
  if (strikes_now(path)) strike(operation, path);
}

void FaultyFileSystem::before_read(std::string_view operation, const std::string& path) {
  if (count_ == Count::kReads) before(operation, path);
  else check_alive();
}

std::unique_ptr<ReadableFile> FaultyFileSystem::open_read(const std::string& path, Access access) {
  before_read("open", path);
  return std::make_unique<FaultyReadable>(*this, base_.open_read(path, access));
}
std::unique_ptr<WritableFile> FaultyFileSystem::create(const std::string& path) {
  before("create", path);
  return std::make_unique<FaultyWritable>(*this, base_.create(path));
}
std::unique_ptr<WritableFile> FaultyFileSystem::open_append(const std::string& path) {
  before("open", path);
  return std::make_unique<FaultyWritable>(*this, base_.open_append(path));
}
bool FaultyFileSystem::exists(const std::string& path) {
  check_alive();
  return base_.exists(path);
}
FileInfo FaultyFileSystem::info(const std::string& path) {
  check_alive();
  return base_.info(path);
}
std::vector<std::string> FaultyFileSystem::list(const std::string& directory) {
  check_alive();
  return base_.list(directory);
}
void FaultyFileSystem::make_dirs(const std::string& directory) {
  before("make directory", directory);
  base_.make_dirs(directory);
}
void FaultyFileSystem::rename(const std::string& from, const std::string& to) {
  before("rename", from);
  base_.rename(from, to);
}
void FaultyFileSystem::remove(const std::string& path) {
  before("remove", path);
  base_.remove(path);
}
void FaultyFileSystem::sync_dir(const std::string& directory) {
  before("sync directory", directory);
  base_.sync_dir(directory);
}
uint64_t FaultyFileSystem::free_bytes(const std::string& path) {
  check_alive();
  return base_.free_bytes(path);
}

}  // namespace stoker::io
