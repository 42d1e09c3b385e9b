// Tokenizers on disk: which files a path means, and writing them.
#include "base/error.h"
#include "data/tokenizer/json_file.h"
#include "data/tokenizer/tokenizer.h"
#include "io/atomic_write.h"
#include "io/file_system.h"

namespace stoker::tokenizer {
namespace {

constexpr uint64_t kMaxFile = uint64_t{1} << 30;

std::string read(const std::string& path) { return io::read_text(io::real_file_system(), path, kMaxFile); }

}  // namespace

Tokenizer Tokenizer::from_json(std::string_view json) { return Tokenizer(definition_from_json(json)); }

Tokenizer Tokenizer::from_tiktoken(std::string_view ranks, SplitPattern split,
                                   std::vector<AddedToken> special) {
  Definition d = definition_from_tiktoken(ranks, split);
  d.added = std::move(special);
  return Tokenizer(std::move(d));
}

Tokenizer Tokenizer::from_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt,
                                           SplitPattern split) {
  return Tokenizer(definition_from_vocab_and_merges(vocab_json, merges_txt, split));
}

Tokenizer Tokenizer::load(const std::filesystem::path& where, std::optional<SplitPattern> split) {
  io::FileSystem& fs = io::real_file_system();
  const std::string path = where.string();
  if (!fs.exists(path))
    fail(ErrorKind::kUsage,
         "there is no tokenizer at '{}': give a tokenizer.json, a directory with one, or a .tiktoken file",
         path);
  auto with_path = [&](const std::string& file, auto&& make) {
    try {
      return make();
    } catch (const Error& e) {
      throw Error(e.kind(), file + ": " + e.what());
    }
  };
  if (fs.info(path).directory) {
    const std::string json = io::join(path, "tokenizer.json"), vocab = io::join(path, "vocab.json"),
                      merges = io::join(path, "merges.txt");
    if (fs.exists(json)) return load(json, split);
    if (fs.exists(vocab) && fs.exists(merges))
      return with_path(path, [&] {
        return from_vocab_and_merges(read(vocab), read(merges), split.value_or(SplitPattern::kGpt2));
      });
    fail(ErrorKind::kUsage, "'{}' holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt",
         path);
  }
  if (where.extension() == ".tiktoken") {
    if (!split)
      fail(ErrorKind::kUsage, "'{}' holds ranks but not how text is split: name the pattern, one of {}", path,
           split_names());
    return with_path(path, [&] {
      return from_tiktoken(read(path), *split, published_special_tokens(where.stem().string()));
    });
  }
  return with_path(path, [&] { return from_json(read(path)); });
}

std::string Tokenizer::to_json() const { return definition_to_json(definition()); }

void Tokenizer::save(const std::filesystem::path& where) const {
  io::FileSystem& fs = io::real_file_system();
  const std::string path = where.string();
  if (where.extension() == ".json") return io::write_file_atomic(fs, path, to_json());
  fs.make_dirs(path);
  io::write_file_atomic(fs, io::join(path, "vocab.json"), vocab_to_json(definition()));
  io::write_file_atomic(fs, io::join(path, "merges.txt"), merges_to_text(definition()));
  io::write_file_atomic(fs, io::join(path, "tokenizer.json"), to_json());
}

}  // namespace stoker::tokenizer
