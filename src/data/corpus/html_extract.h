// data/corpus/html_extract.h
// The main content of a web page as plain text, without navigation, footers, menus, scripts and
// forms.
// How           1. drop what is never content by element, ARIA role, visibility, and class/id words
//               (nav, footer, sidebar, cookie, share, breadcrumb ...); 2. take <main>, <article> or
//               the deepest element that still holds most of the remaining text; 3. drop blocks that
//               are mostly links, unless the page would be left with little
// Output        paragraphs, headings, list items and table rows one per line, a blank line between
//               blocks; table cells joined by " | "; <pre> as written; entities decoded; ASCII blanks
//               collapsed elsewhere
// Input         valid UTF-8 (see unicode_encoding.h). Scripts are not run
// Errors        Result with the limits of html_tree.h. An empty page gives an empty text
// Determinism   a pure function of the bytes and options
#pragma once
#include <string>
#include <string_view>

#include "data/corpus/html_tree.h"

namespace stoker::corpus {

struct HtmlOptions {
  bool main_content = true;  // false: all visible text of the body
  bool tables = true;
  bool thin = true;  // drop what is never looked at before parsing (html_thin.h); false: for comparison
  HtmlLimits limits;
};

struct HtmlText {
  std::string text;
  std::string title;     // of <title>, blanks collapsed
  std::string language;  // <html lang>, lower case, may be empty
  // Characters of visible text before boilerplate was removed: kept share = text.size() / visible_bytes.
  uint64_t visible_bytes = 0;
};

Result<HtmlText> extract_html(std::string_view html, const HtmlOptions& options = {});

}  // namespace stoker::corpus
