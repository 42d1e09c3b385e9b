find_package(nlohmann_json REQUIRED)
target_link_libraries(${ROOM_TARGET} PUBLIC nlohmann_json::nlohmann_json)
