#include "base/error.h"
#include "tensor/cuda/driver.h"

namespace stoker::cuda {
namespace {
constexpr char kReason[] = "built without CUDA";
[[noreturn]] void refuse() {
  fail(ErrorKind::kDevice,
       "{}: expected a CPU device, found a CUDA one. Use the CPU, or build where nvcc is (./dev gpu).",
       kReason);
}
}  // namespace

std::string why_unusable() { return kReason; }
int device_count() { return 0; }
std::string device_name(int) { refuse(); }
void* allocate(int, size_t) { refuse(); }
void release(int, void*) noexcept {}
void copy(const void*, void*, size_t, Stream) { refuse(); }
void synchronize(int, Stream) { refuse(); }

}  // namespace stoker::cuda
