#include "data/corpus/html_extract.h"

#include <gumbo.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>
#include <vector>

#include "data/corpus/ascii.h"
#include "data/corpus/html_thin.h"

namespace stoker::corpus {
namespace {

std::string_view attribute(const GumboElement& element, const char* name) {
  const GumboAttribute* found = gumbo_get_attribute(&element.attributes, name);
  return found ? std::string_view(found->value) : std::string_view();
}

bool is_container(const GumboNode* node) {
  return node->type == GUMBO_NODE_ELEMENT || node->type == GUMBO_NODE_TEMPLATE ||
         node->type == GUMBO_NODE_DOCUMENT;
}

const GumboVector& children(const GumboNode* node) {
  return node->type == GUMBO_NODE_DOCUMENT ? node->v.document.children : node->v.element.children;
}

GumboTag tag_of(const GumboNode* node) {
  return node->type == GUMBO_NODE_ELEMENT ? node->v.element.tag : GUMBO_TAG_UNKNOWN;
}

// Pre- and post-order without recursion: pages may nest to the limit of the parser.
// enter(node) returns false to skip the subtree (leave is then not called for it).
template <typename Enter, typename Leave>
void walk(const GumboNode* root, Enter&& enter, Leave&& leave) {
  std::vector<std::pair<const GumboNode*, unsigned>> path;
  if (!enter(root)) return;
  path.emplace_back(root, 0);
  while (!path.empty()) {
    const GumboNode* node = path.back().first;
    const unsigned next = path.back().second;
    if (!is_container(node) || next == children(node).length) {
      leave(node);
      path.pop_back();
      continue;
    }
    ++path.back().second;
    const auto* child = static_cast<const GumboNode*>(children(node).data[next]);
    if (enter(child)) path.emplace_back(child, 0);
  }
}

bool never_content(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_NOSCRIPT:
    case GUMBO_TAG_TEMPLATE:
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_OBJECT:
    case GUMBO_TAG_EMBED:
    case GUMBO_TAG_CANVAS:
    case GUMBO_TAG_SVG:
    case GUMBO_TAG_AUDIO:
    case GUMBO_TAG_VIDEO:
    case GUMBO_TAG_HEAD:
    case GUMBO_TAG_BUTTON:
    case GUMBO_TAG_SELECT:
    case GUMBO_TAG_TEXTAREA:
    case GUMBO_TAG_INPUT:
    case GUMBO_TAG_DATALIST:
    case GUMBO_TAG_MENU:
      return true;
    default:
      return false;
  }
}

bool is_boilerplate_tag(GumboTag tag) {
  return tag == GUMBO_TAG_NAV || tag == GUMBO_TAG_FOOTER || tag == GUMBO_TAG_ASIDE;
}

bool is_block(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_A:
    case GUMBO_TAG_ABBR:
    case GUMBO_TAG_ACRONYM:
    case GUMBO_TAG_B:
    case GUMBO_TAG_BDI:
    case GUMBO_TAG_BDO:
    case GUMBO_TAG_BIG:
    case GUMBO_TAG_CITE:
    case GUMBO_TAG_CODE:
    case GUMBO_TAG_DATA:
    case GUMBO_TAG_DEL:
    case GUMBO_TAG_DFN:
    case GUMBO_TAG_EM:
    case GUMBO_TAG_FONT:
    case GUMBO_TAG_I:
    case GUMBO_TAG_IMG:
    case GUMBO_TAG_INS:
    case GUMBO_TAG_KBD:
    case GUMBO_TAG_LABEL:
    case GUMBO_TAG_MARK:
    case GUMBO_TAG_NOBR:
    case GUMBO_TAG_Q:
    case GUMBO_TAG_RP:
    case GUMBO_TAG_RT:
    case GUMBO_TAG_RUBY:
    case GUMBO_TAG_S:
    case GUMBO_TAG_SAMP:
    case GUMBO_TAG_SMALL:
    case GUMBO_TAG_SPAN:
    case GUMBO_TAG_STRIKE:
    case GUMBO_TAG_STRONG:
    case GUMBO_TAG_SUB:
    case GUMBO_TAG_SUP:
    case GUMBO_TAG_TIME:
    case GUMBO_TAG_TT:
    case GUMBO_TAG_U:
    case GUMBO_TAG_VAR:
    case GUMBO_TAG_WBR:
    case GUMBO_TAG_MATH:
    case GUMBO_TAG_UNKNOWN:
      return false;
    default:
      return true;
  }
}

bool is_hidden(const GumboElement& element) {
  if (gumbo_get_attribute(&element.attributes, "hidden")) return true;
  if (equals_lower(attribute(element, "aria-hidden"), "true")) return true;
  const std::string_view style = attribute(element, "style");
  if (style.empty()) return false;
  std::string plain;
  for (const char c : style)
    if (!ascii_blank(c)) plain += ascii_lower(c);
  return plain.find("display:none") != std::string::npos ||
         plain.find("visibility:hidden") != std::string::npos;
}

bool is_boilerplate_role(std::string_view role) {
  for (const std::string_view word : {"navigation", "banner", "contentinfo", "search", "complementary",
                                      "menu", "menubar", "toolbar", "dialog", "alert"})
    if (equals_lower(role, word)) return true;
  return false;
}

bool is_main(const GumboNode* node) {
  return node->type == GUMBO_NODE_ELEMENT &&
         (node->v.element.tag == GUMBO_TAG_MAIN || equals_lower(attribute(node->v.element, "role"), "main"));
}

// Letters and other non-blank bytes of a subtree, and how many of them are inside links.
struct Weight {
  uint64_t text = 0, linked = 0;
};

// Elements get numbers, kept where the parser had a position in the source that nobody asks for.
unsigned number_of(const GumboNode* node) { return node->v.element.start_pos.offset; }

// Weights of the elements that were not dropped.
class Weights {
 public:
  explicit Weights(size_t elements) : of_(elements), has_(elements) {}
  void set(const GumboNode* node, Weight weight) {
    of_[number_of(node)] = weight;
    has_[number_of(node)] = 1;
  }
  // Null: dropped, or no element.
  const Weight* find(const GumboNode* node) const {
    return node->type == GUMBO_NODE_ELEMENT && has_[number_of(node)] ? &of_[number_of(node)] : nullptr;
  }
  Weight at(const GumboNode* node) const {
    const Weight* found = find(node);
    return found ? *found : Weight();
  }

 private:
  std::vector<Weight> of_;
  std::vector<char> has_;
};

// Elements that no class name may remove: they hold <main>, or a good part of the page's text. Themes name the frame around
// the content after its place in the page ("wy-nav-content").
struct Shield {
  const Weights* weights = nullptr;
  uint64_t page_prose = 0;
  std::unordered_set<const GumboNode*> around_main;
  bool covers(const GumboNode* node) const {
    if (around_main.count(node)) return true;
    const Weight* found = weights->find(node);
    return found && (found->text - found->linked) * 5 >= page_prose * 2 && page_prose > 0;
  }
};

// shield null: only what is never content is dropped.
bool dropped(const GumboNode* node, const Shield* shield) {
  if (node->type == GUMBO_NODE_COMMENT || node->type == GUMBO_NODE_TEMPLATE) return true;
  if (node->type != GUMBO_NODE_ELEMENT) return false;
  const GumboElement& element = node->v.element;
  if (never_content(element.tag) || is_hidden(element)) return true;
  if (!shield) return false;
  if (element.tag == GUMBO_TAG_BODY || element.tag == GUMBO_TAG_HTML || element.tag == GUMBO_TAG_ARTICLE ||
      is_main(node))
    return false;
  // A page header goes; the header of an article, which holds its title, stays.
  if (element.tag == GUMBO_TAG_HEADER) {
    for (const GumboNode* up = node->parent; up; up = up->parent)
      if (tag_of(up) == GUMBO_TAG_ARTICLE || is_main(up)) return false;
    return true;
  }
  if (is_boilerplate_tag(element.tag) || is_boilerplate_role(attribute(element, "role"))) return true;
  return (has_boilerplate_word(attribute(element, "class")) ||
          has_boilerplate_word(attribute(element, "id"))) &&
         !shield->covers(node);
}

bool is_text(const GumboNode* node) {
  return node->type == GUMBO_NODE_TEXT || node->type == GUMBO_NODE_CDATA ||
         node->type == GUMBO_NODE_WHITESPACE;
}

uint64_t visible_length(const char* text) {
  uint64_t count = 0;
  for (const char* p = text; *p; ++p) count += !ascii_blank(*p);
  return count;
}

void weigh(const GumboNode* root, const Shield* shield, Weights& weights) {
  std::vector<Weight> stack(1);
  int links = 0;
  walk(
      root,
      [&](const GumboNode* node) {
        if (dropped(node, shield)) return false;
        if (is_text(node)) {
          const uint64_t n = visible_length(node->v.text.text);
          stack.back().text += n;
          if (links) stack.back().linked += n;
          return false;
        }
        stack.emplace_back();
        links += tag_of(node) == GUMBO_TAG_A;
        return true;
      },
      [&](const GumboNode* node) {
        const Weight own = stack.back();
        stack.pop_back();
        stack.back().text += own.text;
        stack.back().linked += own.linked;
        links -= tag_of(node) == GUMBO_TAG_A;
        weights.set(node, own);
      });
}

uint64_t prose(const Weight& w) { return w.text - w.linked; }

// <main>, or the heaviest <article> when it holds a good part of the page; otherwise down from the body for
// as long as one child holds nearly all text that is not links.
const GumboNode* find_content_root(const GumboNode* body, const Weights& weights) {
  auto weight = [&](const GumboNode* node) { return weights.at(node); };
  const uint64_t all = prose(weight(body));
  const GumboNode *best_main = nullptr, *best_article = nullptr;
  walk(
      body,
      [&](const GumboNode* node) {
        if (node != body && !weights.find(node)) return false;
        if (is_main(node) && (!best_main || prose(weight(node)) > prose(weight(best_main)))) best_main = node;
        if (tag_of(node) == GUMBO_TAG_ARTICLE &&
            (!best_article || prose(weight(node)) > prose(weight(best_article))))
          best_article = node;
        return true;
      },
      [](const GumboNode*) {});
  const GumboNode* root = body;
  if (best_main && prose(weight(best_main)) * 4 >= all) root = best_main;
  if (best_article && prose(weight(best_article)) * 2 >= prose(weight(root)) &&
      prose(weight(best_article)) * 4 >= all)
    root = best_article;
  while (true) {
    const GumboNode* heavy = nullptr;
    const auto& kids = children(root);
    for (unsigned i = 0; i < kids.length; ++i) {
      const auto* child = static_cast<const GumboNode*>(kids.data[i]);
      if (child->type == GUMBO_NODE_ELEMENT && prose(weight(child)) > 0 &&
          prose(weight(child)) * 10 >= prose(weight(root)) * 9)
        heavy = child;
    }
    if (!heavy || (tag_of(heavy) != GUMBO_TAG_DIV && tag_of(heavy) != GUMBO_TAG_SECTION &&
                   tag_of(heavy) != GUMBO_TAG_ARTICLE && tag_of(heavy) != GUMBO_TAG_MAIN))
      return root;
    // A heading beside the heavy child is the page's title: stay where both are.
    bool heading_beside = false;
    for (unsigned i = 0; i < kids.length; ++i) {
      const GumboTag tag = tag_of(static_cast<const GumboNode*>(kids.data[i]));
      heading_beside |= tag == GUMBO_TAG_H1 || tag == GUMBO_TAG_H2;
    }
    if (heading_beside) return root;
    root = heavy;
  }
}

// Mostly links: a menu, a list of related pages, a tag cloud. Short runs of text in links are judged only as
// whole lists or tables, so that a sentence that is one link stays.
bool is_link_block(const GumboNode* node, const Weight& w) {
  switch (tag_of(node)) {
    case GUMBO_TAG_UL:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_TABLE:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_DL:
      return w.text > 0 && w.linked * 10 > w.text * 8;
    default:
      return false;
  }
}

class TextWriter {
 public:
  void text(const char* raw, bool preformatted) {
    if (preformatted) {
      if (!*raw) return;
      open_line();
      out_ += raw;
      return;
    }
    for (const char* p = raw; *p; ++p) {
      // U+00A0 separates words like a blank.
      const bool no_break = p[0] == '\xC2' && p[1] == '\xA0';
      if (ascii_blank(*p) || no_break) {
        pending_blank_ = true;
        p += no_break;
        continue;
      }
      open_line();
      if (pending_blank_ && !out_.empty() && !ascii_blank(out_.back())) out_ += ' ';
      pending_blank_ = false;
      out_ += *p;
    }
  }
  void line_break() { newlines_ = std::max(newlines_, 1), pending_blank_ = false; }
  void block_break() { newlines_ = std::max(newlines_, 2), pending_blank_ = false; }
  void cell_break() {
    if (newlines_ == 0 && !out_.empty() && out_.back() != '\n') pending_cell_ = true;
  }
  void no_cell() { pending_cell_ = false; }
  std::string take() {
    while (!out_.empty() && ascii_blank(out_.back())) out_.pop_back();
    return std::move(out_);
  }

 private:
  void open_line() {
    if (newlines_) {
      while (!out_.empty() && ascii_blank(out_.back())) out_.pop_back();
      if (!out_.empty()) out_.append(static_cast<size_t>(newlines_), '\n');
      newlines_ = 0;
      pending_blank_ = pending_cell_ = false;
    } else if (pending_cell_) {
      out_ += " | ";
      pending_cell_ = pending_blank_ = false;
    }
  }
  std::string out_;
  int newlines_ = 0;
  bool pending_blank_ = false, pending_cell_ = false;
};

std::string write_text(const GumboNode* root, const HtmlOptions& options, const Weights& weights,
                       bool drop_link_blocks) {
  TextWriter writer;
  int preformatted = 0, cells = 0;
  auto breaks = [&](GumboTag tag) {
    if (tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH || tag == GUMBO_TAG_BR) return;
    if (tag == GUMBO_TAG_LI || tag == GUMBO_TAG_TR || tag == GUMBO_TAG_DT || tag == GUMBO_TAG_DD || cells > 0)
      writer.line_break();
    else writer.block_break();
  };
  walk(
      root,
      [&](const GumboNode* node) {
        if (is_text(node)) {
          writer.text(node->v.text.text, preformatted > 0);
          return false;
        }
        const Weight* weight = weights.find(node);
        if (!weight) return false;
        const GumboTag tag = tag_of(node);
        if (!options.tables && tag == GUMBO_TAG_TABLE) return false;
        if (drop_link_blocks && node != root && is_link_block(node, *weight)) return false;
        if (tag == GUMBO_TAG_BR) writer.line_break();
        if (is_block(tag)) breaks(tag);
        if (tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH) writer.cell_break(), ++cells;
        preformatted += tag == GUMBO_TAG_PRE;
        return true;
      },
      [&](const GumboNode* node) {
        const GumboTag tag = tag_of(node);
        if (tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH) --cells;
        preformatted -= tag == GUMBO_TAG_PRE;
        if (is_block(tag)) breaks(tag);
      });
  return writer.take();
}

std::string collapsed_text(const GumboNode* node) {
  TextWriter writer;
  walk(
      node,
      [&](const GumboNode* n) {
        if (is_text(n)) writer.text(n->v.text.text, false);
        return is_container(n);
      },
      [](const GumboNode*) {});
  return writer.take();
}

}  // namespace

Result<HtmlText> extract_html(std::string_view html, const HtmlOptions& options) {
  const std::string thin = options.thin ? thin_html(html) : std::string();
  auto parsed = HtmlTree::parse(options.thin ? std::string_view(thin) : html, options.limits);
  if (!parsed.ok()) return parsed.error();
  HtmlText out;
  const GumboNode* body = nullptr;
  walk(
      parsed.value().document(),
      [&](const GumboNode* node) {
        const GumboTag tag = tag_of(node);
        if (tag == GUMBO_TAG_HTML && out.language.empty())
          for (const char c : attribute(node->v.element, "lang")) out.language += ascii_lower(c);
        if (tag == GUMBO_TAG_TITLE && node->parent && tag_of(node->parent) == GUMBO_TAG_HEAD &&
            out.title.empty())
          out.title = collapsed_text(node);
        if (tag == GUMBO_TAG_BODY && !body) body = node;
        return !body && is_container(node);
      },
      [](const GumboNode*) {});
  if (!body) return out;
  unsigned elements = 0;
  std::vector<const GumboNode*> mains;
  walk(
      body,
      [&](const GumboNode* node) {
        if (node->type != GUMBO_NODE_ELEMENT) return false;
        const_cast<GumboNode*>(node)->v.element.start_pos.offset = elements++;
        if (is_main(node)) mains.push_back(node);
        return true;
      },
      [](const GumboNode*) {});
  Weights everything(elements);
  weigh(body, nullptr, everything);
  out.visible_bytes = everything.at(body).text;
  if (!options.main_content) {
    out.text = write_text(body, options, everything, false);
    return out;
  }
  Weights weights(elements);
  Shield shield;
  shield.weights = &everything;
  shield.page_prose = prose(everything.at(body));
  for (const GumboNode* main : mains)
    if (everything.find(main))
      for (const GumboNode* up = main->parent; up; up = up->parent) shield.around_main.insert(up);
  weigh(body, &shield, weights);
  const GumboNode* root = find_content_root(body, weights);
  out.text = write_text(root, options, weights, true);
  // A page of links (an index) has no prose to keep: then its links are the content.
  if (visible_length(out.text.c_str()) * 10 < weights.at(body).text)
    out.text = write_text(root, options, weights, false);
  return out;
}

}  // namespace stoker::corpus
