#include "data/corpus/factory_decide.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/clock.h"

namespace stoker::corpus {

SpillBudget spill_budget(const Recipe& recipe, std::string_view what) {
  return {fmt::format("{}/spill/{}-{}", recipe.work, what, ::getpid()), recipe.memory_bytes / 4};
}

DocumentDecisions::DocumentDecisions(const StageContext& context, const ChunkColumns& columns, Corpus& corpus,
                                     Stopwatch& watch)
    : context_(context), recipe_(context.recipe()), columns_(columns), corpus_(corpus), watch_(watch) {}

// ---- names and numbers

void DocumentDecisions::name_labels() {
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

uint32_t DocumentDecisions::label_bit(const std::string& label) const {
  const auto at = std::find(corpus_.labels.begin(), corpus_.labels.end(), label);
  return uint32_t{1} << (at - corpus_.labels.begin());
}

uint16_t DocumentDecisions::language_number(const char* code) {
  const auto at = std::find(corpus_.languages.begin(), corpus_.languages.end(), code);
  if (at != corpus_.languages.end()) return static_cast<uint16_t>(at - corpus_.languages.begin());
  corpus_.languages.push_back(code);
  return static_cast<uint16_t>(corpus_.languages.size() - 1);
}

uint32_t DocumentDecisions::reason(const std::string& name) {
  const auto [at, fresh] = reasons_.emplace(name, static_cast<uint32_t>(corpus_.reasons.size()));
  if (fresh) corpus_.reasons.push_back(name);
  return at->second;
}

uint32_t DocumentDecisions::reason(size_t stage, const std::string& what) {
  return reason(fmt::format("{}: {}", to_string(recipe_.stages[stage].kind), what));
}

uint64_t DocumentDecisions::number_documents() {
  uint64_t total = 0;
  for (auto& chunk : corpus_.chunks) {
    chunk.first = total;
    total += chunk.documents;
  }
  if (total >= UINT32_MAX)
    fail(ErrorKind::kUsage, "{} documents: a build holds at most {}; cut it into several", total,
         UINT32_MAX - 1);
  corpus_.documents = SpillArray<CorpusDocument>(spill_budget(recipe_, "documents").directory);
  corpus_.documents.assign(total, {});
  reason("kept");
  corpus_.quarantine_reason = reason("quarantine");
  corpus_.empty_reason = reason("empty");
  uint64_t text_bytes = 0;
  for (const auto& chunk : corpus_.chunks) {
    const auto places = ChunkColumns::rows_of<PlaceRow>(columns_.places(chunk));
    const auto hashes = columns_.hashes(chunk, chunk.raw);
    for (uint32_t i = 0; i < chunk.documents; ++i) {
      auto& document = corpus_.documents[chunk.first + i];
      document.file = corpus_.batch_first_file[chunk.batch] + places[i].file;
      document.record = places[i].record;
      const std::string& label = recipe_.sources[corpus_.files[document.file]->source].label;
      if (!label.empty()) document.labels |= label_bit(label);
      if (places[i].bad) document.reason = corpus_.quarantine_reason;
      else if (hashes[i].bytes == 0) document.reason = corpus_.empty_reason;
      text_bytes += hashes[i].bytes;
    }
  }
  return text_bytes;
}

// ---- stage by stage

void DocumentDecisions::decide(size_t begin, size_t end) {
  for (size_t s = begin; s < end; ++s) {
    if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; what was computed is kept");
    const StageKind kind = recipe_.stages[s].kind;
    if (is_transform(kind)) continue;
    const double start = monotonic_s();
    decide_stage(s, begin);
    watch_.add(fmt::format("decide {}", to_string(kind)), monotonic_s() - start, 0);
  }
  drop_emptied();
}

void DocumentDecisions::decide_stage(size_t s, size_t begin) {
  switch (recipe_.stages[s].kind) {
    case StageKind::kLanguage:
      return decide_language(s, begin);
    case StageKind::kQuality:
      return decide_quality(s, begin);
    case StageKind::kLabel:
      return decide_label(s, begin);
    case StageKind::kDecontaminate:
      return decide_contamination(s, begin);
    case StageKind::kExact:
    case StageKind::kNear:
      return decide_duplicates(s, begin);
    default:
      STOKER_CHECK(false, "stage {} decides nothing within a segment", s);
  }
}

// A transform may leave nothing of a text.
void DocumentDecisions::drop_emptied() {
  for (const auto& chunk : corpus_.chunks) {
    const auto hashes = columns_.hashes(chunk, chunk.text);
    for (uint32_t i = 0; i < chunk.documents; ++i) {
      auto& document = corpus_.documents[chunk.first + i];
      if (document.reason == 0 && hashes[i].bytes == 0) document.reason = corpus_.empty_reason;
    }
  }
}

template <typename Row, typename Each>
void DocumentDecisions::for_each_row(size_t stage, size_t begin, Each&& each) {
  const ColumnSpec column = context_.columns_of(stage).front();
  for (const auto& chunk : corpus_.chunks) {
    const auto rows = columns_.rows<Row>(chunk, columns_.text_at(chunk.segment, begin, stage), column);
    for (uint32_t i = 0; i < chunk.documents; ++i) {
      auto& document = corpus_.documents[chunk.first + i];
      if (document.reason == 0) each(rows[i], document);
    }
  }
}

void DocumentDecisions::decide_language(size_t s, size_t begin) {
  const StageRecipe& stage = recipe_.stages[s];
  for_each_row<LanguageRow>(s, begin, [&](const LanguageRow& row, CorpusDocument& document) {
    document.language = language_number(row.code);
    if (stage.keep_languages.empty()) return;
    const bool listed = std::find(stage.keep_languages.begin(), stage.keep_languages.end(), row.code) !=
                        stage.keep_languages.end();
    if (!listed) document.reason = reason(s, fmt::format("{} is not kept", row.code));
    else if (row.share < stage.min_share)
      document.reason = reason(s, fmt::format("{} with a share below {:g}", row.code, stage.min_share));
  });
}

void DocumentDecisions::decide_quality(size_t s, size_t begin) {
  const StageRecipe& stage = recipe_.stages[s];
  for_each_row<Signals>(s, begin, [&](const Signals& row, CorpusDocument& document) {
    const int broken = first_broken_rule(stage.rules, row);
    if (broken >= 0) document.reason = reason(s, stage.rule_reasons[static_cast<size_t>(broken)]);
    for (int signal = 0; signal < kSignalCount; ++signal)
      corpus_.histograms[signal].add(signal, row[static_cast<size_t>(signal)], broken >= 0);
  });
}

void DocumentDecisions::decide_label(size_t s, size_t begin) {
  const StageRecipe& stage = recipe_.stages[s];
  auto found = [&](CorpusDocument& document, const std::string& label) {
    if (stage.drop) document.reason = reason(s, label);
    else document.labels |= label_bit(label);
  };
  if (!stage.when.empty()) {
    for_each_row<Signals>(s, begin, [&](const Signals& row, CorpusDocument& d) {
      if (first_broken_rule(stage.when, row) < 0) found(d, stage.label);
    });
    return;
  }
  const LabelClassifier* model = context_.classifier(s);
  for_each_row<LabelRow>(s, begin, [&](const LabelRow& row, CorpusDocument& d) {
    if (row.label < 0 || row.probability < stage.min_probability) return;
    const std::string& label = model ? model->labels()[static_cast<size_t>(row.label)] : stage.label;
    // A classifier that drops, drops the label it was told; the others are only recorded.
    if (stage.drop && label != stage.label) d.labels |= label_bit(label);
    else found(d, label);
  });
}

void DocumentDecisions::decide_contamination(size_t s, size_t begin) {
  const StageRecipe& stage = recipe_.stages[s];
  for_each_row<ContaminationRow>(s, begin, [&](const ContaminationRow& row, CorpusDocument& document) {
    if (row.overlap > 0 && row.overlap >= stage.max_overlap)
      document.reason = reason(s, "holds " + context_.evaluation(s)->item_name(row.item));
  });
}

// ---- duplicates

DocumentKey DocumentDecisions::key_of(size_t s, const CorpusChunk& chunk, uint32_t i,
                                      const HashRow& hash) const {
  const auto& document = corpus_.documents[chunk.first + i];
  const InputFile& file = *corpus_.files[document.file];
  const SourceRecipe& source = recipe_.sources[file.source];
  DocumentKey key;
  key.quality = recipe_.stages[s].prefer_longest ? static_cast<float>(hash.bytes) : source.priority;
  key.content = {hash.high, hash.low};
  key.id = KeyBuilder("id").add(source.name).add(file.name).add_number(document.record).key();
  return key;
}

SpillArray<DuplicateVerdict> DocumentDecisions::find_exact(size_t s, size_t begin,
                                                           SpillArray<uint32_t>& ordinals) const {
  ExactDuplicateFinder finder(spill_budget(recipe_, "exact"));
  for_each_survivor(s, begin, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
    finder.add(key);
    ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
  });
  return finder.finish();
}

SpillArray<DuplicateVerdict> DocumentDecisions::find_near(size_t s, size_t begin,
                                                          SpillArray<uint32_t>& ordinals) const {
  const StageRecipe& stage = recipe_.stages[s];
  NearDuplicateFinder finder({stage.minhash, stage.min_similarity, spill_budget(recipe_, "near")});
  const ColumnSpec column = context_.columns_of(s)[1];
  const CorpusChunk* loaded = nullptr;
  std::string rows;
  std::vector<uint32_t> signature(static_cast<size_t>(stage.minhash.entries()));
  for_each_survivor(s, begin, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
    if (loaded != &chunk) {
      rows = columns_.column(chunk, columns_.text_at(chunk.segment, begin, s), column);
      loaded = &chunk;
    }
    ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
    const char* row = rows.data() + i * column.row_bytes;
    uint32_t any;
    std::memcpy(&any, row, sizeof any);
    std::memcpy(signature.data(), row + sizeof any, signature.size() * sizeof(uint32_t));
    finder.add(key, any ? std::span<const uint32_t>(signature) : std::span<const uint32_t>());
  });
  return finder.finish();
}

void DocumentDecisions::decide_duplicates(size_t s, size_t begin) {
  const StageRecipe& stage = recipe_.stages[s];
  const bool exact = stage.kind == StageKind::kExact;
  const std::string folder = spill_budget(recipe_, to_string(stage.kind)).directory;
  SpillArray<uint32_t> ordinals(folder);
  const auto verdicts = exact ? find_exact(s, begin, ordinals) : find_near(s, begin, ordinals);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  const uint32_t why = reason(s, exact ? "copy" : stage.minhash.name);
  for (size_t i = 0; i < verdicts.size(); ++i) {
    if (verdicts[i].kept == i) continue;
    auto& document = corpus_.documents[ordinals[i]];
    document.reason = why;
    document.matched = ordinals[verdicts[i].matched];
    document.similarity = verdicts[i].similarity;
    document.kept_instead = ordinals[verdicts[i].kept];
  }
}

// ---- weights

// The fraction by content hash, so that it is the same documents every time.
void DocumentDecisions::decide_weights() {
  if (std::all_of(recipe_.sources.begin(), recipe_.sources.end(),
                  [](const SourceRecipe& s) { return s.weight == 1; }))
    return;
  const uint32_t why = reason("weight");
  for (const auto& chunk : corpus_.chunks) {
    const auto hashes = columns_.hashes(chunk, chunk.text);
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

}  // namespace stoker::corpus
