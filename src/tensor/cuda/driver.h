// tensor/cuda/driver.h
// The few calls that tensor/device_memory.h needs of CUDA. Two implementations: cuda_driver.cpp (with the
// CUDA toolkit) and no_cuda.cpp (without); the build links one. Every other file of the room is the same in
// both builds. Errors   Device, with the driver's words; without CUDA: "built without CUDA"
#pragma once
#include <cstddef>
#include <string>

#include "tensor/device.h"

namespace stoker::cuda {

std::string why_unusable();
int device_count();
std::string device_name(int index);
void* allocate(int index, size_t bytes);  // zeroed
void release(int index, void* memory) noexcept;
void copy(const void* from, void* to, size_t bytes, Stream stream);  // direction from the addresses
void synchronize(int index, Stream stream);

}  // namespace stoker::cuda
