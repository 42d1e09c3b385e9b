// data/corpus/html_thin.h
// A page without what text extraction never looks at, before the HTML parser sees it: comments, scripts and styles, images,
// attributes other than those that hide or mark boilerplate, and inline elements that carry none of them. The parser's time
// goes by bytes and tags, and in highlighted code most of them are these.
// Keeps     the text and the block structure: extract_html gives the same text with and without (tests compare them);
//           only elements that are nested wrongly around inline ones may differ
// Verbatim  SVG and MathML, where other rules hold; a page with escaped scripts inside scripts from there on
// Cost      one pass; memory of the result, at most the input
#pragma once
#include <string>
#include <string_view>

namespace stoker::corpus {

std::string thin_html(std::string_view html);

// Whether a class or id names something around the content: a whole word of it is one of a list ("navbar", "footer").
bool has_boilerplate_word(std::string_view names);

}  // namespace stoker::corpus
