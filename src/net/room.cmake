find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
target_link_libraries(${ROOM_TARGET} PUBLIC gRPC::grpc++ PRIVATE OpenSSL::Crypto)
