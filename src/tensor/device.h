// tensor/device.h
// Where memory lies and which queue works on it. A CPU stream is null; a CUDA stream is a cudaStream_t.
#pragma once
#include <cstdint>
#include <string>

namespace stoker {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

struct Stream {
  void* handle = nullptr;
};

std::string to_string(Device device);  // "cpu", "cuda:0"

}  // namespace stoker
