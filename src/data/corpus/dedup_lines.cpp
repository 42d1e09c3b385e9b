#include "data/corpus/dedup_lines.h"

#include <algorithm>

#include "data/corpus/ascii.h"

namespace stoker::corpus {
namespace {

int code_points(std::string_view s) {
  return static_cast<int>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Calls each(begin, end, end with its terminator).
template <typename Each>
void walk_spans(std::string_view text, SpanKind kind, Each&& each) {
  size_t paragraph = std::string_view::npos, paragraph_end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t newline = text.find('\n', at);
    const size_t end = newline == std::string_view::npos ? text.size() : newline;
    const size_t next = newline == std::string_view::npos ? text.size() : newline + 1;
    if (kind == SpanKind::kLine) {
      each(at, end, next);
    } else if (!ascii_trimmed(text.substr(at, end - at)).empty()) {
      if (paragraph == std::string_view::npos) paragraph = at;
      paragraph_end = end;
    } else if (paragraph != std::string_view::npos) {
      each(paragraph, paragraph_end, next);  // the blank line goes with its paragraph
      paragraph = std::string_view::npos;
    }
    at = next;
  }
  if (paragraph != std::string_view::npos) each(paragraph, paragraph_end, text.size());
}

}  // namespace

std::vector<Span> split_spans(std::string_view text, SpanKind kind) {
  std::vector<Span> spans;
  walk_spans(text, kind, [&](size_t begin, size_t end, size_t) { spans.push_back({begin, end}); });
  return spans;
}

std::string remove_spans(std::string_view text, SpanKind kind, std::span<const uint32_t> drop) {
  std::string out;
  out.reserve(text.size());
  size_t copied = 0;
  uint32_t index = 0;
  size_t next_drop = 0;
  walk_spans(text, kind, [&](size_t begin, size_t, size_t after) {
    if (next_drop < drop.size() && drop[next_drop] == index) {
      out.append(text.substr(copied, begin - copied));
      copied = after;
      ++next_drop;
    }
    ++index;
  });
  out.append(text.substr(copied));
  return out;
}

LineDeduplicator::LineDeduplicator(LineDedupOptions options)
    : options_(std::move(options)), documents_(options_.spill.directory), spans_(options_.spill) {}

void LineDeduplicator::add(const DocumentKey& key, std::string_view text) {
  const auto document = static_cast<uint32_t>(documents_.size());
  documents_.push_back(key);
  uint32_t index = 0;
  walk_spans(text, options_.kind, [&](size_t begin, size_t end, size_t) {
    const std::string_view span = ascii_trimmed(text.substr(begin, end - begin));
    if (code_points(span) >= options_.min_characters) {
      const uint64_t hash = hash64(span);
      spans_.add({hash, document, index}, hash >> 58);
    }
    ++index;
  });
}

void LineDeduplicator::finish(const std::function<void(uint32_t, std::span<const uint32_t>)>& each) {
  SpillTable<Drop> drops(options_.spill);
  const size_t documents = std::max<size_t>(1, documents_.size());
  auto partition_of = [&](uint32_t document) {
    return static_cast<size_t>(document) * SpillTable<Drop>::kPartitions / documents;
  };
  documents_.read_at_random();
  auto before = [&](const Record& a, const Record& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    if (a.document != b.document) {
      const auto &x = documents_[a.document], &y = documents_[b.document];
      if (stays_before(x, y)) return true;
      if (stays_before(y, x)) return false;
      return a.document < b.document;
    }
    return a.span < b.span;
  };
  spans_.for_each_partition(
      [](const Record& r, uint64_t slices) { return (r.hash & 0xFFFFFFFF) % slices; },
      [&](std::vector<Record>& records) {
        std::sort(records.begin(), records.end(), before);
        for (size_t i = 0, j; i < records.size(); i = j) {
          int holders = 1;
          for (j = i + 1; j < records.size() && records[j].hash == records[i].hash; ++j)
            holders += records[j].document != records[j - 1].document;
          // Repeats inside one document count as one holder; they go only when the span is common enough.
          if (holders < options_.min_documents) continue;
          for (size_t k = i + 1; k < j; ++k)
            drops.add({records[k].document, records[k].span}, partition_of(records[k].document));
        }
      });
  std::vector<uint32_t> dropped;
  // Partitions and slices follow the documents' order, and so does what is told.
  auto slice_of = [&](const Drop& d, uint64_t slices) {
    return d.document * SpillTable<Drop>::kPartitions % documents * slices / documents;
  };
  drops.for_each_partition(slice_of, [&](std::vector<Drop>& records) {
    std::sort(records.begin(), records.end(), [](const Drop& a, const Drop& b) {
      return a.document != b.document ? a.document < b.document : a.span < b.span;
    });
    for (size_t i = 0, j; i < records.size(); i = j) {
      dropped.clear();
      for (j = i; j < records.size() && records[j].document == records[i].document; ++j)
        dropped.push_back(records[j].span);
      each(records[i].document, dropped);
    }
  });
}

}  // namespace stoker::corpus
