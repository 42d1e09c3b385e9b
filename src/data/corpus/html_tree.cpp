#include "data/corpus/html_tree.h"

#include <gumbo.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdlib>
#include <vector>

#include "data/corpus/ascii.h"

namespace stoker::corpus {

struct HtmlTree::Arena {
  static constexpr size_t kFirstBlock = size_t{64} << 10, kLargestBlock = size_t{4} << 20;
  ~Arena() {
    for (void* block : blocks) std::free(block);
  }
  // Called from C code: leaves by longjmp, never by an exception.
  void* allocate(size_t bytes) {
    const size_t rounded = (bytes + 15) & ~size_t{15};
    if (rounded < bytes || rounded > left) grow(rounded);
    void* out = at;
    at += rounded;
    left -= rounded;
    return out;
  }
  void grow(size_t bytes) {
    const size_t size =
        std::max(bytes, std::min(kLargestBlock, kFirstBlock << std::min<size_t>(blocks.size(), 6)));
    if (size > budget - used || blocks.size() == blocks.capacity()) std::longjmp(out_of_budget, 1);
    void* block = std::malloc(size);
    if (!block) std::longjmp(out_of_budget, 1);
    blocks.push_back(block);
    used += size;
    at = static_cast<char*>(block);
    left = size;
  }
  std::vector<void*> blocks;
  char* at = nullptr;
  size_t left = 0;
  uint64_t used = 0, budget = 0;
  std::jmp_buf out_of_budget;
};

namespace {

uint64_t tag_hash(std::string_view html, size_t& at) {
  uint64_t hash = 1469598103934665603ull;
  for (; at < html.size(); ++at) {
    char c = html[at];
    if (c == '>' || c == '/' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') break;
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  }
  return hash;
}

uint64_t name_hash(std::string_view name) {
  size_t at = 0;
  return tag_hash(name, at);
}

using Names = std::vector<uint64_t>;

Names hashes_of(std::initializer_list<const char*> names) {
  Names out;
  for (const char* name : names) out.push_back(name_hash(name));
  std::sort(out.begin(), out.end());
  return out;
}

bool has(const Names& names, uint64_t hash) { return std::binary_search(names.begin(), names.end(), hash); }

// Void elements and those that HTML closes by itself before another of their kind: left open they do not
// nest.
const Names& self_closing() {
  static const Names names =
      hashes_of({"area", "base",  "br",     "col",   "embed",    "hr",      "img",    "input",    "link",
                 "meta", "param", "source", "track", "wbr",      "p",       "li",     "dd",       "dt",
                 "tr",   "td",    "th",     "thead", "tbody",    "tfoot",   "option", "colgroup", "caption",
                 "html", "head",  "body",   "frame", "basefont", "bgsound", "keygen", "a",        "button",
                 "nobr", "h1",    "h2",     "h3",    "h4",       "h5",      "h6"});
  return names;
}

// Elements whose content is text up to their end tag.
const Names& raw_text() {
  static const Names names =
      hashes_of({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"});
  return names;
}

// From inside a tag to just after its '>'. A quote counts only where a value may start: after '='.
size_t skip_tag(std::string_view html, size_t at, bool& empty_element) {
  char before = 0;
  while (at < html.size()) {
    const char c = html[at++];
    if (c == '>') {
      empty_element = before == '/';
      return at;
    }
    if ((c == '"' || c == '\'') && before == '=') {
      const size_t end = html.find(c, at);
      if (end == std::string_view::npos) return html.size();
      at = end + 1;
    }
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f') before = c;
  }
  return at;
}

}  // namespace

int estimate_nesting(std::string_view html) {
  static const uint64_t svg = name_hash("svg"), math = name_hash("math"), plaintext = name_hash("plaintext");
  // Open counts by a hash of the name, in buckets: a shared bucket can only pair an end tag with the wrong
  // open one, which an author could also write.
  std::array<int, 256> open{};
  int now = 0, deepest = 0, foreign = 0;
  for (size_t at = 0; (at = html.find('<', at)) != std::string_view::npos;) {
    ++at;
    if (html.substr(at, 3) == "!--") {
      const size_t end = html.find("-->", at + 1);
      if (end == std::string_view::npos) break;
      at = end + 3;
      continue;
    }
    const bool closing = at < html.size() && html[at] == '/';
    if (closing) ++at;
    if (at >= html.size() || !ascii_letter(html[at])) continue;
    const size_t name_begin = at;
    const uint64_t hash = tag_hash(html, at);
    const size_t name_size = at - name_begin;
    bool empty_element = false;
    at = skip_tag(html, at, empty_element);
    if (hash == plaintext && !closing) break;
    if (foreign == 0 && has(raw_text(), hash)) {
      if (closing) continue;
      // To the matching end tag; text until then.
      while ((at = html.find("</", at)) != std::string_view::npos) {
        size_t name_at = at + 2;
        if (tag_hash(html, name_at) == hash && name_at - at - 2 == name_size) break;
        at += 2;
      }
      if (at == std::string_view::npos) break;
      continue;
    }
    // Inside SVG and MathML every element nests and "/>" closes.
    if (foreign > 0 ? empty_element : has(self_closing(), hash)) continue;
    int& count = open[(hash ^ (hash >> 32)) & 255];
    if (closing) {
      if (count > 0) --count, --now;
      if (hash == svg || hash == math) foreign = std::max(0, foreign - 1);
    } else {
      ++count;
      deepest = std::max(deepest, ++now);
      if (hash == svg || hash == math) ++foreign;
    }
  }
  return deepest;
}

// A frame without objects that have destructors: longjmp may cross it.
GumboOutput* HtmlTree::parse_in(Arena& arena, std::string_view html) {
  GumboOptions options = kGumboDefaultOptions;
  options.allocator = [](void* in, size_t bytes) { return static_cast<Arena*>(in)->allocate(bytes); };
  options.deallocator = [](void*, void*) {};
  options.userdata = &arena;
  options.max_errors = 0;
  if (setjmp(arena.out_of_budget) != 0) return nullptr;
  return gumbo_parse_with_options(&options, html.data(), html.size());
}

Result<HtmlTree> HtmlTree::parse(std::string_view html, const HtmlLimits& limits) {
  const int nesting = estimate_nesting(html);
  if (nesting > limits.nesting)
    return Error(ErrorKind::kData,
                 fmt::format("HTML nested {} deep: at most {} is parsed", nesting, limits.nesting));
  auto arena = std::make_unique<Arena>();
  arena->budget = limits.arena_bytes;
  arena->blocks.reserve(4096);
  const GumboOutput* output = parse_in(*arena, html);
  if (!output)
    return Error(ErrorKind::kData, fmt::format("HTML of {} bytes needs more than {} bytes of tree",
                                               html.size(), limits.arena_bytes));
  HtmlTree tree(std::move(arena));
  tree.document_ = output->document;
  return tree;
}

HtmlTree::HtmlTree(std::unique_ptr<Arena> arena) : arena_(std::move(arena)) {}
HtmlTree::HtmlTree(HtmlTree&&) noexcept = default;
HtmlTree& HtmlTree::operator=(HtmlTree&&) noexcept = default;
HtmlTree::~HtmlTree() = default;

}  // namespace stoker::corpus
