find_package(nlohmann_json REQUIRED)
target_link_libraries(${ROOM_TARGET} PUBLIC nlohmann_json::nlohmann_json)
target_compile_definitions(${ROOM_TARGET} PRIVATE STOKER_VERSION="${PROJECT_VERSION}")
target_link_libraries(${ROOM_TARGET} PRIVATE PkgConfig::TOMLPP)
