#include "tensor/device_memory.h"

#include <cstring>
#include <utility>

#include "base/cpu_features.h"
#include "base/error.h"
#include "tensor/cuda/driver.h"

namespace stoker {

std::string why_unusable(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? cuda::why_unusable() : std::string();
}

int device_count(DeviceKind kind) { return kind == DeviceKind::kCuda ? cuda::device_count() : 1; }

std::string device_name(Device device) {
  return device.kind == DeviceKind::kCuda ? cuda::device_name(device.index) : cpu_name();
}

DeviceBuffer::DeviceBuffer(Device device, size_t bytes) : device_(device), bytes_(bytes) {
  if (device.kind == DeviceKind::kCpu) host_ = Buffer(bytes);
  else if (bytes > 0) data_ = cuda::allocate(device.index, bytes);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_) cuda::release(device_.index, data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(host_, other.host_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_tensor(const TensorView& from, const TensorView& to, Stream stream) {
  STOKER_CHECK(from.shape == to.shape && from.dtype == to.dtype, "{} {} to {} {}", to_string(from.dtype),
               to_string(from.shape), to_string(to.dtype), to_string(to.shape));
  if (from.bytes() == 0) return;
  if (from.device.kind == DeviceKind::kCpu && to.device.kind == DeviceKind::kCpu)
    std::memcpy(to.data, from.data, from.bytes());
  else cuda::copy(from.data, to.data, from.bytes(), stream);
}

void synchronize(Device device, Stream stream) {
  if (device.kind == DeviceKind::kCuda) cuda::synchronize(device.index, stream);
}

}  // namespace stoker
