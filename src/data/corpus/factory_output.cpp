#include "data/corpus/factory_output.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "data/corpus/factory_report.h"
#include "data/corpus/factory_tally.h"
#include "data/corpus/ordered_work.h"
#include "data/shard/best_fit.h"
#include "data/shard/dataset_writer.h"
#include "data/shard/pack_plan.h"
#include "data/tokenizer/tokenizer.h"
#include "io/atomic_write.h"

namespace stoker::corpus {
namespace {

using OrderedJson = nlohmann::ordered_json;

// UTF-8 as a JSON string.
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

std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const Recipe& recipe) {
  auto out = std::make_unique<tokenizer::Tokenizer>(tokenizer::Tokenizer::load(recipe.tokenizer));
  if (!out->end_of_text())
    fail(ErrorKind::kUsage, "{}: it has no token that ends a document, such as <|endoftext|>",
         recipe.tokenizer);
  return out;
}

class FactoryWriter {
 public:
  FactoryWriter(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                const Corpus& corpus, BuildResult& result)
      : fs_(fs),
        recipe_(context.recipe()),
        context_(context),
        store_(store),
        corpus_(corpus),
        result_(result),
        tally_(recipe_, corpus),
        concatenated_(recipe_.pack_length) {
    if (!recipe_.tokenizer.empty()) {
      tokenizer_ = load_tokenizer(recipe_);
      eod_ = *tokenizer_->end_of_text();
    }
    result_.version = corpus_version(context_, corpus_, tokenizer_ ? tokenizer_->content_hash() : Hash128{})
                          .hex()
                          .substr(0, 16);
    result_.directory = io::join(recipe_.output, result_.version);
  }

  void run(int threads) {
    // Nothing else of the build that is bounded by memory_bytes is there any more.
    if (tokenizer_) tokenizer_->limit_memory(recipe_.memory_bytes / static_cast<size_t>(threads));
    if (fs_.exists(result_.directory)) {
      result_.up_to_date = true;
      const auto report =
          OrderedJson::parse(io::read_text(fs_, io::join(result_.directory, "report.json")), nullptr, false);
      if (!report.is_object())
        fail(ErrorKind::kData, "{}/report.json is damaged: remove that directory and build again",
             result_.directory);
      result_.documents_out = report.value("documents_out", uint64_t{0});
      result_.text_bytes_out = report.value("text_bytes_out", uint64_t{0});
      result_.tokens = report.value("tokens", uint64_t{0});
      result_.quarantined = report.value("quarantined", uint64_t{0});
      take_reasons(report);
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
    {
      Progress progress("writing", corpus_.chunks.size(), "chunks");
      for_each_in_order<WrittenChunk>(
          threads, corpus_.chunks.size(), [&](size_t i) { return prepare(corpus_.chunks[i]); },
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
    OrderedJson counts = tally_.report(result_);
    counts["packing"] = packing_;
    take_reasons(counts);
    const std::string report = counts.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
    io::write_file_atomic(fs_, io::join(directory.staging(), "report.json"), report);
    io::write_file_atomic(fs_, io::join(directory.staging(), "report.html"), report_page(report));
    try {
      directory.commit();
    } catch (const Error&) {
      // Another build of the same inputs and recipe may have been faster: what it wrote are the same bytes.
      if (!fs_.exists(io::join(result_.directory, "report.json"))) throw;
    }
    point_latest();
  }

 private:
  void take_reasons(const OrderedJson& report) {
    for (const auto& r : report.value("reasons", OrderedJson::array()))
      result_.reasons.push_back({r.value("reason", std::string()), r.value("documents", uint64_t{0})});
  }

  void point_latest() {
    io::write_file_atomic(fs_, io::join(recipe_.output, "latest"), result_.version + "\n");
  }

  std::string id_of(uint32_t ordinal) const { return document_id(recipe_, corpus_, ordinal); }

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
      out.samples.push_back(tally_.sample(ordinal, shown));
    }
    tally_.keep_candidates(out.samples);
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
      tally_.kept(w.ordinal, w.bytes, tokens);
      result_.documents_out += d.copies;
      result_.text_bytes_out += w.bytes * d.copies;
      result_.tokens += tokens * d.copies;
      if (!tokenizer_) continue;
      const bool held_out = static_cast<double>(w.hash.high >> 11) * 0x1p-53 < recipe_.validation;
      const data::DocumentOrigin origin{w.hash, w.bytes, d.record, d.file};
      for (int copy = 0; copy < d.copies; ++copy) {
        tokens_->add(held_out ? "held_out" : "train", std::span(chunk.tokens).subspan(w.tokens_begin, tokens),
                     origin);
        if (!held_out && recipe_.pack_length) concatenated_.add(tokens);
      }
    }
    for (const auto& [ordinal, bytes] : chunk.gone) {
      tally_.dropped(ordinal, bytes);
      result_.quarantined += corpus_.documents[ordinal].reason == corpus_.quarantine_reason;
    }
    tally_.add_samples(std::move(chunk.samples));
  }

  void finish_tokens() {
    data::Manifest manifest;
    manifest.tokenizer = {tokens_->add_file("tokenizer.json", tokenizer_->to_json()),
                          tokenizer_->vocab_size(), eod_, -1};
    std::string sources;
    for (const InputFile* file : corpus_.files)
      sources += OrderedJson{{"source", recipe_.sources[file->source].name},
                             {"name", file->name},
                             {"format", file->format},
                             {"bytes", file->bytes}}
                     .dump(-1, ' ', false, OrderedJson::error_handler_t::replace) +
                 "\n";
    manifest.sources = tokens_->add_file("sources.jsonl", sources);
    manifest.source_files = corpus_.files.size();
    OrderedJson stages = OrderedJson::array();
    for (const auto& stage : recipe_.stages) stages.push_back(OrderedJson::parse(stage.settings()));
    manifest.settings = data::canonical_json(
        OrderedJson{
            {"builder", "build"}, {"recipe", recipe_.name}, {"build", result_.version}, {"stages", stages}}
            .dump(-1, ' ', false, OrderedJson::error_handler_t::replace),
        "settings");
    tokens_->commit(std::move(manifest));
    if (recipe_.pack_length) write_pack_plan();
  }

  // The plan that the loader reads (data/shard/pack_plan.h), and what both ways of filling rows waste.
  void write_pack_plan() {
    const auto dataset = data::Dataset::open(fs_, tokens_directory_);
    const auto plan = data::build_pack_plan(
        fs_, dataset, "train", data::default_plan_name("train", recipe_.pack_length), recipe_.pack_length);
    packing_ = {{"length", recipe_.pack_length},
                {"concatenate",
                 {{"rows", concatenated_.rows()},
                  {"padding", concatenated_.padding()},
                  {"documents_cut", concatenated_.cut_documents()}}},
                {"best_fit",
                 {{"rows", plan.rows}, {"padding", plan.padding()}, {"documents_cut", plan.documents_cut}}}};
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
  CorpusTally tally_;
  data::ConcatenatedRows concatenated_;
  OrderedJson packing_;
};

}  // namespace

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

void check_output(const Recipe& recipe) {
  if (!recipe.tokenizer.empty()) load_tokenizer(recipe);
}

void write_corpus(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                  const Corpus& corpus, int threads, BuildResult& result) {
  FactoryWriter(fs, context, store, corpus, result).run(threads);
}

}  // namespace stoker::corpus
