#include "tensor/buffer.h"

#include <sys/mman.h>

#include <utility>

#include "base/progress.h"

namespace stoker {

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (!bytes) return;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    fail(ErrorKind::kDevice,
         "out of memory: {} were asked for at once. Use a smaller model, micro-batch or sequence length.",
         human_bytes(static_cast<double>(bytes)));
  constexpr size_t kHugePage = 2u << 20;
  if (bytes >= 2 * kHugePage) madvise(p, bytes, MADV_HUGEPAGE);  // advice: refusal costs speed only
  data_ = p;
}
Buffer::~Buffer() {
  if (data_) munmap(data_, bytes_);
}
Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

TensorView Arena::take(Shape shape, Dtype dtype) {
  const size_t bytes = static_cast<size_t>(shape.count()) * dtype_size(dtype);
  const size_t begin = used_;
  used_ = (begin + bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* data = nullptr;
  if (committed()) {
    STOKER_CHECK(used_ <= buffer_.bytes(), "arena of {} bytes is used up", buffer_.bytes());
    data = static_cast<char*>(buffer_.data()) + begin;
  }
  return {data, shape, dtype, {}};
}
void Arena::commit() {
  STOKER_CHECK(!committed(), "an arena is committed once");
  buffer_ = Buffer(std::max<size_t>(used_, kAlignment));
  used_ = 0;
}
void Arena::rewind() { used_ = 0; }
TensorView Arena::whole() const {
  return {buffer_.data(), Shape{static_cast<int64_t>(buffer_.bytes())}, Dtype::kU8, {}};
}

}  // namespace stoker
