#include "data/corpus/build_shards.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"
#include "data/corpus/ordered_work.h"
#include "data/shard/dataset.h"
#include "data/shard/dataset_writer.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/trainer.h"

namespace stoker::corpus {
namespace {
using Json = nlohmann::json;
constexpr size_t kShownBad = 20;
constexpr uint64_t kFreeBad = 10;
constexpr int kBuilderVersion = 1;

struct EncodedDocument {
  size_t begin, end;  // in tokens
  bool held_out;
  data::DocumentOrigin origin;
};
struct Encoded {
  std::vector<int32_t> tokens;
  std::vector<EncodedDocument> documents;
  Opened rest;  // without its documents
};

struct SourceCount {
  Hash128 hash;
  uint64_t documents = 0, bad = 0;
};

class ShardBuilder {
 public:
  ShardBuilder(io::FileSystem& fs, const PrepareOptions& options)
      : fs_(fs),
        options_(options),
        threads_(options.threads ? options.threads : compute_threads()),
        sources_(list_sources(fs, options.inputs, options.format)),
        counts_(sources_.files.size()) {
    // Documents below this hash are held out; 64 bits of hash against parts per million.
    held_out_below_ = static_cast<uint64_t>(static_cast<unsigned __int128>(options.held_out_ppm) *
                                            ~uint64_t{0} / 1'000'000);
    report_.files = sources_.files.size();
    report_.left_out = sources_.left_out;
    report_.stored_bytes = sources_.stored_bytes();
  }

  PrepareReport run() {
    if (options_.held_out_ppm > 1'000'000)
      fail(ErrorKind::kUsage, "held-out fraction: expected 0 to 1, found {}", options_.held_out_ppm / 1e6);
    if (unchanged()) return report_;
    // Claim the target before hours of work, not after.
    const bool given = tokenizer_ || load_tokenizer();
    const bool wide =
        (given ? tokenizer_->vocab_size() : options_.vocabulary) >= data::kUint16VocabularyLimit;
    data::DatasetWriter writer(fs_, options_.out, wide ? data::TokenType::kInt32 : data::TokenType::kUint16,
                               {options_.shard_bytes, options_.replace});
    const tokenizer::Tokenizer tokenizer = given ? std::move(*tokenizer_) : train();
    encode(tokenizer, writer);
    data::Manifest manifest;
    const auto end = tokenizer.end_of_text();
    manifest.tokenizer = {writer.add_file("tokenizer.json", tokenizer.to_json()), tokenizer.vocab_size(),
                          end.value_or(-1), bos_of(tokenizer)};
    manifest.sources = writer.add_file("sources.jsonl", sources_json());
    manifest.source_files = sources_.files.size();
    manifest.settings = settings();
    writer.add_file("quarantine.jsonl", quarantine_);
    writer.add_file("build.json", Json{{"inputs", options_.inputs},
                                       {"made_unix_s", static_cast<int64_t>(system_clock().unix_s())}}
                                          .dump(2, ' ', false, Json::error_handler_t::replace) +
                                      "\n");
    report_.version = writer.commit(std::move(manifest)).hash();
    return report_;
  }

 private:
  // Everything that decides the dataset besides the inputs.
  std::string settings() const {
    Json json{{"builder", "prepare"},
              {"builder_version", kBuilderVersion},
              {"format", options_.format ? std::string(to_string(*options_.format)) : "by name"},
              {"json_field", options_.read.json_field},
              {"tar_member", options_.read.tar_member},
              {"max_document_bytes", options_.read.max_document_bytes},
              {"held_out_ppm", options_.held_out_ppm},
              {"split_seed", options_.split_seed},
              {"shard_bytes", options_.shard_bytes},
              {"bos", options_.bos}};
    if (options_.tokenizer.empty())
      json["train_tokenizer"] = {{"vocabulary", options_.vocabulary},
                                 {"split_pattern", options_.split_pattern}};
    return data::canonical_json(json.dump(), "settings");
  }

  bool load_tokenizer() {
    if (options_.tokenizer.empty()) return false;
    tokenizer_.emplace(tokenizer::Tokenizer::load(options_.tokenizer));
    if (!tokenizer_->end_of_text())
      fail(ErrorKind::kUsage,
           "{}: it has no token that ends a document (such as <|endoftext|>). Add one, or use another "
           "tokenizer",
           options_.tokenizer);
    report_.vocabulary = tokenizer_->vocab_size();
    return true;
  }

  int64_t bos_of(const tokenizer::Tokenizer& tokenizer) const {
    if (options_.bos.empty()) return -1;
    const auto id = tokenizer.token_to_id(options_.bos);
    if (!id) fail(ErrorKind::kUsage, "bos: the tokenizer has no token \"{}\"", options_.bos);
    return *id;
  }

  bool held_out(std::string_view text) const {
    return hash64(text, options_.split_seed) < held_out_below_ || options_.held_out_ppm == 1'000'000;
  }

  // Whether `out` is what this run would make: same settings, tokenizer and inputs, byte for byte.
  bool unchanged() {
    if (!fs_.exists(io::join(options_.out, data::kManifestName))) return false;
    const data::Dataset old = data::Dataset::open(fs_, options_.out);
    if (old.manifest().settings != settings() || old.manifest().source_files != sources_.files.size())
      return false;
    if (!options_.tokenizer.empty() && !load_tokenizer()) return false;
    if (tokenizer_ && hash128(tokenizer_->to_json()) != old.manifest().tokenizer.file.hash) return false;
    const std::string text = io::read_text(fs_, old.path_of(old.manifest().sources), uint64_t{1} << 32);
    std::string_view left = text;
    Progress progress("comparing inputs", sources_.stored_bytes());
    for (const auto& file : sources_.files) {
      const size_t line_end = left.find('\n');
      if (line_end == std::string_view::npos) return false;
      const Json line = Json::parse(left.substr(0, line_end), nullptr, false);
      left.remove_prefix(line_end + 1);
      if (!line.is_object() || line.value("name", "") != printable(file.name) ||
          line.value("input", ~uint64_t{0}) != file.input ||
          line.value("bytes", ~uint64_t{0}) != file.stored_bytes)
        return false;
      if (line.value("xxh3_128", "") != hash_of_file(file.path).hex()) return false;
      progress.add(file.stored_bytes);
    }
    report_.unchanged = true;
    report_.version = old.hash();
    report_.vocabulary = static_cast<int32_t>(old.manifest().tokenizer.vocabulary);
    for (const auto& s : old.manifest().splits)
      report_.documents += s.documents, report_.tokens += s.tokens, report_.text_bytes += s.text_bytes;
    return true;
  }

  Hash128 hash_of_file(const std::string& path) {
    const auto file = fs_.open_read(path, io::Access::kSequential);
    Hasher hasher;
    std::vector<char> buffer(size_t{1} << 20);
    for (uint64_t at = 0; at < file->size();) {
      const auto n = std::min<uint64_t>(buffer.size(), file->size() - at);
      file->read_at(at, buffer.data(), n);
      hasher.update(buffer.data(), n);
      at += n;
    }
    return hasher.digest();
  }

  tokenizer::Tokenizer train() {
    const double began = monotonic_s();
    tokenizer::TrainOptions train_options;
    train_options.vocab_size = options_.vocabulary;
    train_options.split = tokenizer::split_from_name(options_.split_pattern);
    if (!options_.bos.empty()) train_options.special_tokens.push_back(options_.bos);
    tokenizer::BpeTrainer trainer(train_options);
    DocumentReader reader(fs_, sources_.files, options_.read);
    {
      Progress progress("counting words", sources_.stored_bytes());
      OrderedWork<Load, Opened>::run(
          threads_, [&] { return reader.next(); },
          [&](Load load) {
            Opened opened = reader.open(std::move(load));
            for (const auto& d : opened.documents)
              if (!held_out(d.text)) trainer.add(d.text);
            opened.documents.clear();
            return opened;
          },
          [&](Opened opened) {
            progress.add(opened.stored_bytes);
            count_bad(opened, false);
          });
    }
    forget_counts();
    Progress progress("merging pairs", static_cast<uint64_t>(options_.vocabulary), "tokens");
    auto tokenizer = trainer.train([&](int32_t done, int32_t) { progress.set(static_cast<uint64_t>(done)); });
    progress.set(static_cast<uint64_t>(tokenizer.vocab_size()));
    report_.train_s = monotonic_s() - began;
    report_.vocabulary = tokenizer.vocab_size();
    return tokenizer;
  }

  void encode(const tokenizer::Tokenizer& tokenizer, data::DatasetWriter& writer) {
    const double began = monotonic_s();
    const int32_t eod = tokenizer.end_of_text().value_or(-1);
    const auto bos = static_cast<int32_t>(bos_of(tokenizer));
    writer.declare_split(kTrainSplit);
    if (options_.held_out_ppm) writer.declare_split(kHeldOutSplit);
    DocumentReader reader(fs_, sources_.files, options_.read);
    Progress progress("encoding", sources_.stored_bytes());
    OrderedWork<Load, Encoded>::run(
        threads_, [&] { return reader.next(); },
        [&](Load load) {
          Encoded out;
          out.rest = reader.open(std::move(load));
          for (const auto& d : out.rest.documents) {
            const size_t begin = out.tokens.size();
            if (bos >= 0) out.tokens.push_back(bos);
            tokenizer.encode_append(d.text, out.tokens);
            if (eod >= 0) out.tokens.push_back(eod);
            out.documents.push_back({begin,
                                     out.tokens.size(),
                                     held_out(d.text),
                                     {hash128(d.text), d.text.size(), d.record, d.source}});
          }
          out.rest.documents.clear();
          return out;
        },
        [&](Encoded e) {
          for (const auto& d : e.documents) {
            writer.add(d.held_out ? kHeldOutSplit : kTrainSplit,
                       std::span(e.tokens).subspan(d.begin, d.end - d.begin), d.origin);
            ++counts_[d.origin.source].documents;
            ++report_.documents;
            report_.text_bytes += d.origin.text_bytes;
            report_.tokens += d.end - d.begin;
          }
          count_bad(e.rest, true);
          progress.add(e.rest.stored_bytes);
        });
    if (report_.documents == 0)
      fail(ErrorKind::kData, "{} files held no document ({} bad records, {} empty){}", report_.files,
           report_.bad, report_.empty, report_.first_bad.empty() ? "" : ": " + report_.first_bad[0]);
    report_.encode_s = monotonic_s() - began;
  }

  // In the order of the sources, so that which record breaks the budget does not depend on threads.
  void count_bad(const Opened& opened, bool keep) {
    records_ += opened.bad.size() + opened.empty;
    report_.empty += opened.empty;
    for (const auto& d : opened.done) counts_[d.source].hash = d.stored_hash;
    for (const auto& bad : opened.bad) {
      const auto& file = sources_.files[bad.source];
      const bool lines = file.format == SourceFormat::kJsonLines && !bad.whole_file;
      ++report_.bad;
      ++counts_[bad.source].bad;
      if (report_.first_bad.size() < kShownBad)
        report_.first_bad.push_back(bad.whole_file ? bad.reason
                                    : lines ? fmt::format("{}:{}: {}", file.path, bad.record + 1, bad.reason)
                                            : fmt::format("{}: {}", file.path, bad.reason));
      if (keep)
        quarantine_ += Json{{"input", file.input},
                            {"name", printable(file.name)},
                            {"record", bad.record},
                            {"reason", bad.reason}}
                           .dump(-1, ' ', false, Json::error_handler_t::replace) +
                       "\n";
      // The documents that were good so far are not counted while training: there the budget is a fraction of
      // the files' records only once encoding knows them, so only a given number stops it early.
      const uint64_t allowed =
          options_.max_bad.value_or(std::max(kFreeBad, (records_ + report_.documents) / 100));
      if (report_.bad > allowed && (keep || options_.max_bad)) {
        std::string shown;
        for (size_t i = 0; i < std::min<size_t>(3, report_.first_bad.size()); ++i)
          shown += "\n  " + report_.first_bad[i];
        fail(ErrorKind::kData,
             "{} bad records, more than the {} allowed. Mend the input or raise --max-bad. The first ones:{}",
             report_.bad, allowed, shown);
      }
    }
  }

  void forget_counts() {
    report_.bad = report_.empty = records_ = 0;
    report_.first_bad.clear();
    std::fill(counts_.begin(), counts_.end(), SourceCount{});
  }

  static std::string printable(const std::string& name) {  // file names need not be UTF-8
    return Json::parse(Json(name).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
  }

  std::string sources_json() const {
    std::string out;
    for (size_t i = 0; i < sources_.files.size(); ++i) {
      const auto& file = sources_.files[i];
      out += Json{{"input", file.input},
                  {"name", printable(file.name)},
                  {"format", to_string(file.format)},
                  {"bytes", file.stored_bytes},
                  {"xxh3_128", counts_[i].hash.hex()},
                  {"documents", counts_[i].documents},
                  {"bad", counts_[i].bad}}
                 .dump() +
             "\n";
    }
    return out;
  }

  io::FileSystem& fs_;
  const PrepareOptions& options_;
  int threads_;
  SourceList sources_;
  std::vector<SourceCount> counts_;
  uint64_t held_out_below_ = 0, records_ = 0;
  std::string quarantine_;
  std::optional<tokenizer::Tokenizer> tokenizer_;
  PrepareReport report_;
};

}  // namespace

PrepareReport prepare(io::FileSystem& fs, const PrepareOptions& options) {
  return ShardBuilder(fs, options).run();
}

}  // namespace stoker::corpus
