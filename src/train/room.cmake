find_package(nlohmann_json REQUIRED)
target_link_libraries(${ROOM_TARGET} PUBLIC nlohmann_json::nlohmann_json)
target_compile_definitions(${ROOM_TARGET} PRIVATE STOKER_VERSION="${PROJECT_VERSION}")
# Recipes and plans are TOML. The shared library, not the header: it is compiled once, and without the assertions that
# would end the program on some malformed files.
pkg_check_modules(TOMLPP REQUIRED IMPORTED_TARGET GLOBAL tomlplusplus)
target_link_libraries(${ROOM_TARGET} PRIVATE PkgConfig::TOMLPP)
