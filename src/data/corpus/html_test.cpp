#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>

#include "data/corpus/html_extract.h"
#include "data/corpus/html_thin.h"
#include "data/corpus/unicode_encoding.h"

namespace stoker::corpus {
namespace {

std::string repeat(std::string_view what, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += what;
  return out;
}

std::string text_of(std::string_view html, HtmlOptions options = {}) {
  auto result = extract_html(html, options);
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().what());
  return result.ok() ? result.value().text : "";
}

const char* const kPage = R"(<!DOCTYPE html><html lang="en-GB"><head><title>A  page
title</title><script>var a = "<p>not text</p>";</script></head><body class="with-navbar">
<header><a href="/">Home</a> Site name</header>
<nav><ul><li><a href="/a">First section of the site</a></li><li><a href="/b">Second</a></li></ul></nav>
<div id="wrapper"><div class="left-sidebar">Popular: everything you never wanted to read about cookies</div>
<div id="content"><h1>The heading</h1><p>First  paragraph, with <b>bold</b> and a <a href="x">link</a>.</p>
<ul><li>one</li><li>two</li></ul>
<table><tr><th>Name</th><th>Value</th></tr><tr><td>x</td><td></td><td>42 &amp; more</td></tr></table>
<pre>  code();
    indented();</pre><p hidden>secret</p><p style="display : none">secret</p>
<p>Last one.<br>After a break.</p></div></div>
<footer>Copyright somebody</footer></body></html>)";

TEST(HtmlExtract, KeepsContentAndDropsTheRest) {
  const auto page = extract_html(kPage).value();
  EXPECT_EQ(page.title, "A page title");
  EXPECT_EQ(page.language, "en-gb");
  EXPECT_EQ(
      page.text,
      "The heading\n\nFirst paragraph, with bold and a link.\n\none\ntwo\n\nName | Value\nx | 42 & more\n\n"
      "  code();\n    indented();\n\nLast one.\nAfter a break.");
  EXPECT_GT(page.visible_bytes, page.text.size() / 2);
}

TEST(HtmlExtract, WholeBodyKeepsMenusButNotScripts) {
  HtmlOptions options;
  options.main_content = false;
  const std::string text = text_of(kPage, options);
  EXPECT_NE(text.find("First section"), std::string::npos);
  EXPECT_NE(text.find("Copyright"), std::string::npos);
  EXPECT_EQ(text.find("not text"), std::string::npos);
  EXPECT_EQ(text.find("secret"), std::string::npos);
}

TEST(HtmlExtract, ListsOfLinksGoUnlessThePageIsOne) {
  const std::string prose = "<p>" + repeat("Plain words that carry meaning. ", 20) + "</p>";
  const std::string links = "<ul>" + repeat("<li><a href=x>Another page entirely</a></li>", 10) + "</ul>";
  EXPECT_EQ(text_of("<body><div>" + prose + links + "</div></body>").find("Another"), std::string::npos);
  EXPECT_NE(text_of("<body><div>" + links + "</div></body>").find("Another"), std::string::npos);
}

TEST(HtmlExtract, ArticleHeaderStaysPageHeaderGoes) {
  const std::string prose = repeat("Plain words that carry meaning. ", 20);
  const std::string text = text_of("<body><header>Site</header><article><header><h1>Title</h1></header><p>" +
                                   prose + "</p></article></body>");
  EXPECT_EQ(text.rfind("Title\n\nPlain", 0), 0u) << text;
}

TEST(HtmlExtract, AFrameNamedForNavigationKeepsItsContent) {
  const std::string words = repeat("Plain words that carry meaning. ", 20);
  EXPECT_EQ(text_of("<body><div class=wy-grid-for-nav><div class=wy-nav-content><div role=main><p>" + words +
                    "</p></div></div></div><div class=site-nav>Elsewhere and more</div></body>")
                .rfind("Plain words", 0),
            0u);
  const std::string text = text_of("<body><div class=nav-content><p>" + words +
                                   "</p></div><div class=sidebar>Elsewhere</div></body>");
  EXPECT_EQ(text.rfind("Plain words", 0), 0u);
  EXPECT_EQ(text.find("Elsewhere"), std::string::npos);
}

TEST(HtmlExtract, OddInputsAreTexts) {
  EXPECT_EQ(text_of(""), "");
  EXPECT_EQ(text_of("just text"), "just text");
  EXPECT_EQ(text_of("<p>a<p>b"), "a\n\nb");
  EXPECT_EQ(text_of("&lt;&#x41;&nbsp;&euro;&bogus;"), "<A \xE2\x82\xAC&bogus;");
  EXPECT_EQ(text_of("<b><i>mis</b>nested</i>"), "misnested");
  EXPECT_EQ(text_of(std::string_view("a\0b", 3)).find('\0'), std::string::npos);
}

// A page of random elements, nested as the standard allows: inline: only inline ones.
std::string random_page(std::mt19937& random, int depth, bool inline_only = false) {
  static const std::array<const char*, 14> kBlocks = {"p",   "div",   "h2",     "pre",  "section",
                                                      "ul",  "table", "main",   "nav",  "footer",
                                                      "div", "p",     "script", "style"};
  static const std::array<const char*, 8> kInlines = {"span",   "b",   "code", "em",
                                                      "strong", "sub", "font", "span"};
  static const std::array<const char*, 12> kAttributes = {"",
                                                          " class=\"kw1\"",
                                                          " class='nav bar'",
                                                          " id=content",
                                                          " hidden",
                                                          " style=\"color: red\"",
                                                          " style='display:none'",
                                                          " href=\"a>b\"",
                                                          " role=main",
                                                          " aria-hidden=true",
                                                          " title='x' class=\"toc\" class=b",
                                                          " data-x"};
  static const std::array<const char*, 12> kBetween = {"some words ",   "\n   \n",
                                                       "<!-- gone -->", "<br>",
                                                       "&amp; &lt;",    "<img src='a.png' alt=\"x>y\">",
                                                       "  x",           "1 < 2",
                                                       "<wbr>",         "<a href=y>link</a>",
                                                       "<?php echo ?>", "caf\xC3\xA9 "};
  std::string out;
  for (uint32_t parts = random() % 6; parts-- > 0;) {
    out += kBetween[random() % kBetween.size()];
    if (depth == 0 || random() % 3 == 0) continue;
    const bool in_line = inline_only || random() % 3 == 0;
    const std::string name =
        in_line ? kInlines[random() % kInlines.size()] : kBlocks[random() % kBlocks.size()];
    out += "<" + name + kAttributes[random() % kAttributes.size()] + ">";
    if (name == "script" || name == "style") out += "if (a < b) '<p>no text</p>'; <!-- -->";
    else if (name == "ul") out += "<li>" + random_page(random, depth - 1) + "</li>";
    else if (name == "table") out += "<tr><td>" + random_page(random, depth - 1) + "</td></tr>";
    else out += random_page(random, depth - 1, in_line || name == "p" || name == "h2" || name == "pre");
    out += "</" + name + ">";
  }
  return out;
}

TEST(HtmlThin, TheTextIsTheSameWithAndWithout) {
  std::mt19937 random(7);
  HtmlOptions as_it_is;
  as_it_is.thin = false;
  EXPECT_EQ(text_of(kPage), text_of(kPage, as_it_is));
  size_t with_text = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string page = random_page(random, 4);
    const std::string text = text_of(page);
    ASSERT_EQ(text, text_of(page, as_it_is)) << page;
    with_text += text.size() > 10;
  }
  EXPECT_GT(with_text, 500u);
}

TEST(HtmlThin, KeepsWhatMattersOnly) {
  EXPECT_EQ(thin_html("<p class=\"x\" id=nav>a<span class=k>b</span></p>"), "<p id=nav>ab</p>");
  EXPECT_EQ(thin_html("<SPAN hidden>a</SPAN><B>b</B>"), "<SPAN hidden>a</SPAN>b");
  EXPECT_EQ(thin_html("a<!-- b --!>c<!-->d<script>x</script>e<script><!-- <script> </script>"),
            "acde<script><!-- <script> </script>");
  EXPECT_EQ(thin_html("a  \n b<pre>a  b</pre>  c"), "a b<pre>a  b</pre> c");
  EXPECT_EQ(thin_html("x<div class='menu"), "x");
  EXPECT_EQ(thin_html("<pre><b></b>\na</pre>"), "<pre>\n\na</pre>");
  EXPECT_EQ(thin_html("<plaintext><b>"), "<plaintext><b>");
}

TEST(HtmlTree, HostileNestingEndsAsAResult) {
  for (const char* tag :
       {"div", "b", "i", "span", "table", "font color=a", "ul><li", "svg", "template", "q"}) {
    const auto result = HtmlTree::parse(repeat(std::string("<") + tag + ">", 200000));
    ASSERT_FALSE(result.ok()) << tag;
    EXPECT_EQ(result.error().kind(), ErrorKind::kData);
  }
  // SVG closes nothing by itself, and quotes hide nothing outside values.
  EXPECT_GT(estimate_nesting("<svg>" + repeat("<tr>", 5000)), 4000);
  EXPECT_GT(estimate_nesting(repeat("<div \">", 5000)), 4000);
  EXPECT_GT(estimate_nesting("<title>" + repeat("<div>", 5000) + "</title>" + repeat("<div>", 5000)), 4000);
}

TEST(HtmlTree, OrdinaryPagesAreNotDeep) {
  EXPECT_LT(estimate_nesting(repeat("<p>text<li>item<tr><td>cell<br><img src=x>", 5000)), 5);
  EXPECT_LT(estimate_nesting("<script>" + repeat("if (a<b) x='<div>';", 5000) + "</script>"), 5);
  EXPECT_LT(estimate_nesting(repeat("<div title='a<b<c'>x</div>", 5000)), 5);
  EXPECT_EQ(text_of(repeat("<p>x", 3)), "x\n\nx\n\nx");
}

TEST(HtmlTree, AReopeningBombMeetsTheMemoryLimit) {
  // Every <p> reopens all the formatting elements left open: nodes grow with the product.
  std::string bomb = "<p>";
  for (int i = 0; i < 900; ++i) bomb += "<font size=" + std::to_string(i) + ">";
  bomb += repeat("<p>x", 20000);
  HtmlLimits limits;
  limits.arena_bytes = 32u << 20;
  const auto result = HtmlTree::parse(bomb, limits);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(std::string(result.error().what()).find("33554432"), std::string::npos);
}

struct EncodingCase {
  const char* name;
  std::string bytes;
  const char* hint;
  bool html;
  const char *encoding, *source, *text;
};

TEST(Encoding, FoundInTheOrderOfTrust) {
  const std::string latin = "caf\xE9 ";
  const EncodingCase cases[] = {
      {"bom8", "\xEF\xBB\xBFhi", "", false, "UTF-8", "bom", "hi"},
      {"bom16", std::string("\xFF\xFEh\0i\0", 6), "", false, "UTF-16LE", "bom", "hi"},
      {"bom16be", std::string("\xFE\xFF\0h\xD8\x3D\xDE\x00", 8), "", false, "UTF-16BE", "bom",
       "h\xF0\x9F\x98\x80"},
      {"bom32", std::string("\xFF\xFE\0\0h\0\0\0", 8), "", false, "UTF-32LE", "bom", "h"},
      {"mislabelled", "caf\xC3\xA9", "iso-8859-1", true, "UTF-8", "valid", "caf\xC3\xA9"},
      {"declared", latin, "ISO-8859-1", false, "windows-1252", "declared", "caf\xC3\xA9 "},
      {"meta", "<meta charset=\"windows-1251\">\xEF\xF0", "", true, "windows-1251", "meta",
       "<meta charset=\"windows-1251\">\xD0\xBF\xD1\x80"},
      {"http-equiv", "<META http-equiv=x content='text/html; charset=Shift_JIS'>\x83\x65", "", true,
       "windows-31j", "meta", "<META http-equiv=x content='text/html; charset=Shift_JIS'>\xE3\x83\x86"},
      {"comment", "<!-- <meta charset=koi8-r> --><meta charset=latin1>\xE9", "", true, "windows-1252", "meta",
       "<!-- <meta charset=koi8-r> --><meta charset=latin1>\xC3\xA9"},
      {"ascii", "plain", "koi8-r", false, "UTF-8", "ascii", "plain"},
      {"utf-7", "+ADw-script+AD4- \xE9", "utf-7", false, nullptr, nullptr, nullptr},
  };
  for (const auto& c : cases) {
    const auto guess = detect_encoding(c.bytes, c.hint, c.html);
    if (!c.encoding) {
      EXPECT_EQ(guess.name.find("UTF-7"), std::string::npos) << c.name;
      continue;
    }
    std::string name = guess.name, wanted = c.encoding;
    EXPECT_EQ(guess.source, c.source) << c.name;
    EXPECT_EQ(decode_to_utf8(c.bytes, guess).text, c.text) << c.name << " " << guess.name;
  }
  // "Russia is a country of great rivers and forests, and in winter the snow lies deep." in windows-1251.
  const std::string russian = repeat(
      "\xD0\xEE\xF1\xF1\xE8\xFF \xFD\xF2\xEE \xF1\xF2\xF0\xE0\xED\xE0 \xE1\xEE\xEB\xFC\xF8\xE8\xF5 "
      "\xF0\xE5\xEA "
      "\xE8 \xEB\xE5\xF1\xEE\xE2, \xE8 \xE7\xE8\xEC\xEE\xE9 \xF1\xED\xE5\xE3 \xEB\xE5\xE6\xE8\xF2 "
      "\xE3\xEB\xF3\xE1\xEE\xEA\xEE. ",
      3);
  EXPECT_EQ(detect_encoding(russian, "", false).name, "windows-1251");
}

TEST(Encoding, MalformedBytesAreReplacedAndCounted) {
  const auto broken = decode_to_utf8(
      "a\xFF\xC3(b\xED\xA0\x80"
      "c\xE2\x82",
      {"UTF-8", "valid"});
  EXPECT_EQ(valid_utf8_prefix(broken.text), broken.text.size());
  EXPECT_EQ(broken.text.front(), 'a');
  EXPECT_GE(broken.replaced, 4u);
  EXPECT_NE(broken.text.find("(b"), std::string::npos);
  const auto sjis = decode_to_utf8("\x81", {"windows-31j", "declared"});
  EXPECT_EQ(sjis.replaced, 1u);
  // A long text crosses the converter's blocks.
  const std::string long_latin = repeat("\xE9", 100000);
  EXPECT_EQ(decode_to_utf8(long_latin, {"windows-1252", "declared"}).text, repeat("\xC3\xA9", 100000));
  std::string wide;
  for (int i = 0; i < 50000; ++i) wide += std::string("\x3D\xD8\x00\xDE", 4);
  EXPECT_EQ(decode_to_utf8("\xFF\xFE" + wide, {"UTF-16LE", "bom"}).text, repeat("\xF0\x9F\x98\x80", 50000));
}

TEST(Encoding, ValidPrefixFollowsTheUnicodeTable) {
  EXPECT_EQ(valid_utf8_prefix("12345678\xC3\xA9"), 10u);
  for (const char* bad : {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
                          "\xF8\x88\x80\x80\x80", "\x80", "\xE2\x82"})
    EXPECT_EQ(valid_utf8_prefix(bad), 0u);
  for (const char* good :
       {"\xDF\xBF", "\xE0\xA0\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(valid_utf8_prefix(good), std::string_view(good).size());
}

}  // namespace
}  // namespace stoker::corpus
