find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_program(STOKER_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
find_program(STOKER_PROTOC protoc REQUIRED)
set(wire_dir ${CMAKE_CURRENT_BINARY_DIR}/wire/elastic)
file(MAKE_DIRECTORY ${wire_dir})
add_custom_command(
  OUTPUT ${wire_dir}/coordinator.pb.cc ${wire_dir}/coordinator.pb.h ${wire_dir}/coordinator.grpc.pb.cc ${wire_dir}/coordinator.grpc.pb.h
  COMMAND ${STOKER_PROTOC} --proto_path=${CMAKE_CURRENT_SOURCE_DIR} --cpp_out=${CMAKE_CURRENT_BINARY_DIR}/wire
          --grpc_out=${CMAKE_CURRENT_BINARY_DIR}/wire --plugin=protoc-gen-grpc=${STOKER_GRPC_PLUGIN}
          elastic/coordinator.proto
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/elastic/coordinator.proto VERBATIM)
target_sources(${ROOM_TARGET} PRIVATE ${wire_dir}/coordinator.pb.cc ${wire_dir}/coordinator.grpc.pb.cc)
set_source_files_properties(${wire_dir}/coordinator.pb.cc ${wire_dir}/coordinator.grpc.pb.cc PROPERTIES COMPILE_OPTIONS -w)
target_include_directories(${ROOM_TARGET} SYSTEM PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/wire)
target_link_libraries(${ROOM_TARGET} PRIVATE protobuf::libprotobuf gRPC::grpc++)
