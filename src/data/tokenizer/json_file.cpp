#include "data/tokenizer/json_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {
namespace {

using nlohmann::json;

[[noreturn]] void bad(std::string_view where, std::string_view expected, const json& found) {
  std::string text = found.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  fail(ErrorKind::kData, "tokenizer.json: {} should be {}, found {}", where, expected, text);
}

const json& member(const json& object, const char* name, std::string_view where) {
  if (!object.is_object()) bad(where, "an object", object);
  const auto it = object.find(name);
  if (it == object.end()) fail(ErrorKind::kData, "tokenizer.json: {} has no field '{}'", where, name);
  return *it;
}

// null when missing, or when `object` is none.
const json& optional_member(const json& object, const char* name) {
  static const json none;
  if (!object.is_object()) return none;
  const auto it = object.find(name);
  return it == object.end() ? none : *it;
}

std::string text_of(const json& value, std::string_view where) {
  if (!value.is_string()) bad(where, "a string", value);
  return value.get<std::string>();
}

int32_t id_of(const json& value, std::string_view where) {
  if (!value.is_number_integer() || value < 0 || value > INT32_MAX)
    bad(where, "a token id (0 to 2147483647)", value);
  return value.get<int32_t>();
}

bool flag(const json& object, const char* name, bool fallback, std::string_view where) {
  const json& value = optional_member(object, name);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) bad(fmt::format("{}.{}", where, name), "true or false", value);
  return value.get<bool>();
}

// Parses text whose nesting is that of a tokenizer: what reads and writes it again may then recurse.
json parse_shallow(std::string_view text, std::string_view file) {
  constexpr int kDeepest = 32;
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      while (++i < text.size() && text[i] != '"') i += text[i] == '\\';
    } else if (c == '{' || c == '[') {
      if (++depth > kDeepest)
        fail(ErrorKind::kData, "{} is nested more than {} deep: this is not a tokenizer", file, kDeepest);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  try {
    return json::parse(text);
  } catch (const json::exception& e) {
    fail(ErrorKind::kData, "{} is not valid JSON: {}", file, e.what());
  }
}

[[noreturn]] void unsupported(std::string_view what, std::string_view supported) {
  fail(ErrorKind::kUsage, "tokenizer.json: {} is not supported (supported: {})", what, supported);
}

void read_normalizer(const json& n, Definition& d) {
  if (n.is_null()) return;
  const std::string type = text_of(member(n, "type", "normalizer"), "normalizer.type");
  if (type == "NFC") {
    d.nfc = true;
  } else if (type == "Sequence") {
    const json& parts = member(n, "normalizers", "normalizer");
    if (!parts.is_array()) bad("normalizer.normalizers", "a list", parts);
    for (const json& part : parts) read_normalizer(part, d);
  } else {
    unsupported("normalizer " + type, "null, NFC");
  }
}

void read_split(const json& p, Definition& d) {
  const json& pattern = member(p, "pattern", "pre_tokenizer");
  const json& regex = optional_member(pattern, "Regex");
  if (!regex.is_string()) unsupported("a Split pre-tokenizer without a Regex pattern", "Regex patterns");
  const std::string behavior = text_of(member(p, "behavior", "pre_tokenizer"), "pre_tokenizer.behavior");
  const bool invert = flag(p, "invert", false, "pre_tokenizer");
  // The known patterns match every character, so removing what is between matches removes nothing.
  if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert))
    unsupported(fmt::format("Split behavior {} with invert {}", behavior, invert),
                "Isolated with invert false, Removed with invert true");
  d.split = split_from_regex(regex.get<std::string>());
}

void read_pre_tokenizer(const json& p, Definition& d) {
  if (p.is_null())
    unsupported("a tokenizer without pre_tokenizer", "ByteLevel, Sequence of Split and ByteLevel");
  std::vector<const json*> parts;
  if (text_of(member(p, "type", "pre_tokenizer"), "pre_tokenizer.type") == "Sequence") {
    const json& list = member(p, "pretokenizers", "pre_tokenizer");
    if (!list.is_array()) bad("pre_tokenizer.pretokenizers", "a list", list);
    for (const json& part : list) parts.push_back(&part);
  } else {
    parts.push_back(&p);
  }
  const char* kSupported = "ByteLevel alone, or a Sequence of one Split and one ByteLevel";
  if (parts.empty() || parts.size() > 2) unsupported("a pre_tokenizer of this shape", kSupported);
  const json& byte_level = *parts.back();
  const std::string last = text_of(member(byte_level, "type", "pre_tokenizer"), "pre_tokenizer.type");
  if (last != "ByteLevel") unsupported("pre_tokenizer " + last, kSupported);
  d.add_prefix_space = flag(byte_level, "add_prefix_space", true, "pre_tokenizer");
  const bool use_regex = flag(byte_level, "use_regex", true, "pre_tokenizer");
  if (parts.size() == 1) {
    if (!use_regex) unsupported("a ByteLevel pre_tokenizer without any split", kSupported);
    d.split = SplitPattern::kGpt2;
    return;
  }
  const std::string first = text_of(member(*parts[0], "type", "pre_tokenizer"), "pre_tokenizer.type");
  if (first != "Split") unsupported("pre_tokenizer " + first, kSupported);
  if (use_regex) unsupported("ByteLevel with use_regex after a Split", "use_regex false");
  if (d.add_prefix_space) unsupported("add_prefix_space after a Split", "add_prefix_space false");
  read_split(*parts[0], d);
}

// The template of a post-processor for one text: ids before and after it.
void read_post_processor(const json& p, Definition& d) {
  if (p.is_null()) return;
  const std::string type = text_of(member(p, "type", "post_processor"), "post_processor.type");
  if (type == "Sequence") {
    const json& parts = member(p, "processors", "post_processor");
    if (!parts.is_array()) bad("post_processor.processors", "a list", parts);
    for (const json& part : parts) read_post_processor(part, d);
    return;
  }
  if (type == "ByteLevel") return;  // it moves offsets only
  if (type != "TemplateProcessing") unsupported("post_processor " + type, "ByteLevel, TemplateProcessing");
  const json& single = member(p, "single", "post_processor");
  const json& specials = member(p, "special_tokens", "post_processor");
  if (!single.is_array()) bad("post_processor.single", "a list", single);
  std::vector<int32_t> before, after;
  bool seen_text = false;
  for (const json& piece : single) {
    if (const json& sequence = optional_member(piece, "Sequence"); !sequence.is_null()) {
      if (seen_text) unsupported("a template that repeats the text", "the text once");
      seen_text = true;
      continue;
    }
    const std::string name =
        text_of(member(member(piece, "SpecialToken", "post_processor.single"), "id", "SpecialToken"),
                "post_processor.single.SpecialToken.id");
    const json& ids = member(member(specials, name.c_str(), "post_processor.special_tokens"), "ids", name);
    if (!ids.is_array()) bad("post_processor.special_tokens.ids", "a list", ids);
    for (const json& id : ids)
      (seen_text ? after : before).push_back(id_of(id, "post_processor.special_tokens.ids"));
  }
  if (!seen_text) unsupported("a template without the text", "the text once");
  d.prefix.insert(d.prefix.begin(), before.begin(), before.end());
  d.suffix.insert(d.suffix.end(), after.begin(), after.end());
}

std::string gap_name(int32_t id) { return fmt::format("<|gap {}|>", id); }

using NameToId = std::unordered_map<std::string, int32_t>;

NameToId read_vocab(const json& vocab, std::string_view where, Definition& d) {
  if (!vocab.is_object()) bad(where, "an object of names and ids", vocab);
  NameToId ids;
  ids.reserve(vocab.size());
  for (const auto& [name, value] : vocab.items()) {
    Definition::Entry e;
    e.id = id_of(value, fmt::format("{}[{}]", where, name));
    ids.emplace(name, e.id);
    if (name == gap_name(e.id)) continue;
    if (!alphabet_to_bytes(name, e.bytes) || e.bytes.empty()) e.bytes = name, e.literal = true;
    d.vocab.push_back(std::move(e));
  }
  std::sort(d.vocab.begin(), d.vocab.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return ids;
}

void add_merge(const NameToId& ids, const std::string& left, const std::string& right, Definition& d) {
  auto id = [&](const std::string& name) {
    const auto it = ids.find(name);
    if (it == ids.end())
      fail(ErrorKind::kData, "merge {} ('{}' + '{}') needs token '{}', which is not in the vocabulary",
           d.merges.size(), left, right, name);
    return it->second;
  };
  d.merges.push_back({id(left), id(right), id(left + right), static_cast<uint32_t>(d.merges.size())});
}

void add_merge_line(const NameToId& ids, std::string_view line, Definition& d) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string_view::npos)
    fail(ErrorKind::kData, "merge {} is '{}': expected two names with one space between them",
         d.merges.size(), line.substr(0, 80));
  add_merge(ids, std::string(line.substr(0, space)), std::string(line.substr(space + 1)), d);
}

void read_model(const json& model, Definition& d) {
  const json& type = optional_member(model, "type");
  if (!type.is_null() && type != "BPE")
    unsupported("model " + text_of(type, "model.type"), "BPE over the byte alphabet");
  const json& vocab = member(model, "vocab", "model");
  const json& dropout = optional_member(model, "dropout");
  if (!dropout.is_null() && dropout != 0)
    unsupported("dropout " + dropout.dump(), "null: encoding is deterministic");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = optional_member(model, name);
    if (!value.is_null() && value != "")
      unsupported(fmt::format("model.{} {}", name, value.dump(-1, ' ', true, json::error_handler_t::replace)),
                  "null");
  }
  d.ignore_merges = flag(model, "ignore_merges", false, "model");
  const NameToId ids = read_vocab(vocab, "model.vocab", d);
  const json& merges = member(model, "merges", "model");
  if (!merges.is_array()) bad("model.merges", "a list", merges);
  d.merges.reserve(merges.size());
  for (const json& m : merges) {
    if (m.is_string()) {
      add_merge_line(ids, m.get_ref<const std::string&>(), d);
    } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      add_merge(ids, m[0].get_ref<const std::string&>(), m[1].get_ref<const std::string&>(), d);
    } else {
      bad(fmt::format("model.merges[{}]", d.merges.size()), "\"left right\" or [\"left\", \"right\"]", m);
    }
  }
  // With these, the reference would go its own way for a byte without a token; here that byte is an error.
  const bool whole = std::count_if(d.vocab.begin(), d.vocab.end(),
                                   [](const auto& e) { return e.bytes.size() == 1 && !e.literal; }) == 256;
  if (!whole && flag(model, "byte_fallback", false, "model"))
    unsupported("byte_fallback", "a vocabulary with all 256 bytes");
  if (!whole && !optional_member(model, "unk_token").is_null())
    unsupported("unk_token", "a vocabulary with all 256 bytes");
}

// An added token has the id of the model's entry of its name; if there is none the reference hands out the
// next free one, whatever the file says. A file that says otherwise would mean different ids to different
// readers.
void check_added_id(const AddedToken& token, const NameToId& model_ids, const std::vector<AddedToken>& before,
                    int32_t& highest) {
  const auto in_model = model_ids.find(token.content);
  int32_t expected = in_model != model_ids.end()
                         ? in_model->second
                         : std::max(highest + 1, static_cast<int32_t>(model_ids.size()));
  for (const auto& b : before)
    if (b.content == token.content) expected = b.id;
  if (token.id != expected)
    fail(ErrorKind::kData,
         "tokenizer.json: added token '{}' has id {}, but Hugging Face tokenizers reads this file as id {}: "
         "give the "
         "added tokens ids that follow the vocabulary without gaps",
         token.content, token.id, expected);
  highest = std::max(highest, token.id);
}

void append_quoted(std::string& out, std::string_view text) { out += json(std::string(text)).dump(); }

std::string entry_name(const Definition::Entry& e) {
  return e.literal ? e.bytes : bytes_to_alphabet(e.bytes);
}

}  // namespace

Definition definition_from_json(std::string_view text) {
  const json root = parse_shallow(text, "tokenizer.json");
  Definition d;
  read_model(member(root, "model", "the file"), d);
  read_normalizer(optional_member(root, "normalizer"), d);
  read_pre_tokenizer(optional_member(root, "pre_tokenizer"), d);
  const json& decoder = optional_member(root, "decoder");
  if (!decoder.is_null()) {
    const std::string type = text_of(member(decoder, "type", "decoder"), "decoder.type");
    if (type != "ByteLevel") unsupported("decoder " + type, "ByteLevel");
  }
  const json& added = optional_member(root, "added_tokens");
  if (!added.is_null() && !added.is_array()) bad("added_tokens", "a list", added);
  NameToId model_ids;
  for (const auto& e : d.vocab) model_ids.emplace(entry_name(e), e.id);
  const size_t gaps = member(member(root, "model", "the file"), "vocab", "model").size() - d.vocab.size();
  for (size_t i = 0; i < gaps; ++i)
    model_ids.emplace("\x01" + std::to_string(i), -1);  // they count, no name has them
  int32_t highest = -1;
  for (const json& a : added) {
    AddedToken t;
    t.content = text_of(member(a, "content", "added_tokens"), "added_tokens.content");
    const std::string where = "added token '" + t.content + "'";
    t.id = id_of(member(a, "id", where), where + " id");
    t.single_word = flag(a, "single_word", false, where);
    t.lstrip = flag(a, "lstrip", false, where);
    t.rstrip = flag(a, "rstrip", false, where);
    t.normalized = flag(a, "normalized", true, where);
    t.special = flag(a, "special", false, where);
    if (t.content.empty()) continue;  // as the reference does
    check_added_id(t, model_ids, d.added, highest);
    std::erase_if(d.added, [&](const auto& b) { return b.content == t.content; });
    d.added.push_back(std::move(t));
  }
  const json& post = optional_member(root, "post_processor");
  read_post_processor(post, d);
  d.post_processor = post.dump();
  return d;
}

std::string definition_to_json(const Definition& d) {
  std::string out =
      "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  bool first = true;
  for (const AddedToken& a : d.added) {
    out += first ? "\n" : ",\n";
    first = false;
    out += fmt::format("    {{\"id\": {}, \"content\": ", a.id);
    append_quoted(out, a.content);
    out += fmt::format(
        ", \"single_word\": {}, \"lstrip\": {}, \"rstrip\": {}, \"normalized\": {}, \"special\": {}}}",
        a.single_word, a.lstrip, a.rstrip, a.normalized, a.special);
  }
  out += first ? "],\n" : "\n  ],\n";
  out += fmt::format("  \"normalizer\": {},\n", d.nfc ? R"({"type": "NFC"})" : "null");
  const std::string byte_level =
      R"({{"type": "ByteLevel", "add_prefix_space": {}, "trim_offsets": {}, "use_regex": {}}})";
  if (d.split == SplitPattern::kGpt2) {
    out += fmt::format("  \"pre_tokenizer\": {},\n",
                       fmt::format(fmt::runtime(byte_level), d.add_prefix_space, true, true));
  } else {
    if (d.add_prefix_space)
      fail(ErrorKind::kUsage, "a tokenizer.json cannot hold add_prefix_space with split pattern {}",
           split_name(d.split));
    out +=
        "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": \"Split\", "
        "\"pattern\": {\"Regex\": ";
    append_quoted(out, split_regex(d.split));
    out += "}, \"behavior\": \"Isolated\", \"invert\": false},\n    " +
           fmt::format(fmt::runtime(byte_level), false, true, false) + "\n  ]},\n";
  }
  out += "  \"post_processor\": " + d.post_processor + ",\n";
  out += "  \"decoder\": " + fmt::format(fmt::runtime(byte_level), true, true, true) + ",\n";
  out +=
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": "
      "false,\n"
      "    \"byte_fallback\": false,\n";
  out += fmt::format("    \"ignore_merges\": {},\n    \"vocab\": {{", d.ignore_merges);
  // Ids below an added one that nothing has: without an entry the reference would move the added tokens down.
  int32_t last_added = -1;
  for (const AddedToken& a : d.added) last_added = std::max(last_added, a.id);
  std::vector<bool> taken(static_cast<size_t>(last_added + 1));
  auto take = [&](int32_t id) {
    if (id <= last_added) taken[static_cast<size_t>(id)] = true;
  };
  for (const auto& e : d.vocab) take(e.id);
  for (const AddedToken& a : d.added) take(a.id);
  first = true;
  auto entry = [&](const std::string& name, int32_t id) {
    out += first ? "\n      " : ",\n      ";
    first = false;
    append_quoted(out, name);
    out += fmt::format(": {}", id);
  };
  for (const auto& e : d.vocab) entry(entry_name(e), e.id);
  for (size_t id = 0; id < taken.size(); ++id)
    if (!taken[id]) entry(gap_name(static_cast<int32_t>(id)), static_cast<int32_t>(id));
  out += first ? "},\n    \"merges\": [" : "\n    },\n    \"merges\": [";
  std::unordered_map<int32_t, std::string> names;
  names.reserve(d.vocab.size());
  for (const auto& e : d.vocab) names.emplace(e.id, entry_name(e));
  first = true;
  for (const Merge& m : d.merges) {
    out += first ? "\n      [" : ",\n      [";
    first = false;
    append_quoted(out, names.at(m.left));
    out += ", ";
    append_quoted(out, names.at(m.right));
    out += "]";
  }
  out += first ? "]\n  }\n}\n" : "\n    ]\n  }\n}\n";
  return out;
}

Definition definition_from_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt,
                                            SplitPattern split) {
  Definition d;
  d.split = split;
  const json vocab = parse_shallow(vocab_json, "vocab.json");
  const NameToId ids = read_vocab(vocab, "vocab.json", d);
  size_t at = 0;
  for (bool first = true; at < merges_txt.size(); first = false) {
    const size_t end = std::min(merges_txt.find('\n', at), merges_txt.size());
    std::string_view line = merges_txt.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    add_merge_line(ids, line, d);
  }
  // These files do not say which entries are special; GPT-2's one is known by name.
  for (const auto& e : d.vocab)
    if (e.bytes == "<|endoftext|>") d.added.push_back({e.id, e.bytes, false, false, false, false, true});
  return d;
}

std::string vocab_to_json(const Definition& d) {
  std::string out = "{";
  auto entry = [&](const std::string& name, int32_t id) {
    if (out.size() > 1) out += ", ";
    append_quoted(out, name);
    out += fmt::format(": {}", id);
  };
  std::unordered_map<int32_t, bool> seen;
  for (const auto& e : d.vocab) entry(entry_name(e), e.id), seen[e.id] = true;
  for (const auto& a : d.added)
    if (!seen[a.id]) entry(a.content, a.id);
  return out + "}\n";
}

std::string merges_to_text(const Definition& d) {
  std::unordered_map<int32_t, std::string> names;
  for (const auto& e : d.vocab) names.emplace(e.id, entry_name(e));
  std::string out = "#version: 0.2\n";
  for (const Merge& m : d.merges) out += names.at(m.left) + " " + names.at(m.right) + "\n";
  return out;
}

}  // namespace stoker::tokenizer
