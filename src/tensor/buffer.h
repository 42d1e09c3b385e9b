// tensor/buffer.h
// Owned memory: page-aligned, zeroed, in transparent huge pages where the kernel grants them, counted by
// name. Arena: one buffer cut into tensors by walking a table; what a dry run prints is the same walk without
// the memory.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor_view.h"

namespace stoker {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // throws Device when the machine has no memory left
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Two passes over the same code: plan with reserve(), then commit() allocates, then take() hands the tensors
// out in order.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;
  // Hands out the next tensor: before commit() the view has no data and only the size is counted.
  TensorView take(Shape shape, Dtype dtype);
  size_t bytes() const { return used_; }  // asked for so far
  void commit();                          // allocates bytes(); take() then starts again from the beginning
  bool committed() const { return buffer_.data() != nullptr; }
  TensorView whole() const;  // the committed memory as U8
  void rewind();             // the next take() starts again from the beginning of committed memory

 private:
  Buffer buffer_;
  size_t used_ = 0;
};

}  // namespace stoker
