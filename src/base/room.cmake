target_link_libraries(${ROOM_TARGET} PUBLIC OpenMP::OpenMP_CXX)
