#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/progress.h"
#include "tensor/cuda/driver.h"

namespace stoker::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    fail(ErrorKind::kDevice, "CUDA: {} failed: {}. nvidia-smi shows the state of the device and driver.",
         what, cudaGetErrorString(status));
}

struct Devices {
  int count = 0;
  std::string reason;
  Devices() {
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0) return;
    count = 0;
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
      reason = "this machine has no CUDA driver";
      return;
    }
    reason = status == cudaSuccess ? "the CUDA driver reports no device" : cudaGetErrorString(status);
    (void)cudaGetLastError();  // the error is told; it must not surface in a later call
  }
};

const Devices& devices() {
  static const Devices found;
  return found;
}

cudaStream_t handle(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

}  // namespace

std::string why_unusable() { return devices().reason; }

int device_count() { return devices().count; }

std::string device_name(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
  return properties.name;
}

void* allocate(int index, size_t bytes) {
  check(cudaSetDevice(index), "choosing the device");
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    fail(ErrorKind::kDevice,
         "cuda:{}: expected {} of free memory, found {} of {}. Use a smaller model, micro-batch or sequence "
         "length.",
         index, human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(free)),
         human_bytes(static_cast<double>(total)));
  }
  check(cudaMemset(memory, 0, bytes), "zeroing memory");
  return memory;
}

void release(int index, void* memory) noexcept {
  if (cudaSetDevice(index) == cudaSuccess) (void)cudaFree(memory);
}

void copy(const void* from, void* to, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle(stream)), "copying");
}

void synchronize(int index, Stream stream) {
  check(cudaSetDevice(index), "choosing the device");
  check(cudaStreamSynchronize(handle(stream)), "work on a stream");
}

}  // namespace stoker::cuda
