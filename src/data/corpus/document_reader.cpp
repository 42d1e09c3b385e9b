#include "data/corpus/document_reader.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/progress.h"
#include "data/corpus/compressed_input.h"
#include "data/corpus/member_stream.h"

namespace stoker::corpus {
namespace {
constexpr uint64_t kSmallFile = 256 * 1024;  // read whole by whoever opens the load
constexpr size_t kJsonPadding = 64;          // simdjson may look this far past the end
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// Moves back to the start of a character that a cut at `at` would split.
size_t character_boundary(std::string_view text, size_t at) {
  for (int back = 0;
       back < 3 && at > 0 && at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80; ++back)
    --at;
  return at;
}

std::string too_long(uint64_t bytes, uint64_t most) {
  return fmt::format("a line of {}: expected at most {} (--max-document)",
                     human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(most)));
}

class LineParser {
 public:
  explicit LineParser(std::string field) : field_(std::move(field)) {}
  // Nothing on success; otherwise why not. `line` has kJsonPadding readable bytes behind it.
  std::string parse(std::string_view line, std::string& text) {
    simdjson::dom::element root;
    if (const auto error = parser_.parse(line.data(), line.size(), false).get(root); error) {
      if (error == simdjson::UTF8_ERROR)
        return fmt::format("byte {} of the line is not UTF-8", find_invalid_utf8(line));
      return fmt::format("no JSON: {}", simdjson::error_message(error));
    }
    simdjson::dom::element value;
    const auto error =
        field_.starts_with('/') ? root.at_pointer(field_).get(value) : root.at_key(field_).get(value);
    if (error == simdjson::INCORRECT_TYPE) return "expected a JSON object";
    if (error) return fmt::format("no field \"{}\"", field_);
    std::string_view found;
    if (value.get(found)) return fmt::format("field \"{}\" is not a string", field_);
    text = found;
    return "";
  }

 private:
  std::string field_;
  simdjson::dom::parser parser_;
};

}  // namespace

size_t find_invalid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const auto b = static_cast<uint8_t>(s[i]);
    if (b < 0x80) {
      ++i;
      continue;
    }
    const size_t n = b >= 0xF0 && b <= 0xF4 ? 4 : b >= 0xE0 && b < 0xF0 ? 3 : b >= 0xC2 && b < 0xE0 ? 2 : 0;
    if (n == 0 || i + n > s.size()) return i;
    const auto second = static_cast<uint8_t>(s[i + 1]);
    const uint8_t low = b == 0xE0   ? 0xA0
                        : b == 0xF0 ? 0x90
                                    : 0x80,
                  high = b == 0xED   ? 0x9F
                         : b == 0xF4 ? 0x8F
                                     : 0xBF;
    if (second < low || second > high) return i;
    for (size_t k = 2; k < n; ++k)
      if ((static_cast<uint8_t>(s[i + k]) & 0xC0) != 0x80) return i;
    i += n;
  }
  return std::string_view::npos;
}

// One file being read piece by piece: whole lines, or documents of at most max_document_bytes.
struct DocumentReader::Streaming {
  Streaming(io::FileSystem& fs, const SourceFile& file, uint32_t source_number,
            const ReadOptions& read_options)
      : source(source_number),
        lines(file.format == SourceFormat::kJsonLines),
        path(file.path),
        options(read_options) {
    try {
      input.emplace(fs, file.path);
      auto read = [this](char* to, size_t n) { return input->read(to, n); };
      if (file.format == SourceFormat::kTar)
        members = open_tar(read, options.tar_member, options.max_document_bytes);
      if (file.format == SourceFormat::kMds)
        members = open_mds(read, options.json_field, options.max_document_bytes);
    } catch (const Error& e) {
      give_up(e);
    }
  }

  void give_up(const Error& e) {
    if (e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kUsage) throw;  // the disk, not the file
    const std::string_view what = e.what();
    const bool named = what.find(path) != std::string_view::npos;
    trouble.push_back({source, record, true, named ? std::string(what) : fmt::format("{}: {}", path, what)});
    ended = true;
    held.clear();
  }

  // Until `held` has `want` bytes or the file ends.
  void fill(size_t want) {
    want = std::max<size_t>(want, 16);  // a byte order mark comes in one piece
    while (held.size() < want && !ended) {
      const size_t at = held.size(), n = std::min<size_t>(want - at, size_t{64} << 10);
      held.resize(at + n);
      try {
        const size_t got = input->read(held.data() + at, n);
        held.resize(at + got);
        if (got == 0) ended = true;
        if (at == 0 && first && held.starts_with(kByteOrderMark)) held.erase(0, kByteOrderMark.size());
        first = first && got == 0;
      } catch (const Error& e) {
        if (lines) held.resize(at);
        give_up_keeping_lines(e, at);
      }
    }
  }
  void give_up_keeping_lines(const Error& e, size_t valid) {
    // Complete lines that came before the damage are good records.
    const size_t newline = lines ? std::string_view(held).substr(0, valid).rfind('\n') : std::string::npos;
    std::string good = newline == std::string::npos ? std::string() : held.substr(0, newline + 1);
    give_up(e);
    held = std::move(good);
  }

  // The next piece and its first record; false at the end.
  bool next(std::string& piece, uint64_t& first_record) {
    return members ? next_member(piece, first_record)
           : lines ? next_lines(piece, first_record)
                   : next_text(piece, first_record);
  }

  // A document of a tar or MDS shard; an empty piece for one without a byte.
  bool next_member(std::string& piece, uint64_t& first_record) {
    try {
      Member member;
      while (!ended && members->next(member)) {
        record = member.number + 1;
        if (member.too_long) {
          trouble.push_back(
              {source, member.number, false, too_long(member.too_long, options.max_document_bytes)});
          continue;
        }
        first_record = member.number;
        piece = std::move(member.bytes);
        return true;
      }
      ended = true;
    } catch (const Error& e) {
      give_up(e);
    }
    return false;
  }

  bool next_text(std::string& piece, uint64_t& first_record) {
    const size_t most = options.max_document_bytes;
    fill(most + 4);
    if (held.empty()) return false;
    size_t cut = held.size();
    if (cut > most) {
      const size_t newline = std::string_view(held).substr(0, most).rfind('\n');
      cut = newline == std::string_view::npos ? character_boundary(held, most) : newline + 1;
    }
    first_record = record++;
    take(cut, piece);
    return true;
  }

  bool next_lines(std::string& piece, uint64_t& first_record) {
    for (;;) {
      size_t want = options.load_bytes;
      size_t newline;
      for (;;) {  // at least one whole line
        fill(want);
        newline = held.rfind('\n');
        if (newline != std::string::npos || ended || held.size() > options.max_document_bytes) break;
        want = std::max<size_t>(want, held.size()) + options.load_bytes;
      }
      if (held.empty()) return false;
      if (newline == std::string::npos && held.size() > options.max_document_bytes) {
        skip_long_line();
        continue;
      }
      const size_t cut = newline == std::string::npos ? held.size() : newline + 1;
      first_record = record;
      record += static_cast<uint64_t>(
                    std::count(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(cut), '\n')) +
                (newline == std::string::npos ? 1 : 0);
      take(cut, piece);
      return true;
    }
  }

  void skip_long_line() {
    uint64_t length = 0;
    size_t newline;
    while ((newline = held.find('\n')) == std::string::npos) {
      length += held.size();
      held.clear();
      if (ended) break;
      fill(size_t{1} << 20);
    }
    const bool terminated = newline != std::string::npos;
    if (terminated) {
      length += newline;
      held.erase(0, newline + 1);
    }
    trouble.push_back({source, record++, false, too_long(length, options.max_document_bytes)});
  }

  void take(size_t cut, std::string& piece) {
    if (cut == held.size()) {
      piece = std::move(held);
      held.clear();
    } else {
      piece.assign(held, 0, cut);
      held.erase(0, cut);
    }
  }

  SourceDone done() { return {source, input ? input->stored_hash() : hash128("")}; }
  uint64_t stored_done() const { return input ? input->stored_done() : 0; }

  uint32_t source;
  bool lines;
  std::string path;
  const ReadOptions& options;
  std::optional<CompressedInput> input;
  std::unique_ptr<MemberStream> members;
  std::string held;
  uint64_t record = 0;
  bool ended = false, first = true;
  uint64_t reported = 0;  // stored bytes that earlier loads told of
  std::vector<BadRecord> trouble;
};

namespace {
void open_text(uint32_t source, uint64_t record, std::string piece, Opened& out) {
  if (piece.empty()) {
    ++out.empty;
  } else if (!simdjson::validate_utf8(piece.data(), piece.size())) {
    out.bad.push_back({source, record, false, fmt::format("byte {} is not UTF-8", find_invalid_utf8(piece))});
  } else {
    out.documents.push_back({source, record, std::move(piece)});
  }
}

void open_lines(uint32_t source, uint64_t record, std::string piece, uint64_t most, LineParser& parser,
                Opened& out) {
  const size_t size = piece.size();
  piece.append(kJsonPadding, '\0');
  for (size_t at = 0; at < size; ++record) {
    size_t end = piece.find('\n', at);
    if (end == std::string::npos || end > size) end = size;
    const std::string_view line(piece.data() + at, end - at);
    at = end + 1;
    if (blank(line)) continue;
    if (line.size() > most) {
      out.bad.push_back({source, record, false, too_long(line.size(), most)});
      continue;
    }
    Document document{source, record, {}};
    if (std::string reason = parser.parse(line, document.text); !reason.empty())
      out.bad.push_back({source, record, false, std::move(reason)});
    else if (document.text.empty()) ++out.empty;
    else out.documents.push_back(std::move(document));
  }
}
}  // namespace

DocumentReader::DocumentReader(io::FileSystem& fs, const std::vector<SourceFile>& sources,
                               ReadOptions options)
    : fs_(fs), sources_(sources), options_(std::move(options)) {}
DocumentReader::~DocumentReader() = default;

std::optional<Load> DocumentReader::next() {
  Load load;
  load.number = next_number_;
  uint64_t gathered = 0;
  while (!streaming_ && next_source_ < sources_.size()) {
    const SourceFile& file = sources_[next_source_];
    if (file.stored_bytes > kSmallFile) {
      if (!load.files.empty()) break;
      streaming_ = std::make_unique<Streaming>(fs_, file, next_source_, options_);
    } else {
      if (!load.files.empty() && (gathered >= options_.load_bytes / 4 || load.files.size() >= 4096)) break;
      load.files.push_back(next_source_);
      gathered += file.stored_bytes;
    }
    ++next_source_;
  }
  if (load.files.empty()) {
    if (!streaming_) return std::nullopt;
    Streaming& s = *streaming_;
    load.source = s.source;
    if (s.members) {
      uint64_t gathered_bytes = 0, record = 0;
      std::string piece;
      while (gathered_bytes < options_.load_bytes && load.members.size() < 65536 && s.next(piece, record)) {
        gathered_bytes += piece.size();
        load.members.emplace_back(record, std::move(piece));
      }
    } else {
      s.next(load.bytes, load.first_record);
    }
    const bool last = s.ended && s.held.empty();
    load.read.bad = std::move(s.trouble);
    s.trouble.clear();
    if (last) load.read.done.push_back(s.done());
    load.read.stored_bytes = s.stored_done() - s.reported;
    s.reported = s.stored_done();
    if (last) streaming_.reset();
  }
  ++next_number_;
  return load;
}

Opened DocumentReader::open(Load load) const {
  Opened out = std::move(load.read);
  LineParser parser(options_.json_field);
  auto open_piece = [&](uint32_t source, uint64_t record, std::string piece) {
    const SourceFormat format = sources_[source].format;
    if (format == SourceFormat::kTar && options_.tar_member == "json") {
      std::replace(piece.begin(), piece.end(), '\n',
                   ' ');  // one record; in JSON a line end is only white space
      if (piece.empty()) ++out.empty;
      else open_lines(source, record, std::move(piece), options_.max_document_bytes, parser, out);
    } else if (format == SourceFormat::kJsonLines)
      open_lines(source, record, std::move(piece), options_.max_document_bytes, parser, out);
    else open_text(source, record, std::move(piece), out);
  };
  if (load.files.empty()) {
    for (auto& [record, piece] : load.members) open_piece(load.source, record, std::move(piece));
    if (!load.bytes.empty()) open_piece(load.source, load.first_record, std::move(load.bytes));
    return out;
  }
  for (const uint32_t source : load.files) {
    Streaming s(fs_, sources_[source], source, options_);
    std::string piece;
    uint64_t record = 0;
    bool any = false;
    while (s.next(piece, record)) {
      any = true;
      open_piece(source, record, std::move(piece));
    }
    if (!any && s.trouble.empty() && !s.members) ++out.empty;
    out.done.push_back(s.done());
    out.stored_bytes += s.stored_done();
    for (auto& bad : s.trouble) out.bad.push_back(std::move(bad));
  }
  return out;
}

}  // namespace stoker::corpus
