// tensor/device_memory.h
// Memory that a device owns, and copies to and from it. The CPU is a device too: the same code runs on both.
// Availability   why_unusable() is empty when a device of the kind can be used, and says why not otherwise:
//                "built without CUDA", or the driver's words. Cheap after the first call
// Streams        work on one stream runs in order; copies return before they are done unless one side is host
//                memory (pageable host memory makes a copy wait). synchronize() waits for all work of a
//                stream
// Errors         Device: no memory left on the device, a kernel failed earlier, no such device
#pragma once
#include <string>

#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace stoker {

std::string why_unusable(DeviceKind kind);
int device_count(DeviceKind kind);       // 0 when unusable
std::string device_name(Device device);  // as its driver calls it

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device device, size_t bytes);  // zeroed
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  void* data() const { return device_.kind == DeviceKind::kCpu ? host_.data() : data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  Device device_;
  Buffer host_;           // on the CPU
  void* data_ = nullptr;  // elsewhere
  size_t bytes_ = 0;
};

// All bytes of `from` to `to`: same shape and dtype, any two devices.
void copy_tensor(const TensorView& from, const TensorView& to, Stream stream = {});
void synchronize(Device device, Stream stream = {});

}  // namespace stoker
