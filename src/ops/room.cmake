# Debian's dnnl-config.cmake asks for OpenCL, which the library does not need: find it by name.
find_library(DNNL_LIBRARY dnnl REQUIRED)
target_link_libraries(${ROOM_TARGET} PRIVATE ${DNNL_LIBRARY})
