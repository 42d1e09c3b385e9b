#include "data/corpus/factory_map.h"

#include <cstring>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "data/corpus/ordered_work.h"

namespace stoker::corpus {
namespace {

// A chunk of a batch as it is remembered for later runs.
struct RememberedChunk {
  uint64_t high, low, documents;
};

template <typename Row>
void append_row(std::string& out, const Row& row) {
  out.append(reinterpret_cast<const char*>(&row), sizeof row);
}

uint64_t batch_bytes(const InputBatch& batch) {
  uint64_t n = 0;
  for (const auto& f : batch.files) n += f.bytes;
  return n;
}

}  // namespace

// One of: a chunk that is remembered, a piece of a large file, a batch of small files.
struct ChunkMapper::Work {
  uint32_t batch = 0;
  std::optional<CorpusChunk> remembered;
  std::optional<BatchReader::Piece> piece;
  bool last = false;
  uint64_t stored = 0;
};
struct ChunkMapper::Done {
  uint32_t batch = 0;
  std::vector<CorpusChunk> chunks;
  bool last = false, remembered = false, computed = false, passing = false;
  uint64_t stored = 0;
};

// What is to be done, in the order of the inputs.
class ChunkMapper::WorkList {
 public:
  WorkList(const ChunkMapper& mapper, Progress& progress) : mapper_(mapper), progress_(progress) {}

  std::optional<Work> next() {
    for (;;) {
      if (next_recalled_ < recalled_.size()) return next_remembered();
      if (reader_) return next_piece();
      if (next_batch_ == batches().size()) return std::nullopt;
      const InputBatch& batch = batches()[next_batch_++];
      if (auto known = mapper_.recall(next_batch_ - 1)) {
        recalled_ = std::move(*known);
        next_recalled_ = 0;
        if (recalled_.empty()) progress_.add(batch_bytes(batch));
      } else if (batch.large) {
        reader_ = std::make_unique<BatchReader>(mapper_.fs_, mapper_.recipe_, batch);
      } else {
        Work work;
        work.batch = next_batch_ - 1;
        work.last = true;
        work.stored = batch_bytes(batch);
        return work;
      }
    }
  }

 private:
  const std::vector<InputBatch>& batches() const { return mapper_.corpus_.inputs.batches; }

  Work next_remembered() {
    Work work;
    work.batch = next_batch_ - 1;
    work.remembered = recalled_[next_recalled_++];
    if (next_recalled_ == recalled_.size()) work.stored = batch_bytes(batches()[work.batch]);
    return work;
  }

  // Of a large file the pieces are read here, in order, and opened by whoever is free.
  Work next_piece() {
    Work work;
    work.batch = next_batch_ - 1;
    work.piece = ahead_ ? std::move(ahead_) : reader_->next();
    ahead_.reset();
    if (work.piece) ahead_ = reader_->next();
    work.last = !ahead_;
    if (work.last) {
      reader_.reset();
      work.stored = batch_bytes(batches()[work.batch]);
    }
    return work;
  }

  const ChunkMapper& mapper_;
  Progress& progress_;
  uint32_t next_batch_ = 0;
  std::vector<CorpusChunk> recalled_;
  size_t next_recalled_ = 0;
  std::unique_ptr<BatchReader> reader_;
  std::optional<BatchReader::Piece> ahead_;
};

ChunkMapper::ChunkMapper(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                         const ChunkColumns& columns, Corpus& corpus, Stopwatch& watch, int threads)
    : fs_(fs),
      context_(context),
      recipe_(context.recipe()),
      store_(store),
      columns_(columns),
      corpus_(corpus),
      watch_(watch),
      threads_(threads) {}

// Makes what is missing of [begin, end) for one chunk. at_hand: its text, else loaded when needed.
bool ChunkMapper::map_chunk(Hash128 base, size_t begin, size_t end,
                            std::vector<ChunkDocument>* at_hand) const {
  auto needed = columns_.needed(base, begin, end);
  std::erase_if(needed, [&](const NeededColumn& n) { return columns_.present("column", n.key()); });
  const Hash128 last = columns_.text_at(base, begin, end);
  const bool text_missing = last != base && !columns_.present("text", last);
  if (needed.empty() && !text_missing) return false;
  std::vector<ChunkDocument> loaded;
  if (!at_hand) {
    loaded = columns_.documents(base);
    at_hand = &loaded;
  }
  auto& documents = *at_hand;
  uint64_t bytes = 0;
  for (const auto& d : documents) bytes += d.text.size();
  Hash128 now = base;
  auto compute = [&] {
    for (const auto& n : needed) {
      if (n.text != now) continue;
      const double start = monotonic_s();
      std::string rows;
      rows.reserve(documents.size() * n.column.row_bytes);
      for (const auto& d : documents) context_.compute(n.column, d.text, rows);
      STOKER_CHECK(rows.size() == documents.size() * n.column.row_bytes, "column {}", n.column.key);
      watch_.add(n.column.key.substr(0, n.column.key.find('/')), monotonic_s() - start, bytes);
      store_.put("column", n.key(), rows);
    }
  };
  compute();
  for (size_t s = begin; s < end; ++s) {
    if (!is_transform(recipe_.stages[s].kind)) continue;
    const double start = monotonic_s();
    for (auto& d : documents)
      if (d.bad.empty()) d.text = context_.apply(s, std::move(d.text));
    watch_.add(std::string(to_string(recipe_.stages[s].kind)), monotonic_s() - start, bytes);
    now = columns_.transformed(now, s);
    compute();
  }
  if (text_missing) store_.put("text", last, encode_chunk(documents));
  return true;
}

// Text of a piece's records, kept under the hash of the raw records.
CorpusChunk ChunkMapper::open_piece(uint32_t batch, BatchReader::Piece piece,
                                    std::vector<ChunkDocument>& documents, bool& fresh) const {
  const SourceRecipe& source = recipe_.sources[corpus_.inputs.batches[batch].files.front().source];
  KeyBuilder key("raw/1");
  key.add(open_key(source));
  for (size_t i = 0; i < piece.records.size(); ++i) {
    const RawRecord& r = piece.records[i];
    key.add_number(piece.files[i]).add_number(r.number).add_number(static_cast<uint64_t>(r.kind));
    key.add(r.name).add(r.charset).add(r.bad).add(r.bytes);
  }
  CorpusChunk chunk;
  chunk.batch = batch;
  chunk.raw = chunk.text = key.key();
  chunk.documents = static_cast<uint32_t>(piece.records.size());
  fresh = !columns_.present("text", chunk.raw) || !columns_.present("place", chunk.raw);
  if (!fresh) return chunk;
  const double start = monotonic_s();
  uint64_t bytes = 0;
  std::string places;
  for (size_t i = 0; i < piece.records.size(); ++i) {
    bytes += piece.records[i].bytes.size();
    documents.push_back(open_record(std::move(piece.records[i]), piece.files[i], source));
    const ChunkDocument& d = documents.back();
    append_row(places, PlaceRow{d.file, d.bad.empty() ? 0u : 1u, d.record});
  }
  watch_.add("extract", monotonic_s() - start, bytes);
  store_.put("text", chunk.raw, encode_chunk(documents));
  store_.put("place", chunk.raw, places);
  return chunk;
}

// The chunks of a batch as an earlier run left them; nullopt: unknown, changed or incomplete.
std::optional<std::vector<CorpusChunk>> ChunkMapper::recall(uint32_t batch) const {
  const auto bytes = store_.get("batch", batch_key(recipe_, corpus_.inputs.batches[batch]));
  if (!bytes || bytes->size() % sizeof(RememberedChunk) != 0) return std::nullopt;
  std::vector<CorpusChunk> out;
  for (const auto& row : ChunkColumns::rows_of<RememberedChunk>(*bytes)) {
    CorpusChunk chunk;
    chunk.batch = batch;
    chunk.raw = chunk.text = {row.high, row.low};
    chunk.documents = static_cast<uint32_t>(row.documents);
    if (!columns_.present("text", chunk.raw) || !columns_.present("place", chunk.raw)) return std::nullopt;
    out.push_back(chunk);
  }
  return out;
}

ChunkMapper::Done ChunkMapper::open(Work work, size_t end) const {
  Done done;
  done.batch = work.batch;
  done.last = work.last;
  done.remembered = work.remembered.has_value();
  done.stored = work.stored;
  auto one = [&](BatchReader::Piece piece) {
    std::vector<ChunkDocument> documents;
    bool fresh = false;
    done.passing |= piece.passing;
    done.chunks.push_back(open_piece(work.batch, std::move(piece), documents, fresh));
    done.computed |= map_chunk(done.chunks.back().raw, 0, end, fresh ? &documents : nullptr) || fresh;
  };
  const InputBatch& batch = corpus_.inputs.batches[work.batch];
  if (work.remembered) {
    done.chunks.push_back(*work.remembered);
    done.computed = map_chunk(work.remembered->raw, 0, end, nullptr);
  } else if (work.piece) {
    one(std::move(*work.piece));
  } else if (!batch.large) {
    BatchReader small(fs_, recipe_, batch);
    while (auto piece = small.next()) one(std::move(*piece));
  }
  return done;
}

uint64_t ChunkMapper::ingest(size_t end) {
  Progress progress("reading", corpus_.inputs.bytes);
  WorkList list(*this, progress);
  uint64_t computed = 0;
  std::string remembered;  // of the batch at hand
  bool passing = false;
  OrderedWork<Work, Done>::run(
      threads_, [&] { return list.next(); }, [&](Work work) { return open(std::move(work), end); },
      [&](Done done) {
        for (const auto& chunk : done.chunks) {
          if (!done.remembered)
            append_row(remembered, RememberedChunk{chunk.raw.high, chunk.raw.low, chunk.documents});
          corpus_.chunks.push_back(chunk);
          computed += done.computed;
        }
        passing |= done.passing;
        if (!done.remembered && done.last) {
          if (!passing)
            store_.put("batch", batch_key(recipe_, corpus_.inputs.batches[done.batch]), remembered);
          remembered.clear();
          passing = false;
        }
        progress.add(done.stored);
      });
  for (auto& chunk : corpus_.chunks) {
    chunk.segment = chunk.raw;
    chunk.text = columns_.text_at(chunk.raw, 0, end);
  }
  return computed;
}

uint64_t ChunkMapper::map_segment(size_t begin, size_t end) {
  Progress progress("second pass", corpus_.chunks.size(), "chunks");
  uint64_t computed = 0;
  for_each_in_order<bool>(
      threads_, corpus_.chunks.size(),
      [&](size_t i) { return map_chunk(corpus_.chunks[i].segment, begin, end, nullptr); },
      [&](bool fresh) {
        computed += fresh;
        progress.add(1);
      });
  for (auto& chunk : corpus_.chunks) chunk.text = columns_.text_at(chunk.segment, begin, end);
  return computed;
}

}  // namespace stoker::corpus
