// io/safetensors.h
// The ecosystem's tensor file: an 8-byte little-endian header length, a JSON header, the tensors' bytes
// (docs/formats/safetensors.md).
//
// Reads   maps the file; touches only the header and what is asked for. Refuses (Data, naming file and
//         tensor): a header beyond 100 MB or the file, JSON that is broken or says a name twice, unknown
//         types, a size that does not match shape and type, tensors that overlap, leave gaps or do not end
//         with the file
// Writes  streaming: the header first, then tensors in any order and in parts. The bytes of a file depend only
//         on what is declared and written: tensors ordered by element size (largest first), then name; data
//         starts at a multiple of 64
// Errors  also those of the FileSystem
// Source  github.com/huggingface/safetensors, README, "Format"
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/file_system.h"

namespace stoker::io {

// Bits per element of "F32", "BF16", ...; 0 for a name that the format does not have.
int safetensors_dtype_bits(std::string_view dtype);

struct TensorDeclaration {
  std::string name, dtype;
  std::vector<int64_t> shape;
};
uint64_t declared_bytes(const TensorDeclaration& tensor);  // Data: unknown type, negative dimension, overflow

struct TensorEntry : TensorDeclaration {
  uint64_t offset = 0, bytes = 0;  // in the file
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by offset
  Metadata metadata;
};
// The header of a file of file_bytes bytes that starts with `start`, which holds at least the header (or the
// whole file).
SafetensorsHeader parse_safetensors_header(std::string_view start, uint64_t file_bytes,
                                           const std::string& where);

class SafetensorsFile {
 public:
  SafetensorsFile(FileSystem& fs, const std::string& path, Access access = Access::kNormal);
  const std::string& path() const { return file_->path(); }
  const Metadata& metadata() const { return header_.metadata; }
  const std::vector<TensorEntry>& tensors() const { return header_.tensors; }
  const TensorEntry* find(std::string_view name) const;
  const TensorEntry& at(std::string_view name) const;                 // Data when there is none
  std::span<const std::byte> bytes(const TensorEntry& tensor) const;  // mapped; lives as long as this object
  void read(const TensorEntry& tensor, uint64_t offset, void* to,
            size_t bytes) const;  // a part, by positional read

 private:
  std::unique_ptr<ReadableFile> file_;
  SafetensorsHeader header_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

class SafetensorsWriter {
 public:
  SafetensorsWriter(FileSystem& fs, const std::string& path, std::vector<TensorDeclaration> tensors,
                    const Metadata& metadata = {});
  uint64_t file_bytes() const { return file_bytes_; }
  std::string_view header() const { return header_; }  // the file's bytes before the first tensor
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // by offset: the order to write in
  void write(std::string_view name, const void* data, size_t bytes);
  void write_part(std::string_view name, uint64_t offset, const void* data, size_t bytes);
  void finish();  // every declared byte must have been written once; syncs and closes

 private:
  std::string header_;
  std::vector<TensorEntry> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<uint64_t> written_;
  uint64_t file_bytes_ = 0;
  std::unique_ptr<WritableFile> file_;
};

// A model's tensors: one file, or several with model.safetensors.index.json.
class SafetensorsSet {
 public:
  // A .safetensors file or a directory. Usage when there is none; weights as Python pickles are refused (they
  // can run code).
  SafetensorsSet(FileSystem& fs, const std::string& path);
  struct Location {
    const SafetensorsFile* file;
    const TensorEntry* tensor;
    std::span<const std::byte> bytes() const { return file->bytes(*tensor); }
  };
  const std::map<std::string, Location, std::less<>>& tensors() const { return tensors_; }  // by name
  const Location* find(std::string_view name) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Location, std::less<>> tensors_;
};

// How a set is cut into files: in name order, each at most max_bytes (or one tensor).
struct ShardPlan {
  std::vector<std::string> files;  // "model.safetensors", or "model-00001-of-00003.safetensors" ...
  std::vector<std::vector<TensorDeclaration>> tensors;
  std::string index;  // contents of model.safetensors.index.json; empty for one file
};
ShardPlan plan_shards(std::vector<TensorDeclaration> tensors, uint64_t max_bytes);

}  // namespace stoker::io
