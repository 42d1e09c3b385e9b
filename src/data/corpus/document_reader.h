// data/corpus/document_reader.h
// Sources -> documents, in order, by many threads with bounded memory. One thread at a time takes a Load
// (some small whole files, or a piece of a large one) and opens it alone: the expensive part (decompression
// of small files, JSON, UTF-8) runs in parallel, while loads are numbered in the order of the sources.
//   text         a file is a document; above max_document_bytes it is cut at line ends into several (records
//   0, 1, ...) JSON lines   a line is a document: the string in `json_field` (a name, or a JSON pointer
//   beginning with '/')
// Bad records   invalid UTF-8, no JSON, no such field, too long, unreadable or truncated file: reported with
// file and line,
//               never dropped in silence
// Memory        per load at most max_document_bytes + 4 MiB; a longer line is skipped without being held
// Determinism   loads, documents and bad records depend on the sources and options only
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/corpus/document_source.h"
#include "io/file_system.h"

namespace stoker::corpus {

struct ReadOptions {
  std::string json_field = "text";  // also the column of an MDS shard
  std::string tar_member =
      "txt";  // extension of the members of a tar that are documents; json: the field of each
  uint64_t max_document_bytes = uint64_t{64} << 20;
  uint64_t load_bytes = uint64_t{1} << 20;  // what a load aims at
};

struct Document {
  uint32_t source = 0;
  uint64_t record = 0;
  std::string text;  // valid UTF-8
};

struct BadRecord {
  uint32_t source = 0;
  uint64_t record = 0;
  bool whole_file = false;  // the rest of the file was given up
  std::string reason;
};

// What became known about a source when its last byte was read.
struct SourceDone {
  uint32_t source = 0;
  Hash128 stored_hash;
};

struct Opened {
  std::vector<Document> documents;
  std::vector<BadRecord> bad;
  std::vector<SourceDone> done;
  uint64_t empty = 0;         // documents without a byte
  uint64_t stored_bytes = 0;  // of the files, taken by this load: for progress
};

struct Load {
  uint64_t number = 0;          // 0, 1, 2 ... in the order of the sources
  std::vector<uint32_t> files;  // to be read whole
  // or part of one file:
  uint32_t source = 0;
  uint64_t first_record = 0;
  std::string bytes;                                      // whole lines, or one document
  std::vector<std::pair<uint64_t, std::string>> members;  // or documents of a tar or MDS shard, by record
  Opened read;                                            // what reading found already
};

class DocumentReader {
 public:
  DocumentReader(io::FileSystem& fs, const std::vector<SourceFile>& sources, ReadOptions options);
  ~DocumentReader();
  std::optional<Load> next();    // one caller at a time; nullopt: that was all
  Opened open(Load load) const;  // any thread

 private:
  struct Streaming;
  io::FileSystem& fs_;
  const std::vector<SourceFile>& sources_;
  ReadOptions options_;
  uint32_t next_source_ = 0;
  uint64_t next_number_ = 0;
  std::unique_ptr<Streaming> streaming_;
};

// Index of the first byte that cannot be UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace stoker::corpus
