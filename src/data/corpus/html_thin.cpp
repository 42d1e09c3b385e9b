#include "data/corpus/html_thin.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "data/corpus/ascii.h"

namespace stoker::corpus {
namespace {

// As HTML has it: a vertical tab is none.
bool is_html_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }

bool contains_lower(std::string_view text, std::string_view word) {
  return std::search(text.begin(), text.end(), word.begin(), word.end(),
                     [](char a, char b) { return ascii_lower(a) == b; }) != text.end();
}

enum class Treatment : uint8_t {
  kKeep,      // with the attributes that matter
  kDrop,      // void, and no text
  kInline,    // gone when it has no attribute that matters, with its end tag
  kEmpty,     // content is dropped up to the end tag
  kGone,      // the whole element is dropped
  kRaw,       // content is kept as it is up to the end tag
  kVerbatim,  // other rules hold inside
  kRest       // everything behind it is text
};

struct Element {
  std::string_view name;
  Treatment treatment;
};

constexpr size_t kKnown = 46;
// By name. Inline: all that html_extract treats as inline, but links.
constexpr std::array<Element, kKnown> kElements = {
    {{"abbr", Treatment::kInline},   {"acronym", Treatment::kInline}, {"b", Treatment::kInline},
     {"bdi", Treatment::kInline},    {"bdo", Treatment::kInline},     {"big", Treatment::kInline},
     {"cite", Treatment::kInline},   {"code", Treatment::kInline},    {"data", Treatment::kInline},
     {"del", Treatment::kInline},    {"dfn", Treatment::kInline},     {"em", Treatment::kInline},
     {"font", Treatment::kInline},   {"i", Treatment::kInline},       {"iframe", Treatment::kEmpty},
     {"img", Treatment::kDrop},      {"ins", Treatment::kInline},     {"kbd", Treatment::kInline},
     {"label", Treatment::kInline},  {"link", Treatment::kDrop},      {"mark", Treatment::kInline},
     {"math", Treatment::kVerbatim}, {"meta", Treatment::kDrop},      {"noembed", Treatment::kRaw},
     {"noframes", Treatment::kRaw},  {"plaintext", Treatment::kRest}, {"q", Treatment::kInline},
     {"s", Treatment::kInline},      {"samp", Treatment::kInline},    {"script", Treatment::kGone},
     {"small", Treatment::kInline},  {"span", Treatment::kInline},    {"strike", Treatment::kInline},
     {"strong", Treatment::kInline}, {"style", Treatment::kGone},     {"sub", Treatment::kInline},
     {"sup", Treatment::kInline},    {"svg", Treatment::kVerbatim},   {"textarea", Treatment::kEmpty},
     {"time", Treatment::kInline},   {"title", Treatment::kRaw},      {"tt", Treatment::kInline},
     {"u", Treatment::kInline},      {"var", Treatment::kInline},     {"wbr", Treatment::kDrop},
     {"xmp", Treatment::kRaw}}};
constexpr size_t kLongestName = 9;

// Index into kElements, or -1.
int find_element(std::string_view name) {
  if (name.size() > kLongestName) return -1;
  char small[kLongestName];
  for (size_t i = 0; i < name.size(); ++i) small[i] = ascii_lower(name[i]);
  const std::string_view word(small, name.size());
  const auto* const end = kElements.data() + kKnown;
  const auto* at = std::lower_bound(kElements.data(), end, word,
                                    [](const Element& e, std::string_view w) { return e.name < w; });
  return at != end && at->name == word ? static_cast<int>(at - kElements.data()) : -1;
}

// Words in class and id names that mark what surrounds the content. Compared as whole words: "navbar" and
// "t-navbar" match navbar, "navigate" does not.
bool is_boilerplate_word(std::string_view word) {
  static constexpr std::array<std::string_view, 54> kWords = {
      "ad",          "ads",        "adsense",    "advert",     "advertisement", "banner",     "breadcrumb",
      "breadcrumbs", "catlinks",   "consent",    "cookie",     "cookies",       "copyright",  "disqus",
      "editsection", "footer",     "gdpr",       "headerlink", "jump",          "jumptonav",  "masthead",
      "mbox",        "menu",       "menubar",    "metadata",   "modal",         "nav",        "navbar",
      "navbox",      "navigation", "newsletter", "noprint",    "pager",         "pagination", "popup",
      "printfooter", "promo",      "related",    "rightlink",  "screenreader",  "share",      "sharing",
      "sidebar",     "sitenav",    "skip",       "social",     "sphinxsidebar", "sponsor",    "subscribe",
      "toc",         "toctree",    "toolbar",    "topnav",     "widget"};
  static_assert(std::is_sorted(kWords.begin(), kWords.end()));
  if (word.size() < 2 || word.size() > 13) return false;
  return std::binary_search(kWords.begin(), kWords.end(), word);
}

class Thinner {
 public:
  explicit Thinner(std::string_view html) : html_(html) { out_.reserve(html.size()); }

  std::string run() {
    while (at_ < html_.size()) {
      const size_t tag = std::min(html_.find('<', at_), html_.size());
      text(html_.substr(at_, tag - at_));
      at_ = tag;
      if (at_ < html_.size()) markup();
    }
    return std::move(out_);
  }

 private:
  char peek(size_t ahead) const { return at_ + ahead < html_.size() ? html_[at_ + ahead] : '\0'; }

  // Runs of blanks mean one outside <pre>.
  void text(std::string_view run) {
    // The parser drops a line end that follows <pre>: one that only follows what was dropped is kept by doubling it.
    if (out_.size() == pre_end_ && at_ != pre_source_ && run.starts_with('\n')) out_ += '\n';
    if (preformatted_ > 0) {
      out_.append(run);
      return;
    }
    for (size_t at = 0; at < run.size();) {
      size_t end = at;
      while (end < run.size() &&
             !(is_html_blank(run[end]) && end + 1 < run.size() && is_html_blank(run[end + 1])))
        ++end;
      if (end < run.size()) ++end;
      out_.append(run, at, end - at);
      while (end < run.size() && end > at && is_html_blank(run[end - 1]) && is_html_blank(run[end])) ++end;
      at = end;
    }
  }

  void markup() {
    const char next = peek(1);
    if (ascii_letter(next)) return start_tag();
    if (next == '/') {
      if (ascii_letter(peek(2))) return end_tag();
      if (at_ + 2 >= html_.size()) return rest();
      return skip_past('>');
    }
    if (next == '!') {
      if (html_.substr(at_, 4) == "<!--") return comment();
      if (ascii_lower(peek(2)) == 'd') {  // the doctype decides how tables nest in paragraphs
        const size_t end = std::min(html_.find('>', at_), html_.size() - 1) + 1;
        out_.append(html_, at_, end - at_);
        at_ = end;
        return;
      }
      return skip_past('>');
    }
    if (next == '?') return skip_past('>');
    out_ += '<';
    ++at_;
  }

  void rest() {
    out_.append(html_, at_);
    at_ = html_.size();
  }

  void skip_past(char c) {
    const size_t end = html_.find(c, at_);
    at_ = end == std::string_view::npos ? html_.size() : end + 1;
  }

  void comment() {
    at_ += 4;
    if (peek(0) == '>') return void(++at_);
    if (peek(0) == '-' && peek(1) == '>') return void(at_ += 2);
    for (size_t from = at_;; ++from) {
      from = html_.find("--", from);
      if (from == std::string_view::npos) return void(at_ = html_.size());
      const std::string_view behind = html_.substr(from + 2);
      if (behind.starts_with('>')) return void(at_ = from + 3);
      if (behind.starts_with("!>")) return void(at_ = from + 4);
    }
  }

  std::string_view take_name() {
    const size_t begin = at_;
    while (at_ < html_.size() && !is_html_blank(html_[at_]) && html_[at_] != '>' && html_[at_] != '/') ++at_;
    return html_.substr(begin, at_ - begin);
  }

  // From behind a tag's name to behind its '>'; false when the page ends first. Attributes go to each(name, value, both).
  template <typename Each>
  bool attributes(Each&& each) {
    for (;;) {
      while (at_ < html_.size() && (is_html_blank(html_[at_]) || html_[at_] == '/')) ++at_;
      if (at_ >= html_.size()) return false;
      if (html_[at_] == '>') {
        ++at_;
        return true;
      }
      const size_t begin = at_++;
      while (at_ < html_.size() && !is_html_blank(html_[at_]) && html_[at_] != '/' && html_[at_] != '>' &&
             html_[at_] != '=')
        ++at_;
      const std::string_view name = html_.substr(begin, at_ - begin);
      size_t equals = at_;
      while (equals < html_.size() && is_html_blank(html_[equals])) ++equals;
      if (equals >= html_.size() || html_[equals] != '=') {
        each(name, std::string_view(), name);
        continue;
      }
      at_ = equals + 1;
      while (at_ < html_.size() && is_html_blank(html_[at_])) ++at_;
      if (at_ >= html_.size()) return false;
      const char quote = html_[at_];
      std::string_view value;
      if (quote == '"' || quote == '\'') {
        const size_t end = html_.find(quote, at_ + 1);
        if (end == std::string_view::npos) {
          at_ = html_.size();
          return false;
        }
        value = html_.substr(at_ + 1, end - at_ - 1);
        at_ = end + 1;
      } else {
        const size_t first = at_;
        while (at_ < html_.size() && !is_html_blank(html_[at_]) && html_[at_] != '>') ++at_;
        value = html_.substr(first, at_ - first);
      }
      each(name, value, html_.substr(begin, at_ - begin));
    }
  }

  static bool matters(std::string_view name, std::string_view value) {
    const bool coded = value.find('&') != std::string_view::npos;
    if (equals_lower(name, "class") || equals_lower(name, "id")) return coded || has_boilerplate_word(value);
    if (equals_lower(name, "style"))
      return coded || contains_lower(value, "display") || contains_lower(value, "visib");
    return equals_lower(name, "role") || equals_lower(name, "hidden") || equals_lower(name, "aria-hidden") ||
           equals_lower(name, "lang") || equals_lower(name, "type");
  }

  void start_tag() {
    const size_t tag = at_++;
    const std::string_view name = take_name();
    const int element = find_element(name);
    const Treatment treatment =
        element < 0 ? Treatment::kKeep : kElements[static_cast<size_t>(element)].treatment;
    if (treatment == Treatment::kRest) {
      at_ = tag;
      return rest();
    }
    const size_t before = out_.size();
    (out_ += '<').append(name);
    bool any = false, seen_class = false, seen_id = false;
    const bool closed = attributes([&](std::string_view key, std::string_view value, std::string_view whole) {
      // Of a repeated attribute the first counts.
      bool* const seen = equals_lower(key, "class") ? &seen_class
                         : equals_lower(key, "id")  ? &seen_id
                                                    : nullptr;
      if (seen && std::exchange(*seen, true)) return;
      if (!matters(key, value)) return;
      (out_ += ' ').append(whole);
      any = true;
    });
    if (!closed) {  // the parser drops a tag that the page's end cuts
      out_.resize(before);
      return;
    }
    out_ += '>';
    if (equals_lower(name, "pre")) {
      ++preformatted_;
      pre_end_ = out_.size();
      pre_source_ = at_;
    }
    switch (treatment) {
      case Treatment::kDrop:
        out_.resize(before);
        break;
      case Treatment::kInline:
        if (!any) out_.resize(before);
        open_[static_cast<size_t>(element)].push_back(any);
        break;
      case Treatment::kVerbatim:
        verbatim(name);
        break;
      case Treatment::kGone:
        if (!raw_text(name, false)) break;
        out_.resize(before);
        skip_end_tag();
        break;
      case Treatment::kEmpty:
      case Treatment::kRaw:
        raw_text(name, treatment == Treatment::kRaw);
        break;
      default:
        break;
    }
  }

  void skip_end_tag() {
    if (at_ >= html_.size()) return;
    at_ += 2;
    take_name();
    attributes([](std::string_view, std::string_view, std::string_view) {});
  }

  void end_tag() {
    const size_t tag = at_;
    at_ += 2;
    const std::string_view name = take_name();
    const int element = find_element(name);
    if (!attributes([](std::string_view, std::string_view, std::string_view) {})) return;
    if (element >= 0 && kElements[static_cast<size_t>(element)].treatment == Treatment::kInline) {
      auto& open = open_[static_cast<size_t>(element)];
      const bool kept = !open.empty() && open.back();
      if (!open.empty()) open.pop_back();
      if (!kept) return;
    }
    if (preformatted_ > 0 && equals_lower(name, "pre")) --preformatted_;
    out_.append(html_, tag, name.size() + 2);
    out_ += '>';
  }

  // The place of "</name" at or behind `from`, or the end.
  size_t find_end_tag(std::string_view name, size_t from) const {
    for (size_t at = from; (at = html_.find("</", at)) != std::string_view::npos; at += 2) {
      const size_t end = at + 2 + name.size();
      if (end < html_.size() && (is_html_blank(html_[end]) || html_[end] == '>' || html_[end] == '/') &&
          std::equal(name.begin(), name.end(), html_.begin() + static_cast<std::ptrdiff_t>(at) + 2,
                     [](char a, char b) { return ascii_lower(a) == ascii_lower(b); }))
        return at;
    }
    return html_.size();
  }

  // false: the rest of the page was taken as it is.
  bool raw_text(std::string_view name, bool keep) {
    const size_t end = find_end_tag(name, at_);
    const std::string_view content = html_.substr(at_, end - at_);
    // In a script, "<!-- <script>" hides the next end tag: left to the parser.
    if (equals_lower(name, "script") && content.find("<!--") != std::string_view::npos &&
        contains_lower(content, "<script")) {
      rest();
      return false;
    }
    if (keep) out_.append(content);
    at_ = end;
    return true;
  }

  void verbatim(std::string_view name) {
    const size_t end = find_end_tag(name, at_);
    out_.append(html_, at_, end - at_);
    at_ = end;
  }

  std::string_view html_;
  size_t at_ = 0;
  int preformatted_ = 0;
  size_t pre_end_ = std::string::npos,
         pre_source_ = 0;  // of the last <pre>: where it ends in out_ and in html_
  std::string out_;
  std::array<std::vector<bool>, kKnown> open_;  // of inline elements: whether the start tag was kept
};

}  // namespace

bool has_boilerplate_word(std::string_view names) {
  char word[64];
  size_t length = 0;
  bool too_long = false;
  auto check = [&] {
    const bool hit = length && !too_long && is_boilerplate_word({word, length});
    length = 0;
    too_long = false;
    return hit;
  };
  for (size_t i = 0; i < names.size(); ++i) {
    const char c = names[i];
    const bool hump = i > 0 && c >= 'A' && c <= 'Z' && names[i - 1] >= 'a' && names[i - 1] <= 'z';
    if ((!ascii_letter(c) || hump) && check()) return true;
    if (!ascii_letter(c)) continue;
    if (length == sizeof word) too_long = true;
    else word[length++] = ascii_lower(c);
  }
  return check();
}

std::string thin_html(std::string_view html) { return Thinner(html).run(); }

}  // namespace stoker::corpus
