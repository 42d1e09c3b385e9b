// plan/catalog_files.h
// The catalog as files: the ones built into the program, unless STOKER_CATALOG names a directory whose file
// of the same name then takes the place of the built-in one. Every file under catalog/ of the source tree is
// built in (src/plan/room.cmake); its name is its path below catalog/, "prices/gpu_rental.csv" say.
// Errors      Usage: no such catalog file (the names there are), no such file of the user. Storage: the replacing
//             file cannot be read
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace stoker::plan {

std::string catalog_file(std::string_view name);
std::vector<std::string> catalog_names(
    std::string_view prefix = {});  // built-in names that start with prefix, sorted

// A file that the user named, which may be empty; `wanted` says in an error what it should have been.
std::string read_text(const std::string& path, std::string_view wanted);

}  // namespace stoker::plan
