#include "data/corpus/factory_output.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "data/corpus/factory_report.h"
#include "data/corpus/ordered_work.h"
#include "data/shard/best_fit.h"
#include "data/shard/dataset_writer.h"
#include "data/shard/pack_plan.h"
#include "data/tokenizer/tokenizer.h"
#include "io/atomic_write.h"

namespace stoker::corpus {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kSamples = 3, kExcerpt = 400;

// What an id or excerpt needs to be JSON: file names need not be UTF-8.
void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text.substr(plain, i - plain));
    plain = i + 1;
    if (c == '"' || c == '\\') (out += '\\') += static_cast<char>(c);
    else if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else ((out += "\\u00") += kHex[c >> 4]) += kHex[c & 15];
  }
  out.append(text.substr(plain));
  out += '"';
}

std::string excerpt(std::string_view text) {
  std::string out(text.substr(0, kExcerpt));
  while (!out.empty() && (out.back() & 0xC0) == 0x80) out.pop_back();
  if (!out.empty() && (out.back() & 0x80)) out.pop_back();
  return out;
}

struct Counted {
  uint64_t documents = 0, text_bytes = 0, tokens = 0;
  void add(uint64_t bytes, uint64_t n, uint64_t copies) {
    documents += copies;
    text_bytes += bytes * copies;
    tokens += n * copies;
  }
};

struct Sample {
  uint64_t order = 0;
  uint32_t document = 0;
  std::string text;
};

struct WrittenDocument {
  uint32_t ordinal = 0;
  uint64_t bytes = 0;
  Hash128 hash;
  size_t tokens_begin = 0, tokens_end = 0;
};
struct WrittenChunk {
  std::string documents, dropped, quarantine;
  std::vector<WrittenDocument> kept;
  std::vector<int32_t> tokens;
  std::vector<std::pair<uint32_t, uint64_t>> gone;  // ordinal, bytes
  std::vector<Sample> samples;                      // candidates
};

class Writer {
 public:
  Writer(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store, const Corpus& corpus,
         BuildResult& result)
      : fs_(fs),
        recipe_(context.recipe()),
        context_(context),
        store_(store),
        corpus_(corpus),
        result_(result) {
    if (!recipe_.tokenizer.empty()) {
      tokenizer_ = std::make_unique<tokenizer::Tokenizer>(tokenizer::Tokenizer::load(recipe_.tokenizer));
      const auto end = tokenizer_->end_of_text();
      if (!end)
        fail(ErrorKind::kUsage, "{}: it has no token that ends a document, such as <|endoftext|>",
             recipe_.tokenizer);
      eod_ = *end;
    }
    result_.version = corpus_version(context_, corpus_, tokenizer_ ? tokenizer_->content_hash() : Hash128{})
                          .hex()
                          .substr(0, 16);
    result_.directory = io::join(recipe_.output, result_.version);
  }

  void run(int threads) {
    if (fs_.exists(result_.directory)) {
      result_.up_to_date = true;
      const auto report =
          Json::parse(io::read_text(fs_, io::join(result_.directory, "report.json")), nullptr, false);
      if (!report.is_object())
        fail(ErrorKind::kData, "{}/report.json is damaged: remove that directory and build again",
             result_.directory);
      result_.documents_out = report.value("documents_out", uint64_t{0});
      result_.text_bytes_out = report.value("text_bytes_out", uint64_t{0});
      result_.tokens = report.value("tokens", uint64_t{0});
      result_.quarantined = report.value("quarantined", uint64_t{0});
      point_latest();
      return;
    }
    fs_.make_dirs(recipe_.output);
    io::AtomicDirectory directory(fs_, result_.directory);
    documents_ = fs_.create(io::join(directory.staging(), "documents.jsonl"));
    dropped_ = fs_.create(io::join(directory.staging(), "dropped.jsonl"));
    quarantine_ = fs_.create(io::join(directory.staging(), "quarantine.jsonl"));
    if (tokenizer_) {
      data::DatasetWriterOptions options;
      const bool wide = tokenizer_->vocab_size() >= data::kUint16VocabularyLimit;
      options.shard_bytes = recipe_.shard_tokens * (wide ? 4 : 2);
      tokens_ = std::make_unique<data::DatasetWriter>(
          fs_, tokens_directory_ = io::join(directory.staging(), "tokens"),
          wide ? data::TokenType::kInt32 : data::TokenType::kUint16, options);
      tokens_->declare_split("train");
      if (recipe_.validation > 0) tokens_->declare_split("held_out");
    }
    sources_.resize(recipe_.sources.size());
    labels_.resize(corpus_.labels.size());
    languages_.resize(corpus_.languages.size());
    reasons_.resize(corpus_.reasons.size());
    samples_.resize(corpus_.reasons.size());
    {
      Progress progress("writing", corpus_.chunks.size(), "chunks");
      size_t next = 0;
      OrderedWork<size_t, WrittenChunk>::run(
          threads,
          [&]() -> std::optional<size_t> {
            return next < corpus_.chunks.size() ? std::optional(next++) : std::nullopt;
          },
          [&](size_t i) { return prepare(corpus_.chunks[i]); },
          [&](WrittenChunk chunk) {
            write(std::move(chunk));
            progress.add(1);
          });
    }
    for (auto* file : {&documents_, &dropped_, &quarantine_}) {
      (*file)->sync();
      (*file)->close();
    }
    if (tokenizer_) finish_tokens();
    const std::string report = report_json().dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
    io::write_file_atomic(fs_, io::join(directory.staging(), "report.json"), report);
    io::write_file_atomic(fs_, io::join(directory.staging(), "report.html"), report_page(report));
    directory.commit();
    point_latest();
  }

 private:
  void point_latest() {
    io::write_file_atomic(fs_, io::join(recipe_.output, "latest"), result_.version + "\n");
  }

  std::string id_of(uint32_t ordinal) const {
    const auto& d = corpus_.documents[ordinal];
    const InputFile& file = *corpus_.files[d.file];
    return fmt::format("{}/{}#{}", recipe_.sources[file.source].name, file.name, d.record);
  }

  std::vector<ChunkDocument> load(Hash128 key) const {
    const auto bytes = store_.get("text", key);
    if (!bytes) throw ArtifactLost{store_.path("text", key)};
    return decode_chunk(*bytes);
  }

  WrittenChunk prepare(const CorpusChunk& chunk) const {
    WrittenChunk out;
    const auto raw = load(chunk.raw);
    const auto changed = chunk.text == chunk.raw ? std::vector<ChunkDocument>() : load(chunk.text);
    const auto& last = changed.empty() ? raw : changed;
    for (uint32_t i = 0; i < chunk.documents; ++i) {
      const auto ordinal = static_cast<uint32_t>(chunk.first + i);
      const auto& d = corpus_.documents[ordinal];
      const InputFile& file = *corpus_.files[d.file];
      if (d.reason == 0) {
        keep(ordinal, d, last[i], file, out);
        continue;
      }
      out.gone.emplace_back(ordinal, raw[i].text.size());
      std::string& to = d.reason == corpus_.quarantine_reason ? out.quarantine : out.dropped;
      to += "{\"id\":";
      append_json_string(to, id_of(ordinal));
      if (!raw[i].name.empty()) {
        to += ",\"name\":";
        append_json_string(to, raw[i].name);
      }
      to += ",\"reason\":";
      append_json_string(to, d.reason == corpus_.quarantine_reason ? raw[i].bad : corpus_.reasons[d.reason]);
      if (d.kept_instead != kNoDocument) {
        to += ",\"matched\":";
        append_json_string(to, id_of(d.matched));
        to += ",\"kept\":";
        append_json_string(to, id_of(d.kept_instead));
        to += fmt::format(",\"similarity\":{:.4f}", d.similarity);
      }
      to += "}\n";
      const std::string& shown = raw[i].bad.empty() ? raw[i].text : raw[i].bad;
      out.samples.push_back({hash64(shown, d.record + 1), ordinal, excerpt(shown)});
    }
    // Three of each reason are enough; the smallest hashes, whatever the chunks.
    std::sort(out.samples.begin(), out.samples.end(), [&](const Sample& a, const Sample& b) {
      const uint32_t x = corpus_.documents[a.document].reason, y = corpus_.documents[b.document].reason;
      return x != y ? x < y : a.order != b.order ? a.order < b.order : a.document < b.document;
    });
    std::map<uint32_t, size_t> seen;
    std::erase_if(out.samples,
                  [&](const Sample& s) { return ++seen[corpus_.documents[s.document].reason] > kSamples; });
    return out;
  }

  void keep(uint32_t ordinal, const CorpusDocument& d, const ChunkDocument& document, const InputFile& file,
            WrittenChunk& out) const {
    WrittenDocument written;
    written.ordinal = ordinal;
    written.bytes = document.text.size();
    written.hash = hash128(document.text);
    std::string& to = out.documents;
    to += "{\"id\":";
    append_json_string(to, id_of(ordinal));
    to += ",\"source\":";
    append_json_string(to, recipe_.sources[file.source].name);
    if (!document.name.empty()) {
      to += ",\"name\":";
      append_json_string(to, document.name);
    }
    if (d.language) {
      to += ",\"language\":";
      append_json_string(to, corpus_.languages[d.language]);
    }
    if (d.labels) {
      to += ",\"labels\":[";
      bool first = true;
      for (size_t l = 0; l < corpus_.labels.size(); ++l)
        if (d.labels >> l & 1) {
          if (!first) to += ',';
          append_json_string(to, corpus_.labels[l]);
          first = false;
        }
      to += ']';
    }
    if (d.copies != 1) to += fmt::format(",\"copies\":{}", d.copies);
    to += ",\"xxh3_128\":\"" + written.hash.hex() + "\",\"text\":";
    append_json_string(to, document.text);
    to += "}\n";
    if (tokenizer_) {
      written.tokens_begin = out.tokens.size();
      tokenizer_->encode_append(document.text, out.tokens);
      out.tokens.push_back(eod_);
      written.tokens_end = out.tokens.size();
    }
    out.kept.push_back(written);
  }

  void write(WrittenChunk chunk) {
    documents_->append(chunk.documents);
    dropped_->append(chunk.dropped);
    quarantine_->append(chunk.quarantine);
    for (const auto& w : chunk.kept) {
      const auto& d = corpus_.documents[w.ordinal];
      const uint64_t tokens = w.tokens_end - w.tokens_begin;
      const auto source = corpus_.files[d.file]->source;
      sources_[source].add(w.bytes, tokens, d.copies);
      languages_[d.language].add(w.bytes, tokens, d.copies);
      for (size_t l = 0; l < labels_.size(); ++l)
        if (d.labels >> l & 1) labels_[l].add(w.bytes, tokens, d.copies);
      result_.documents_out += d.copies;
      result_.text_bytes_out += w.bytes * d.copies;
      result_.tokens += tokens * d.copies;
      if (!tokenizer_) continue;
      const bool held_out = static_cast<double>(w.hash.high >> 11) * 0x1p-53 < recipe_.validation;
      const data::DocumentOrigin origin{w.hash, w.bytes, d.record, d.file};
      for (int copy = 0; copy < d.copies; ++copy) {
        tokens_->add(held_out ? "held_out" : "train", std::span(chunk.tokens).subspan(w.tokens_begin, tokens),
                     origin);
        if (!held_out && recipe_.pack_length) lengths_.push_back(static_cast<uint32_t>(tokens));
      }
    }
    for (const auto& [ordinal, bytes] : chunk.gone) {
      const auto& d = corpus_.documents[ordinal];
      reasons_[d.reason].add(bytes, 0, 1);
      result_.quarantined += d.reason == corpus_.quarantine_reason;
    }
    for (auto& s : chunk.samples) {
      auto& best = samples_[corpus_.documents[s.document].reason];
      best.push_back(std::move(s));
      std::sort(best.begin(), best.end(), [](const Sample& a, const Sample& b) {
        return a.order != b.order ? a.order < b.order : a.document < b.document;
      });
      if (best.size() > kSamples) best.pop_back();
    }
  }

  void finish_tokens() {
    data::Manifest manifest;
    manifest.tokenizer = {tokens_->add_file("tokenizer.json", tokenizer_->to_json()),
                          tokenizer_->vocab_size(), eod_, -1};
    std::string sources;
    for (const InputFile* file : corpus_.files)
      sources += Json{{"source", recipe_.sources[file->source].name},
                      {"name", file->name},
                      {"format", file->format},
                      {"bytes", file->bytes}}
                     .dump(-1, ' ', false, Json::error_handler_t::replace) +
                 "\n";
    manifest.sources = tokens_->add_file("sources.jsonl", sources);
    manifest.source_files = corpus_.files.size();
    Json stages = Json::array();
    for (const auto& stage : recipe_.stages) stages.push_back(stage.full_key());
    manifest.settings = data::canonical_json(
        Json{{"builder", "build"}, {"recipe", recipe_.name}, {"build", result_.version}, {"stages", stages}}
            .dump(-1, ' ', false, Json::error_handler_t::replace),
        "settings");
    tokens_->commit(std::move(manifest));
    if (recipe_.pack_length) write_pack_plan();
  }

  // The plan that the loader reads (data/shard/pack_plan.h), and what both ways of filling rows waste.
  void write_pack_plan() {
    const auto dataset = data::Dataset::open(fs_, tokens_directory_);
    const auto plan = data::build_pack_plan(
        fs_, dataset, "train", data::default_plan_name("train", recipe_.pack_length), recipe_.pack_length);
    const auto plain = data::pack_concatenate(lengths_, static_cast<uint32_t>(recipe_.pack_length));
    packing_ = {
        {"length", recipe_.pack_length},
        {"concatenate",
         {{"rows", plain.rows}, {"padding", plain.padding()}, {"documents_cut", plain.cut_documents}}},
        {"best_fit",
         {{"rows", plan.rows}, {"padding", plan.padding()}, {"documents_cut", plan.documents_cut}}}};
  }

  Json report_json() const {
    Json r{{"format", "stoker-data-report"},
           {"name", recipe_.name},
           {"version", result_.version},
           {"files", result_.files},
           {"left_out", result_.left_out},
           {"documents_in", result_.documents_in},
           {"documents_out", result_.documents_out},
           {"quarantined", result_.quarantined},
           {"text_bytes_in", result_.text_bytes_in},
           {"text_bytes_out", result_.text_bytes_out},
           {"tokens", result_.tokens},
           {"spans_removed", corpus_.spans_removed}};
    Json stages = Json::array();
    for (const auto& stage : recipe_.stages) stages.push_back(std::string(to_string(stage.kind)));
    r["stages"] = stages;
    std::vector<size_t> order;
    for (size_t i = 1; i < reasons_.size(); ++i)
      if (reasons_[i].documents) order.push_back(i);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return reasons_[a].documents != reasons_[b].documents ? reasons_[a].documents > reasons_[b].documents
                                                            : corpus_.reasons[a] < corpus_.reasons[b];
    });
    r["reasons"] = Json::array();
    for (const size_t i : order) {
      Json samples = Json::array();
      for (const auto& s : samples_[i]) {
        Json sample{{"id", id_of(s.document)}, {"text", s.text}};
        if (corpus_.documents[s.document].kept_instead != kNoDocument) {
          sample["matched"] = id_of(corpus_.documents[s.document].matched);
          sample["similarity"] = corpus_.documents[s.document].similarity;
        }
        samples.push_back(std::move(sample));
      }
      r["reasons"].push_back({{"reason", corpus_.reasons[i]},
                              {"documents", reasons_[i].documents},
                              {"bytes", reasons_[i].text_bytes},
                              {"samples", samples}});
    }
    std::vector<uint64_t> in(recipe_.sources.size());
    std::map<std::pair<uint32_t, uint32_t>, uint64_t> pairs;
    for (const auto& d : corpus_.documents) {
      const uint32_t source = corpus_.files[d.file]->source;
      ++in[source];
      if (d.kept_instead != kNoDocument)
        ++pairs[{source, corpus_.files[corpus_.documents[d.kept_instead].file]->source}];
    }
    r["sources"] = Json::array();
    for (size_t s = 0; s < sources_.size(); ++s)
      r["sources"].push_back({{"name", recipe_.sources[s].name},
                              {"documents_in", in[s]},
                              {"documents_out", sources_[s].documents},
                              {"text_bytes_out", sources_[s].text_bytes},
                              {"tokens", sources_[s].tokens}});
    auto counted = [](const std::vector<std::string>& names, const std::vector<Counted>& counts) {
      Json out = Json::array();
      for (size_t i = 0; i < counts.size(); ++i)
        if (counts[i].documents && !names[i].empty())
          out.push_back({{"name", names[i]},
                         {"documents", counts[i].documents},
                         {"text_bytes", counts[i].text_bytes},
                         {"tokens", counts[i].tokens}});
      return out;
    };
    r["labels"] = counted(corpus_.labels, labels_);
    r["languages"] = counted(corpus_.languages, languages_);
    r["duplicates"] = Json::array();
    for (const auto& [pair, count] : pairs)
      r["duplicates"].push_back({{"dropped", recipe_.sources[pair.first].name},
                                 {"kept", recipe_.sources[pair.second].name},
                                 {"documents", count}});
    r["signals"] = Json::array();
    for (const auto& [signal, h] : corpus_.histograms) {
      Json bins = Json::array(), all = Json::array(), dropped = Json::array();
      const bool share = histogram_bin(signal, 1) == 20;
      for (size_t b = 0; b < (share ? 21 : h.all.size()); ++b) {
        bins.push_back(share    ? (b < 20 ? fmt::format("{:.2f}", static_cast<double>(b) / 20) : "1 or more")
                       : b == 0 ? "0"
                                : fmt::format("{}", uint64_t{1} << (b - 1)));
        all.push_back(h.all[b]);
        dropped.push_back(h.dropped[b]);
      }
      r["signals"].push_back(
          {{"signal", std::string(signal_name(signal))}, {"bins", bins}, {"all", all}, {"dropped", dropped}});
    }
    r["packing"] = packing_;
    return r;
  }

  io::FileSystem& fs_;
  const Recipe& recipe_;
  const StageContext& context_;
  const ArtifactStore& store_;
  const Corpus& corpus_;
  BuildResult& result_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  int32_t eod_ = -1;
  std::unique_ptr<data::DatasetWriter> tokens_;
  std::string tokens_directory_;
  std::unique_ptr<io::WritableFile> documents_, dropped_, quarantine_;
  std::vector<Counted> sources_, labels_, languages_, reasons_;
  std::vector<std::vector<Sample>> samples_;
  std::vector<uint32_t> lengths_;
  Json packing_;
};

}  // namespace

int histogram_bin(int signal, float value) {
  switch (signal) {
    case kBytes:
    case kCharacters:
    case kWords:
    case kMeanWordLength:
    case kStopWords:
    case kStopWordCount:
    case kLines:
    case kSentences:
    case kCurlyBraces:
    case kLoremIpsum:
    case kLongestWord:
    case kLongLines:
      return value < 1 ? 0 : std::min(23, 1 + std::ilogb(value));
    default:
      return std::clamp(static_cast<int>(value * 20), 0, 20);
  }
}

Hash128 corpus_version(const StageContext& context, const Corpus& corpus, Hash128 tokenizer) {
  const Recipe& recipe = context.recipe();
  KeyBuilder key("version/1");
  key.add(recipe.name).add(context.inputs_hash()).add(tokenizer);
  key.add(fmt::format("{} {} {}", recipe.validation, recipe.shard_tokens, recipe.pack_length));
  for (const auto& s : recipe.sources)
    key.add(s.name).add(s.label).add(fmt::format("{} {}", s.priority, s.weight));
  for (const auto& stage : recipe.stages) key.add(stage.full_key());
  for (const InputFile* file : corpus.files) key.add(file->name).add(file->format);
  for (const auto& chunk : corpus.chunks) key.add(chunk.raw).add_number(chunk.batch);
  return key.key();
}

void write_corpus(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                  const Corpus& corpus, int threads, BuildResult& result) {
  Writer(fs, context, store, corpus, result).run(threads);
}

}  // namespace stoker::corpus
