find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET GLOBAL libutf8proc)
pkg_check_modules(GUMBO REQUIRED IMPORTED_TARGET GLOBAL gumbo)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET GLOBAL icu-uc icu-i18n)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET GLOBAL re2)
find_package(nlohmann_json REQUIRED)
find_library(CLD2_LIBRARY cld2 REQUIRED)
target_link_libraries(${ROOM_TARGET} PUBLIC PkgConfig::UTF8PROC PkgConfig::GUMBO PkgConfig::ICU PkgConfig::RE2
                      nlohmann_json::nlohmann_json ${CLD2_LIBRARY})
