#include "data/corpus/factory_build.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/stop.h"
#include "base/threads.h"
#include "data/corpus/dedup_documents.h"
#include "data/corpus/dedup_lines.h"
#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/factory_output.h"
#include "data/corpus/factory_stages.h"
#include "data/corpus/ordered_work.h"
#include "io/atomic_write.h"

namespace stoker::corpus {
namespace {

Hash128 column_key(Hash128 text, const ColumnSpec& column) {
  return KeyBuilder("column/1").add(text).add(column.key).key();
}

// Seconds and bytes by name, from any thread.
class Stopwatch {
 public:
  void add(const std::string& what, double seconds, uint64_t bytes) {
    std::lock_guard lock(mutex_);
    auto& t = timings_[what];
    t.seconds += seconds;
    t.bytes += bytes;
  }
  std::vector<BuildTiming> take() const {
    std::vector<BuildTiming> out;
    for (const auto& [what, t] : timings_) out.push_back({what, t.seconds, t.bytes});
    return out;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, BuildTiming> timings_;
};

class Builder {
 public:
  Builder(io::FileSystem& fs, const Recipe& recipe)
      : fs_(fs),
        recipe_(recipe),
        context_(fs, recipe),
        store_(fs, recipe.work),
        threads_(recipe.threads > 0 ? recipe.threads : compute_threads()) {}

  BuildResult run() {
    const double start = monotonic_s();
    for (int round = 0;; ++round) {
      try {
        BuildResult result = attempt();
        result.seconds = monotonic_s() - start;
        return result;
      } catch (const ArtifactLost& lost) {
        verify_ = true;  // look into every file before trusting it
        if (round == 4)
          fail(ErrorKind::kStorage,
               "{}: files of the work directory keep failing their checksum ({}): check the disk",
               recipe_.work, lost.what);
      }
    }
  }

 private:
  BuildResult attempt() {
    corpus_ = {};
    corpus_.recipe = &recipe_;
    corpus_.inputs = list_inputs(fs_, recipe_);
    result_ = {};
    result_.files = corpus_.inputs.files;
    result_.left_out = corpus_.inputs.left_out;
    result_.stored_bytes = corpus_.inputs.bytes;
    const size_t first_global = next_global(0);
    for (const auto& batch : corpus_.inputs.batches) {
      corpus_.batch_first_file.push_back(static_cast<uint32_t>(corpus_.files.size()));
      for (const auto& file : batch.files) corpus_.files.push_back(&file);
    }
    name_labels();
    ingest(first_global);
    number_documents();
    find_bad_and_empty();
    size_t begin = 0;
    for (;;) {
      const size_t end = next_global(begin);
      if (begin > 0) map_segment(begin, end);
      decide(begin, end);
      if (end == recipe_.stages.size()) break;
      remove_lines(end);
      begin = end + 1;
    }
    decide_weights();
    result_.chunks = corpus_.chunks.size();
    result_.documents_in = corpus_.documents.size();
    write_corpus(fs_, context_, store_, corpus_, threads_, result_);
    result_.timings = watch_.take();
    return result_;
  }

  bool present(std::string_view kind, Hash128 key) const {
    return verify_ ? store_.get(kind, key).has_value() : store_.has(kind, key);
  }

  // The next stage that changes text by what the whole corpus holds.
  size_t next_global(size_t from) const {
    while (from < recipe_.stages.size() && recipe_.stages[from].kind != StageKind::kLines) ++from;
    return from;
  }

  std::string fetch(std::string_view kind, Hash128 key) const {
    auto bytes = store_.get(kind, key);
    if (!bytes) throw ArtifactLost{store_.path(kind, key)};
    return std::move(*bytes);
  }

  struct Needed {
    Hash128 text;
    ColumnSpec column;
  };

  // Text keys at each stage of [begin, end) from `base`; the one behind them; the columns to be had.
  std::vector<Needed> needed_columns(Hash128 base, size_t begin, size_t end, Hash128& last) const {
    std::vector<Needed> out;
    auto add = [&](const ColumnSpec& column) {
      for (const auto& n : out)
        if (n.text == last && n.column.key == column.key) return;
      out.push_back({last, column});
    };
    last = base;
    add(StageContext::hash_column());
    for (size_t s = begin; s < end; ++s) {
      if (is_transform(recipe_.stages[s].kind))
        last = KeyBuilder("text/1").add(last).add(context_.transform_key(s)).key();
      else
        for (const auto& column : context_.columns_of(s)) add(column);
    }
    if (end < recipe_.stages.size())
      for (const auto& column : context_.columns_of(end)) add(column);
    add(StageContext::hash_column());
    return out;
  }

  // Makes what is missing of [begin, end) for one chunk. documents: its text if at hand, else loaded when needed.
  bool map_chunk(Hash128 base, size_t begin, size_t end, std::vector<ChunkDocument>* at_hand) {
    Hash128 last;
    auto needed = needed_columns(base, begin, end, last);
    std::erase_if(needed, [&](const Needed& n) { return present("column", column_key(n.text, n.column)); });
    const bool text_missing = last != base && !present("text", last);
    if (needed.empty() && !text_missing) return false;
    std::vector<ChunkDocument> loaded;
    if (!at_hand) {
      loaded = decode_chunk(fetch("text", base));
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
        store_.put("column", column_key(n.text, n.column), rows);
      }
    };
    compute();
    for (size_t s = begin; s < end; ++s) {
      if (!is_transform(recipe_.stages[s].kind)) continue;
      const double start = monotonic_s();
      for (auto& d : documents)
        if (d.bad.empty()) d.text = context_.apply(s, std::move(d.text));
      watch_.add(std::string(to_string(recipe_.stages[s].kind)), monotonic_s() - start, bytes);
      now = KeyBuilder("text/1").add(now).add(context_.transform_key(s)).key();
      compute();
    }
    if (text_missing) store_.put("text", last, encode_chunk(documents));
    return true;
  }

  struct Work {
    uint32_t batch = 0;
    bool remembered = false;
    CorpusChunk chunk;  // remembered
    std::optional<BatchReader::Piece> piece;
    bool last = false;
    uint64_t stored = 0;
  };
  struct Done {
    uint32_t batch = 0;
    std::vector<CorpusChunk> chunks;
    bool last = false, remembered = false, computed = false;
    uint64_t stored = 0;
  };

  // Text of a piece's records, kept under the hash of the raw records.
  CorpusChunk open_piece(uint32_t batch, BatchReader::Piece piece, std::vector<ChunkDocument>& documents,
                         bool& fresh) {
    const InputBatch& input = corpus_.inputs.batches[batch];
    const SourceRecipe& source = recipe_.sources[input.files.front().source];
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
    fresh = !present("text", chunk.raw) || !present("place", chunk.raw);
    if (!fresh) return chunk;
    const double start = monotonic_s();
    uint64_t bytes = 0;
    std::string places;
    for (size_t i = 0; i < piece.records.size(); ++i) {
      bytes += piece.records[i].bytes.size();
      documents.push_back(open_record(std::move(piece.records[i]), piece.files[i], source));
      const PlaceRow row{documents.back().file, documents.back().bad.empty() ? 0u : 1u,
                         documents.back().record};
      places.append(reinterpret_cast<const char*>(&row), sizeof row);
    }
    watch_.add("extract", monotonic_s() - start, bytes);
    store_.put("text", chunk.raw, encode_chunk(documents));
    store_.put("place", chunk.raw, places);
    return chunk;
  }

  // The chunks of a batch as an earlier run left them; nullopt: unknown, changed or incomplete.
  std::optional<std::vector<CorpusChunk>> recall(uint32_t batch) const {
    const auto bytes = store_.get("batch", batch_key(recipe_, corpus_.inputs.batches[batch]));
    if (!bytes || bytes->size() % sizeof(RememberedChunk) != 0) return std::nullopt;
    std::vector<CorpusChunk> out;
    for (size_t at = 0; at < bytes->size(); at += sizeof(RememberedChunk)) {
      RememberedChunk row;
      std::memcpy(&row, bytes->data() + at, sizeof row);
      CorpusChunk chunk;
      chunk.batch = batch;
      chunk.raw = chunk.text = {row.high, row.low};
      chunk.documents = static_cast<uint32_t>(row.documents);
      if (!present("text", chunk.raw) || !present("place", chunk.raw)) return std::nullopt;
      out.push_back(chunk);
    }
    return out;
  }

  void ingest(size_t first_global) {
    Progress progress("reading", corpus_.inputs.bytes);
    uint32_t next_batch = 0;
    std::vector<CorpusChunk> recalled;
    size_t next_recalled = 0;
    std::unique_ptr<BatchReader> reader;
    std::optional<BatchReader::Piece> ahead;
    auto batch_bytes = [&](uint32_t b) {
      uint64_t n = 0;
      for (const auto& f : corpus_.inputs.batches[b].files) n += f.bytes;
      return n;
    };
    auto take = [&]() -> std::optional<Work> {
      for (;;) {
        if (next_recalled < recalled.size()) {
          Work work;
          work.batch = next_batch - 1;
          work.remembered = true;
          work.chunk = recalled[next_recalled++];
          if (next_recalled == recalled.size()) work.stored = batch_bytes(work.batch);
          return work;
        }
        if (reader) {  // a large file: its pieces are read here, in order, and opened by whoever is free
          Work work;
          work.batch = next_batch - 1;
          work.piece = ahead ? std::move(ahead) : reader->next();
          ahead.reset();
          if (work.piece) ahead = reader->next();
          work.last = !ahead;
          if (work.last) {
            reader.reset();
            work.stored = batch_bytes(work.batch);
          }
          return work;
        }
        if (next_batch == corpus_.inputs.batches.size()) return std::nullopt;
        const uint32_t batch = next_batch++;
        if (auto known = recall(batch)) {
          recalled = std::move(*known);
          next_recalled = 0;
          if (recalled.empty()) progress.add(batch_bytes(batch));
          continue;
        }
        if (corpus_.inputs.batches[batch].large) {
          reader = std::make_unique<BatchReader>(fs_, recipe_, corpus_.inputs.batches[batch]);
          continue;
        }
        Work work;
        work.batch = batch;
        work.last = true;
        work.stored = batch_bytes(batch);
        return work;
      }
    };
    auto work = [&](Work w) {
      Done done;
      done.batch = w.batch;
      done.last = w.last;
      done.remembered = w.remembered;
      done.stored = w.stored;
      auto one = [&](BatchReader::Piece piece) {
        std::vector<ChunkDocument> documents;
        bool fresh = false;
        done.chunks.push_back(open_piece(w.batch, std::move(piece), documents, fresh));
        done.computed |=
            map_chunk(done.chunks.back().raw, 0, first_global, fresh ? &documents : nullptr) || fresh;
      };
      if (w.remembered) {
        done.chunks.push_back(w.chunk);
        done.computed = map_chunk(w.chunk.raw, 0, first_global, nullptr);
      } else if (w.piece) {
        one(std::move(*w.piece));
      } else if (!corpus_.inputs.batches[w.batch].large) {
        BatchReader small(fs_, recipe_, corpus_.inputs.batches[w.batch]);
        while (auto piece = small.next()) one(std::move(*piece));
      }
      return done;
    };
    std::string remembered;
    auto done = [&](Done d) {
      for (auto& chunk : d.chunks) {
        if (!d.remembered) {
          const RememberedChunk row{chunk.raw.high, chunk.raw.low, chunk.documents};
          remembered.append(reinterpret_cast<const char*>(&row), sizeof row);
        }
        corpus_.chunks.push_back(chunk);
        result_.chunks_computed += d.computed;
      }
      if (!d.remembered && d.last) {
        store_.put("batch", batch_key(recipe_, corpus_.inputs.batches[d.batch]), remembered);
        remembered.clear();
      }
      progress.add(d.stored);
    };
    OrderedWork<Work, Done>::run(threads_, take, work, done);
    for (auto& chunk : corpus_.chunks) {
      Hash128 last;
      needed_columns(chunk.raw, 0, first_global, last);
      chunk.segment = chunk.raw;
      chunk.text = last;
    }
  }

  void number_documents() {
    uint64_t total = 0;
    for (auto& chunk : corpus_.chunks) {
      chunk.first = total;
      total += chunk.documents;
    }
    if (total >= UINT32_MAX)
      fail(ErrorKind::kUsage, "{} documents: a build holds at most {}; cut it into several", total,
           UINT32_MAX - 1);
    corpus_.documents = SpillArray<CorpusDocument>(spill("documents").directory);
    corpus_.documents.assign(total, {});
  }

  template <typename Row>
  std::vector<Row> rows_of(const CorpusChunk& chunk, Hash128 text, const ColumnSpec& column) const {
    const std::string bytes = fetch("column", column_key(text, column));
    if (bytes.size() != chunk.documents * sizeof(Row))
      throw ArtifactLost{store_.path("column", column_key(text, column))};
    std::vector<Row> rows(chunk.documents);
    std::memcpy(rows.data(), bytes.data(), bytes.size());
    return rows;
  }

  uint32_t reason(size_t stage, const std::string& what) {
    const std::string name =
        stage == kNoStage ? what : fmt::format("{}: {}", to_string(recipe_.stages[stage].kind), what);
    const auto [at, fresh] = reasons_.emplace(name, static_cast<uint32_t>(corpus_.reasons.size()));
    if (fresh) corpus_.reasons.push_back(name);
    return at->second;
  }

  void find_bad_and_empty() {
    reasons_.clear();
    corpus_.reasons = {"kept"};
    reasons_["kept"] = 0;
    const uint32_t bad = reason(kNoStage, "quarantine"), empty = reason(kNoStage, "empty");
    corpus_.quarantine_reason = bad;
    corpus_.empty_reason = empty;
    for (const auto& chunk : corpus_.chunks) {
      const std::string places = fetch("place", chunk.raw);
      if (places.size() != chunk.documents * sizeof(PlaceRow))
        throw ArtifactLost{store_.path("place", chunk.raw)};
      const auto hashes = rows_of<HashRow>(chunk, chunk.raw, StageContext::hash_column());
      for (uint32_t i = 0; i < chunk.documents; ++i) {
        PlaceRow row;
        std::memcpy(&row, places.data() + i * sizeof row, sizeof row);
        auto& document = corpus_.documents[chunk.first + i];
        document.file = corpus_.batch_first_file[chunk.batch] + row.file;
        document.record = row.record;
        const std::string& label = recipe_.sources[corpus_.files[document.file]->source].label;
        if (!label.empty()) document.labels |= label_bit(label);
        if (row.bad) document.reason = bad;
        else if (hashes[i].bytes == 0) document.reason = empty;
        result_.text_bytes_in += hashes[i].bytes;
      }
    }
  }

  // All labels there can be, in order of appearance: sources, then stages.
  void name_labels() {
    corpus_.languages = {""};
    auto add = [&](const std::string& label) {
      if (!label.empty() &&
          std::find(corpus_.labels.begin(), corpus_.labels.end(), label) == corpus_.labels.end())
        corpus_.labels.push_back(label);
    };
    for (const auto& source : recipe_.sources) add(source.label);
    for (size_t s = 0; s < recipe_.stages.size(); ++s) {
      if (const auto* model = context_.classifier(s))
        for (const auto& label : model->labels()) add(label);
      else if (recipe_.stages[s].kind == StageKind::kLabel) add(recipe_.stages[s].label);
    }
    if (corpus_.labels.size() > 32)
      fail(ErrorKind::kUsage, "{} labels: a build holds at most 32", corpus_.labels.size());
  }

  uint32_t label_bit(const std::string& label) const {
    const auto at = std::find(corpus_.labels.begin(), corpus_.labels.end(), label);
    return uint32_t{1} << (at - corpus_.labels.begin());
  }

  uint16_t language_number(const char* code) {
    const auto at = std::find(corpus_.languages.begin(), corpus_.languages.end(), code);
    if (at != corpus_.languages.end()) return static_cast<uint16_t>(at - corpus_.languages.begin());
    corpus_.languages.push_back(code);
    return static_cast<uint16_t>(corpus_.languages.size() - 1);
  }

  // Stage by stage over the columns; text keys are followed chunk by chunk.
  void decide(size_t begin, size_t end) {
    for (size_t s = begin; s < end; ++s) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; what was computed is kept");
      const StageRecipe& stage = recipe_.stages[s];
      const double start = monotonic_s();
      switch (stage.kind) {
        case StageKind::kLanguage:
          decide_language(s, begin);
          break;
        case StageKind::kQuality:
          decide_quality(s, begin);
          break;
        case StageKind::kLabel:
          decide_label(s, begin);
          break;
        case StageKind::kDecontaminate:
          decide_contamination(s, begin);
          break;
        case StageKind::kExact:
        case StageKind::kNear:
          decide_duplicates(s, begin);
          break;
        default:
          continue;
      }
      watch_.add(fmt::format("decide {}", to_string(stage.kind)), monotonic_s() - start, 0);
    }
    // A transform may leave nothing of a text.
    for (const auto& chunk : corpus_.chunks) {
      const auto hashes = rows_of<HashRow>(chunk, chunk.text, StageContext::hash_column());
      for (uint32_t i = 0; i < chunk.documents; ++i) {
        auto& document = corpus_.documents[chunk.first + i];
        if (document.reason == 0 && hashes[i].bytes == 0) document.reason = corpus_.empty_reason;
      }
    }
  }

  Hash128 text_at(const CorpusChunk& chunk, size_t begin, size_t stage) const {
    Hash128 last;
    needed_columns(chunk.segment, begin, stage, last);
    return last;
  }

  template <typename Row, typename Each>
  void for_each_row(size_t stage, size_t begin, size_t column, Each&& each) {
    const auto columns = context_.columns_of(stage);
    for (const auto& chunk : corpus_.chunks) {
      const auto rows = rows_of<Row>(chunk, text_at(chunk, begin, stage), columns[column]);
      for (uint32_t i = 0; i < chunk.documents; ++i) {
        auto& document = corpus_.documents[chunk.first + i];
        if (document.reason == 0) each(rows[i], document);
      }
    }
  }

  void decide_language(size_t s, size_t begin) {
    const StageRecipe& stage = recipe_.stages[s];
    for_each_row<LanguageRow>(s, begin, 0, [&](const LanguageRow& row, CorpusDocument& document) {
      document.language = language_number(row.code);
      if (stage.keep_languages.empty()) return;
      const bool listed = std::find(stage.keep_languages.begin(), stage.keep_languages.end(), row.code) !=
                          stage.keep_languages.end();
      if (!listed) document.reason = reason(s, fmt::format("{} is not kept", row.code));
      else if (row.share < stage.min_share)
        document.reason = reason(s, fmt::format("{} with a share below {:g}", row.code, stage.min_share));
    });
  }

  void decide_quality(size_t s, size_t begin) {
    const StageRecipe& stage = recipe_.stages[s];
    for_each_row<Signals>(s, begin, 0, [&](const Signals& row, CorpusDocument& document) {
      const int broken = first_broken_rule(stage.rules, row);
      if (broken >= 0) document.reason = reason(s, stage.rule_reasons[static_cast<size_t>(broken)]);
      for (int signal = 0; signal < kSignalCount; ++signal) {
        auto& h = corpus_.histograms[signal];
        const auto bin = static_cast<size_t>(histogram_bin(signal, row[static_cast<size_t>(signal)]));
        ++h.all[bin];
        h.dropped[bin] += broken >= 0;
      }
    });
  }

  void decide_label(size_t s, size_t begin) {
    const StageRecipe& stage = recipe_.stages[s];
    auto found = [&](CorpusDocument& document, const std::string& label) {
      if (stage.drop) document.reason = reason(s, label);
      else document.labels |= label_bit(label);
    };
    if (!stage.when.empty()) {
      for_each_row<Signals>(s, begin, 0, [&](const Signals& row, CorpusDocument& d) {
        if (first_broken_rule(stage.when, row) < 0) found(d, stage.label);
      });
      return;
    }
    const LabelClassifier* model = context_.classifier(s);
    for_each_row<LabelRow>(s, begin, 0, [&](const LabelRow& row, CorpusDocument& d) {
      if (row.label < 0 || row.probability < stage.min_probability) return;
      const std::string& label = model ? model->labels()[static_cast<size_t>(row.label)] : stage.label;
      // A classifier that drops, drops the label it was told; the others are only recorded.
      if (stage.drop && label != stage.label) d.labels |= label_bit(label);
      else found(d, label);
    });
  }

  void decide_contamination(size_t s, size_t begin) {
    const StageRecipe& stage = recipe_.stages[s];
    for_each_row<ContaminationRow>(s, begin, 0, [&](const ContaminationRow& row, CorpusDocument& document) {
      if (row.overlap > 0 && row.overlap >= stage.max_overlap)
        document.reason = reason(s, "holds " + context_.evaluation(s)->item_name(row.item));
    });
  }

  // Calls each(chunk, place in it, key) for the documents still in.
  template <typename Each>
  void for_each_survivor(size_t s, size_t begin, Each&& each) {
    const bool longest = recipe_.stages[s].prefer_longest;
    for (const auto& chunk : corpus_.chunks) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; what was computed is kept");
      const auto hashes = rows_of<HashRow>(chunk, text_at(chunk, begin, s), StageContext::hash_column());
      for (uint32_t i = 0; i < chunk.documents; ++i) {
        const auto& document = corpus_.documents[chunk.first + i];
        if (document.reason != 0) continue;
        const InputFile& file = *corpus_.files[document.file];
        const SourceRecipe& source = recipe_.sources[file.source];
        DocumentKey key;
        key.quality = longest ? static_cast<float>(hashes[i].bytes) : source.priority;
        key.content = {hashes[i].high, hashes[i].low};
        key.id = KeyBuilder("id").add(source.name).add(file.name).add_number(document.record).key();
        each(chunk, i, key);
      }
    }
  }

  SpillBudget spill(const char* what) const {
    return {fmt::format("{}/spill/{}-{}", recipe_.work, what, ::getpid()), recipe_.memory_bytes / 4};
  }

  void decide_duplicates(size_t s, size_t begin) {
    const StageRecipe& stage = recipe_.stages[s];
    const std::string folder = spill(std::string(to_string(stage.kind)).c_str()).directory;
    SpillArray<uint32_t> ordinals(folder);
    SpillArray<DuplicateVerdict> verdicts;
    if (stage.kind == StageKind::kExact) {
      SpillArray<DocumentKey> keys(folder);
      for_each_survivor(s, begin, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
        keys.push_back(key);
        ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
      });
      verdicts = find_exact_duplicates(keys, folder);
    } else {
      NearDuplicateFinder finder({stage.minhash, stage.min_similarity, spill("near")});
      const auto column = context_.columns_of(s)[1];
      const CorpusChunk* loaded = nullptr;
      std::string rows;
      std::vector<uint32_t> signature(static_cast<size_t>(stage.minhash.entries()));
      for_each_survivor(s, begin, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
        if (loaded != &chunk) {
          rows = fetch("column", column_key(text_at(chunk, begin, s), column));
          if (rows.size() != chunk.documents * column.row_bytes) throw ArtifactLost{column.key};
          loaded = &chunk;
        }
        ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
        const char* row = rows.data() + i * column.row_bytes;
        uint32_t any;
        std::memcpy(&any, row, sizeof any);
        std::memcpy(signature.data(), row + sizeof any, signature.size() * sizeof(uint32_t));
        finder.add(key, any ? std::span<const uint32_t>(signature) : std::span<const uint32_t>());
      });
      verdicts = finder.finish();
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    const uint32_t why = reason(s, stage.kind == StageKind::kExact ? "copy" : stage.minhash.name);
    for (size_t i = 0; i < verdicts.size(); ++i) {
      if (verdicts[i].kept == i) continue;
      auto& document = corpus_.documents[ordinals[i]];
      document.reason = why;
      document.matched = ordinals[verdicts[i].matched];
      document.similarity = verdicts[i].similarity;
      document.kept_instead = ordinals[verdicts[i].kept];
    }
  }

  void remove_lines(size_t s) {
    const StageRecipe& stage = recipe_.stages[s];
    const double start = monotonic_s();
    LineDedupOptions options;
    options.kind = stage.span;
    options.min_characters = stage.min_characters;
    options.min_documents = stage.min_documents;
    options.spill = spill("lines");
    SpillArray<uint32_t> ordinals(options.spill.directory);
    // Text behind the transforms of this segment: keys of the hash column there.
    for (auto& chunk : corpus_.chunks) chunk.segment = chunk.text;
    LineDeduplicator lines(options);
    uint64_t bytes = 0;
    {
      const CorpusChunk* loaded = nullptr;
      std::vector<ChunkDocument> documents;
      for_each_survivor(s, s, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
        if (loaded != &chunk) {
          documents = decode_chunk(fetch("text", chunk.text));
          loaded = &chunk;
        }
        const auto& text = documents.at(i).text;
        bytes += text.size();
        lines.add(key, text);
        ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
      });
    }
    // What is dropped is told in the order of documents: chunk by chunk, nothing more is held.
    std::map<uint32_t, std::vector<uint32_t>> drops;  // of the chunk at hand, by place in it
    size_t at_hand = 0;
    auto finish_chunk = [&] {
      rewrite_chunk(stage, corpus_.chunks[at_hand++], drops);
      drops.clear();
    };
    lines.finish([&](uint32_t i, std::span<const uint32_t> drop) {
      const uint32_t ordinal = ordinals[i];
      while (ordinal >= corpus_.chunks[at_hand].first + corpus_.chunks[at_hand].documents) finish_chunk();
      drops[static_cast<uint32_t>(ordinal - corpus_.chunks[at_hand].first)].assign(drop.begin(), drop.end());
      corpus_.spans_removed += drop.size();
    });
    while (at_hand < corpus_.chunks.size()) finish_chunk();
    std::error_code ignored;
    std::filesystem::remove_all(options.spill.directory, ignored);
    watch_.add("lines", monotonic_s() - start, bytes);
  }

  // The chunk without those spans, under a key of which they are.
  void rewrite_chunk(const StageRecipe& stage, CorpusChunk& chunk,
                     const std::map<uint32_t, std::vector<uint32_t>>& drops) {
    KeyBuilder key("lines/1");
    key.add(chunk.text).add(stage.compute_key());
    for (uint32_t i = 0; i < chunk.documents; ++i) {
      key.add_number(corpus_.documents[chunk.first + i].reason == 0);
      if (const auto drop = drops.find(i); drop != drops.end())
        key.add(std::string_view(reinterpret_cast<const char*>(drop->second.data()),
                                 drop->second.size() * sizeof(uint32_t)));
    }
    const Hash128 after = key.key();
    if (!present("text", after)) {
      auto documents = decode_chunk(fetch("text", chunk.text));
      for (uint32_t i = 0; i < chunk.documents; ++i)
        if (corpus_.documents[chunk.first + i].reason != 0)
          documents[i].text.clear();  // nobody asks for it again
      for (const auto& [i, drop] : drops)
        documents[i].text = remove_spans(documents[i].text, stage.span, drop);
      store_.put("text", after, encode_chunk(documents));
    }
    chunk.segment = chunk.text = after;
  }

  void map_segment(size_t begin, size_t end) {
    Progress progress("second pass", corpus_.chunks.size(), "chunks");
    size_t next = 0;
    OrderedWork<size_t, bool>::run(
        threads_,
        [&]() -> std::optional<size_t> {
          return next < corpus_.chunks.size() ? std::optional(next++) : std::nullopt;
        },
        [&](size_t i) { return map_chunk(corpus_.chunks[i].segment, begin, end, nullptr); },
        [&](bool computed) {
          result_.chunks_computed += computed;
          progress.add(1);
        });
    for (auto& chunk : corpus_.chunks) {
      Hash128 last;
      needed_columns(chunk.segment, begin, end, last);
      chunk.text = last;
    }
  }

  // Copies by the source's weight; the fraction by content hash, so that it is the same documents every time.
  void decide_weights() {
    bool any = false;
    for (const auto& source : recipe_.sources) any |= source.weight != 1;
    if (!any) return;
    const uint32_t why = reason(kNoStage, "weight");
    for (const auto& chunk : corpus_.chunks) {
      const auto hashes = rows_of<HashRow>(chunk, chunk.text, StageContext::hash_column());
      const double weight = recipe_.sources[corpus_.inputs.batches[chunk.batch].files.front().source].weight;
      for (uint32_t i = 0; i < chunk.documents; ++i) {
        auto& document = corpus_.documents[chunk.first + i];
        if (document.reason != 0) continue;
        const double whole = std::floor(weight);
        const double draw = static_cast<double>(hashes[i].low >> 11) * 0x1p-53;
        document.copies = static_cast<uint16_t>(whole + (draw < weight - whole ? 1 : 0));
        if (document.copies == 0) document.reason = why;
      }
    }
  }

  static constexpr size_t kNoStage = static_cast<size_t>(-1);
  struct RememberedChunk {
    uint64_t high, low, documents;
  };

  io::FileSystem& fs_;
  const Recipe& recipe_;
  StageContext context_;
  ArtifactStore store_;
  int threads_;
  bool verify_ = false;
  Corpus corpus_;
  std::map<std::string, uint32_t> reasons_;
  BuildResult result_;
  Stopwatch watch_;
};

}  // namespace

BuildResult build_corpus(io::FileSystem& fs, const Recipe& recipe) { return Builder(fs, recipe).run(); }

}  // namespace stoker::corpus
