// base/embedded_file.h
// A file that the build put inside the program (cmake/embed.cmake), so that one copied binary needs no
// others. `name` is the path that the file has in the source tree; `content` is its bytes and lives as long
// as the program.
#pragma once
#include <span>
#include <string_view>

namespace stoker {

struct EmbeddedFile {
  std::string_view name;
  std::string_view content;
};

}  // namespace stoker
