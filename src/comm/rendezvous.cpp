#include "comm/rendezvous.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/clock.h"
#include "comm/transport.h"

namespace stoker::comm {
namespace {

class FileRendezvous final : public Rendezvous {
 public:
  explicit FileRendezvous(std::string directory) : directory_(std::move(directory)) {
    std::filesystem::create_directories(directory_);
  }
  void set(const std::string& key, const std::string& value) override {
    const std::string path = file(key), temporary = fmt::format("{}.{}", path, getpid());
    std::ofstream(temporary, std::ios::binary) << value;
    std::filesystem::rename(temporary, path);
  }
  std::string get(const std::string& key, double deadline_s) override {
    for (;;) {
      std::ifstream in(file(key), std::ios::binary);
      if (in) return {std::istreambuf_iterator<char>(in), {}};
      if (monotonic_s() >= deadline_s)
        throw PeerError(-1, fmt::format("key '{}' was not set in time: not every rank has come", key));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  std::string file(const std::string& key) const {
    std::string name = key;
    for (char& c : name)
      if (c == '/') c = '_';
    return directory_ + "/" + name;
  }
  std::string directory_;
};

}  // namespace

std::unique_ptr<Rendezvous> make_file_rendezvous(const std::string& directory) {
  return std::make_unique<FileRendezvous>(directory);
}

}  // namespace stoker::comm
