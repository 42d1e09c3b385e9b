# Compute threads: OpenMP's, which oneDNN uses too; std::thread under ThreadSanitizer (base/team.h says why).
set(STOKER_TEAM openmp CACHE STRING "Threads of base/team.h: openmp or std_thread")
target_sources(${ROOM_TARGET} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/base/${STOKER_TEAM}/team.cpp)
target_link_libraries(${ROOM_TARGET} PUBLIC OpenMP::OpenMP_CXX)
