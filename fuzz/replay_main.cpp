// Runs a fuzz target without libFuzzer: every file of a corpus directory, then truncations and byte changes
// of it from a fixed seed, so that an ordinary test run with g++ (and with the sanitizers) exercises every
// parser.
//   <name>_replay CORPUS_DIRECTORY|FILE...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

constexpr int kMutationsPerFile = 64;

void run(const std::string& bytes) {
  // An exact-size heap copy lets the address sanitizer see a read one byte past the end.
  const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

std::string mutate(std::string bytes, std::mt19937& random) {
  if (bytes.empty()) return bytes;
  if (random() % 4 == 0) return bytes.substr(0, random() % bytes.size());
  for (uint32_t edits = 1 + random() % 4; edits-- > 0;) {
    char& byte = bytes[random() % bytes.size()];
    switch (random() % 3) {
      case 0:
        byte = static_cast<char>(byte ^ (1 << (random() % 8)));
        break;
      case 1:
        byte = static_cast<char>(random() % 2 ? 0xff : 0);
        break;
      default:
        byte = bytes[random() % bytes.size()];
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry.path());
    } else {
      files.emplace_back(argv[i]);
    }
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "expected a corpus directory with at least one file, found none in the arguments\n");
    return 1;
  }
  int64_t runs = 0;
  for (const auto& path : files) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "cannot read %s\n", path.c_str());
      return 1;
    }
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    run(bytes);
    std::mt19937 random(static_cast<uint32_t>(bytes.size()));
    for (int i = 0; i < kMutationsPerFile; ++i) run(mutate(bytes, random));
    runs += 1 + kMutationsPerFile;
  }
  std::printf("%zu files, %lld runs\n", files.size(), static_cast<long long>(runs));
  return 0;
}
