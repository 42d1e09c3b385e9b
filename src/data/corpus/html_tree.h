// data/corpus/html_tree.h
// An HTML5 tree (libgumbo) from bytes that may be hostile. The tree lives in an arena that is dropped at
// once, so no recursive free; allocations beyond the budget and nesting beyond the limit end the parse with a
// Data error. Limits     nesting is estimated before parsing from open minus closed tags (elements that close
// themselves do not
//            count), because the parser's own time is quadratic in depth
// Input      valid UTF-8
// Errors     Result: "nesting", "memory" with the numbers; never a crash
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/error.h"

struct GumboInternalNode;
struct GumboInternalOutput;

namespace stoker::corpus {

struct HtmlLimits {
  int nesting = 1000;
  uint64_t arena_bytes = 512u << 20;
};

class HtmlTree {
 public:
  static Result<HtmlTree> parse(std::string_view html, const HtmlLimits& limits = {});
  HtmlTree(HtmlTree&&) noexcept;
  HtmlTree& operator=(HtmlTree&&) noexcept;
  ~HtmlTree();
  const GumboInternalNode* document() const { return document_; }

 private:
  struct Arena;
  static GumboInternalOutput* parse_in(Arena& arena, std::string_view html);
  explicit HtmlTree(std::unique_ptr<Arena> arena);
  std::unique_ptr<Arena> arena_;
  const GumboInternalNode* document_ = nullptr;
};

// The deepest nesting of tags that need a closing one. Linear, no memory to speak of.
int estimate_nesting(std::string_view html);

}  // namespace stoker::corpus
