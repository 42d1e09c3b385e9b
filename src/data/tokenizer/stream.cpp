#include <algorithm>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {
namespace {

// Length of the incomplete character at the end of text: bytes that further ones could complete.
size_t incomplete_tail(std::string_view text) {
  const auto* s = reinterpret_cast<const uint8_t*>(text.data());
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const uint8_t lead = s[text.size() - back];
    if (lead < 0x80) return 0;
    if (lead < 0xC0) continue;
    const size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (need <= back || lead < 0xC2 || lead > 0xF4) return 0;
    // E0, ED, F0 and F4 restrict their first continuation byte.
    if (back >= 2) {
      const uint8_t next = s[text.size() - back + 1];
      if ((lead == 0xE0 && next < 0xA0) || (lead == 0xED && next > 0x9F) || (lead == 0xF0 && next < 0x90) ||
          (lead == 0xF4 && next > 0x8F))
        return 0;
    }
    return back;
  }
  return 0;
}

}  // namespace

std::string StreamDecoder::push(int32_t token) {
  if (!(skip_special_ && tokenizer_->is_special(token))) held_ += tokenizer_->token_bytes(token);
  const size_t keep = incomplete_tail(held_);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  out.swap(held_);
  return out;
}

StreamEncoder::StreamEncoder(const Tokenizer& tokenizer, SpecialTokens special)
    : tokenizer_(&tokenizer), special_(special), cuttable_(!tokenizer.definition().add_prefix_space) {
  // A safe cut must not fall inside an added token or between one and the whitespace that it takes along.
  for (const AddedToken& a : tokenizer.added_tokens()) {
    const std::string probe = a.content + (a.rstrip ? " " : "");
    for (size_t i = 1; i < probe.size(); ++i) cuttable_ &= !is_safe_cut(probe[i - 1], probe[i]);
  }
}

void StreamEncoder::encode_held(size_t size, std::vector<int32_t>& tokens) {
  if (size) tokenizer_->encode_append(std::string_view(held_).substr(0, size), tokens, special_);
  held_.erase(0, size);
}

void StreamEncoder::push(std::string_view text, std::vector<int32_t>& tokens) {
  const size_t old = held_.size();
  held_ += text;
  if (!cuttable_) return;
  // Nothing before `old` was a cut, except possibly at its end.
  const size_t from = old ? old - 1 : 0;
  const size_t cut = last_safe_cut(std::string_view(held_).substr(from), held_.size());
  if (cut) encode_held(from + cut, tokens);
}

void StreamEncoder::finish(std::vector<int32_t>& tokens) { encode_held(held_.size(), tokens); }

}  // namespace stoker::tokenizer
