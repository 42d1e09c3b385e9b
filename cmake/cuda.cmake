# Finds nvcc and the toolkit. Sets STOKER_CUDA_FOUND; the rooms tensor and ops build their cuda/ or its stand-in by it.
#   STOKER_CUDA  AUTO: when nvcc is there. ON: must be there. OFF: never
set(STOKER_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (when nvcc is found), ON or OFF")
set(STOKER_CUDA_FOUND FALSE)
if(STOKER_CUDA STREQUAL "OFF")
  return()
endif()
find_program(STOKER_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(STOKER_NVCC)
  set(CMAKE_CUDA_COMPILER ${STOKER_NVCC})
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)  # newer devices compile the PTX of 90 when the program first runs there
  endif()
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  set(CMAKE_CUDA_STANDARD 17)  # what nvcc sees is plain; CMake 3.25 knows no later one for nvcc 13
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(STOKER_CUDA_FOUND TRUE)
elseif(STOKER_CUDA STREQUAL "ON")
  message(FATAL_ERROR "STOKER_CUDA is ON: expected nvcc on the path, in CUDA_HOME or in /usr/local/cuda, found none. "
                      "Install the CUDA toolkit (13 or newer), or set STOKER_CUDA=OFF.")
endif()
