// ops/device_of.h
// Where an op's arguments live: the device of the tensor that every call of the op has. All tensors of one
// call are on one device.
#pragma once
#include "tensor/tensor_view.h"

namespace stoker::ops {

template <typename Args>
Device device_of(const Args& a) {
  if constexpr (requires { a.param; }) return a.param.device;
  else if constexpr (requires { a.qkv; }) return a.qkv.device;
  else if constexpr (requires { a.dqkv; }) return a.dqkv.device;
  else if constexpr (requires { a.lse; }) return a.lse.device;
  else if constexpr (requires { a.logits; }) return a.logits.device;
  else if constexpr (requires { a.table; }) return a.table.device;
  else if constexpr (requires { a.source; }) return a.source.device;
  else if constexpr (requires { a.x; }) return a.x.device;
  else return a.dy.device;
}

}  // namespace stoker::ops
