find_package(Gloo REQUIRED)
target_link_libraries(${ROOM_TARGET} PRIVATE gloo rt)
