// checkpoint/record.h
// What the JSON files of a checkpoint say (docs/formats/checkpoint.md). index-<writer>.json: where every tensor of one writer
// lies, with hashes. COMMIT: the hash of every other file; written last, so that a checkpoint exists when it does.
// Errors  Data: names the file and field, what was expected and found. Of indices unknown fields are ignored, an unknown
//         version is not
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "tensor/dtype.h"

namespace stoker::checkpoint {

inline constexpr uint64_t kBlockBytes =
    uint64_t{4} << 20;  // unit of verification: a damaged place is known to this precision
inline constexpr const char* kCommitName = "COMMIT";
inline constexpr const char* kStateName = "state.json";
inline constexpr const char* kReplayName = "replay.json";

enum class Part { kWeights, kOptimizer };
std::string_view to_string(Part part);

// Rows [first_row, first_row + rows) of a tensor; a tensor of rank 0 has one row.
struct Piece {
  std::string tensor;
  Part part = Part::kWeights;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t first_row = 0, rows = 0;
  std::string file;
  uint64_t offset = 0, bytes = 0;  // in the file
  Hash128 hash;                    // of the piece's bytes
  std::vector<uint64_t> blocks;    // XXH3-64 of each kBlockBytes of the piece, the last one shorter
};
int64_t total_rows(const Piece& piece);
uint64_t row_bytes(const Piece& piece);  // Data on overflow

struct TensorFile {
  std::string name;
  uint64_t bytes = 0, header_bytes = 0;
  Hash128 header_hash;
};

struct WriterIndex {
  int writer = 0, writers = 1;
  std::vector<TensorFile> files;
  std::vector<Piece> pieces;
};
std::string to_json(const WriterIndex& index);
WriterIndex parse_index(std::string_view text, const std::string& where);
std::string index_name(int writer);

struct CommittedFile {
  std::string name;
  uint64_t bytes = 0;
  Hash128 hash;
};
struct Commit {
  int64_t step = 0;
  int writers = 1;
  Hash128 weights_hash;
  uint64_t tensor_bytes = 0;
  double unix_s = 0;
  std::vector<CommittedFile>
      files;  // state.json, index-*.json, attachments; tensor files are hashed by their index
};
std::string to_json(const Commit& commit);  // carries a hash of itself
Commit parse_commit(std::string_view text, const std::string& where);

Hash128 parse_hash128(std::string_view hex, const std::string& where);  // Data unless 32 hexadecimal digits

// "step-00000120", or "step-00000120-r1" for a step saved again; -1 when name is neither.
std::string directory_name(int64_t step, int revision);
struct StepName {
  int64_t step = -1;
  int revision = 0;
};
StepName parse_directory_name(std::string_view name);

}  // namespace stoker::checkpoint
