#include "data/loader/lineage.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::data {
SourceLine source_of(const Dataset& dataset, io::FileSystem& fs, const DocumentOrigin& origin) {
  const auto file = fs.open_read(dataset.path_of(dataset.manifest().sources));
  std::string_view text = file->text();
  for (uint32_t i = 0; i < origin.source && !text.empty(); ++i) {
    const size_t end = text.find('\n');
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  if (text.empty())
    fail(ErrorKind::kData, "{}: it has no line {}, where a document says it came from", file->path(),
         origin.source + 1);
  const std::string_view line = text.substr(0, text.find('\n'));
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object())
    fail(ErrorKind::kData, "{}: line {}: expected a JSON object that names an input, found \"{}\"",
         file->path(), origin.source + 1, line.substr(0, 80));
  SourceLine out;
  const auto text_of = [&](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
  };
  out.name = text_of("name");
  out.format = text_of("format");
  if (json.contains("input") && json["input"].is_number_unsigned()) out.input = json["input"].get<uint64_t>();
  return out;
}

std::vector<DocumentPart> documents_at(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                                       uint64_t first, uint64_t count) {
  if (first >= split.tokens || count > split.tokens - first)
    fail(ErrorKind::kUsage, "split {} has tokens 0 to {}: there is no token {}", split.name,
         split.tokens ? split.tokens - 1 : 0, first + count - (count ? 1 : 0));
  std::vector<DocumentPart> parts;
  uint64_t shard_start = 0, documents_before = 0;
  for (size_t s = 0; s < split.shards.size() && count > 0; ++s) {
    const ShardRecord& shard = split.shards[s];
    const uint64_t shard_end = shard_start + shard.tokens;
    if (first < shard_end) {
      const auto file = dataset.open_shard(shard);
      while (count > 0 && first < shard_end) {
        const uint64_t in_shard = file->document_of(first - shard_start);
        DocumentPart part;
        part.document = documents_before + in_shard;
        part.place = locate_document(dataset, fs, split, part.document);
        part.first = first - part.place.first_token;
        part.count = std::min(count, part.place.tokens - part.first);
        if (part.count == 0)
          fail(ErrorKind::kData, "{}: token {} belongs to no document", file->index().file(),
               first - shard_start);
        first += part.count;
        count -= part.count;
        parts.push_back(std::move(part));
      }
    }
    shard_start = shard_end;
    documents_before += shard.documents;
  }
  return parts;
}

std::vector<uint64_t> documents_by_hash(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                                        std::string_view prefix) {
  std::vector<uint64_t> found;
  uint64_t before = 0;
  for (const auto& shard : split.shards) {
    if (shard.docs.name.empty())
      fail(ErrorKind::kUsage, "{}: shard {} has no document table", dataset.directory(), shard.bin.name);
    const auto file = fs.open_read(dataset.path_of(shard.docs));
    const auto table = DocumentTable::parse(file->map(), dataset.path_of(shard.docs));
    for (uint64_t d = 0; d < table.documents(); ++d)
      if (table.at(d).text_hash.hex().starts_with(prefix)) found.push_back(before + d);
    before += shard.documents;
  }
  return found;
}

std::vector<uint64_t> samples_that_predict(const Loader& loader, uint64_t epoch, uint64_t first,
                                           uint64_t count) {
  std::vector<uint64_t> samples;
  for (const uint64_t row : loader.rows_that_predict(first, count))
    samples.push_back(loader.sample_of(epoch, row));
  std::sort(samples.begin(), samples.end());
  return samples;
}

}  // namespace stoker::data
