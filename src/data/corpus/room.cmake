find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET GLOBAL libutf8proc)
target_link_libraries(${ROOM_TARGET} PUBLIC PkgConfig::UTF8PROC)
