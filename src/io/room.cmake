# Object storage: HTTP by libcurl, S3 signatures by OpenSSL.
find_package(CURL REQUIRED)
find_package(OpenSSL REQUIRED)
target_link_libraries(${ROOM_TARGET} PRIVATE CURL::libcurl OpenSSL::Crypto)
if(ROOM_TEST)
  target_link_libraries(${ROOM_TEST} PRIVATE GTest::gmock)
endif()
