# Debian's dnnl-config.cmake asks for OpenCL, which the library does not need: find it by name.
find_library(DNNL_LIBRARY dnnl REQUIRED)
target_link_libraries(${ROOM_TARGET} PRIVATE ${DNNL_LIBRARY})

# The CUDA candidates, or the ones that say "built without CUDA": a library of their own (docs/decisions/004-cuda-library.md).
if(STOKER_CUDA_FOUND)
  add_library(stoker_ops_cuda STATIC ops/cuda/residents.cpp ops/cuda/matrix_product.cpp ops/cuda/norm_kernels.cu
              ops/cuda/update_kernels.cu)
  target_compile_options(stoker_ops_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra>")
  target_compile_definitions(stoker_ops_cuda PRIVATE STOKER_CUDA_LIBRARY_DIR="${CUDAToolkit_LIBRARY_DIR}")
  target_link_libraries(stoker_ops_cuda PRIVATE CUDA::cudart_static)
else()
  add_library(stoker_ops_cuda STATIC ops/cuda/no_cuda.cpp)
endif()
target_link_libraries(stoker_ops_cuda PUBLIC stoker_tensor stoker_base PRIVATE ${ROOM_TARGET})
target_link_libraries(${ROOM_TARGET} PRIVATE stoker_ops_cuda)

# One file, one operation: all of them say kForward and kBackward.
set_target_properties(${ROOM_TARGET} PROPERTIES UNITY_BUILD OFF)
