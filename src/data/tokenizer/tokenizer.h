// data/tokenizer/tokenizer.h
// Text <-> tokens by byte-level BPE, as Hugging Face tokenizers and tiktoken do it.
// Text     any bytes; decode(encode(x)) == x for every x unless the tokenizer normalises (NFC),
//          prefixes a space or has added tokens that strip whitespace
// Ids      int32, 0 <= id < vocab_size(); gaps are possible and decode to nothing
// Parity   the ids of tokenizers 0.23 for UTF-8 text (docs/formats/tokenizer.md says what is
//          supported)
// Threads  a Tokenizer never changes what it says: any number of threads may use one
// Cost     linear in the text for every input; frequent pieces come from a cache, up to 40 MB per
//          encoding thread unless limit_memory() says less
// Errors   Usage: an unsupported feature or unknown split pattern. Data: malformed file, inconsistent
//          vocabulary, a byte that the vocabulary has no token for, an id out of range. Storage:
//          unreadable or unwritable file
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

// What to do where the text spells a special token. kAsText (documents: nobody can smuggle an end-of-text
// token in) encodes the characters; kRecognise (prompts; the default of Hugging Face) gives the token. Added
// tokens that are not special are recognised either way.
enum class SpecialTokens { kAsText, kRecognise };

class Tokenizer {
 public:
  explicit Tokenizer(Definition definition);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // A tokenizer.json; a directory with tokenizer.json or with vocab.json and merges.txt (GPT-2's split unless
  // `split` says otherwise); or a .tiktoken ranks file, for which `split` must name the pattern.
  static Tokenizer load(const std::filesystem::path& path, std::optional<SplitPattern> split = {});
  static Tokenizer from_json(std::string_view json);
  static Tokenizer from_tiktoken(std::string_view ranks, SplitPattern split,
                                 std::vector<AddedToken> special = {});
  static Tokenizer from_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt,
                                         SplitPattern split);

  std::string to_json() const;  // a Hugging Face tokenizer.json; from_json gives an equal tokenizer
  // Writes tokenizer.json (path ends in .json) or, into a directory made if missing, tokenizer.json with
  // vocab.json and merges.txt beside it. Whole files or nothing.
  void save(const std::filesystem::path& path) const;

  const Definition& definition() const;
  int32_t vocab_size() const;    // highest id + 1
  Hash128 content_hash() const;  // of everything that encode and decode depend on

  std::vector<int32_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;
  void encode_append(std::string_view text, std::vector<int32_t>& tokens,
                     SpecialTokens special = SpecialTokens::kAsText) const;
  // With the post-processor's template around it (Llama-3: begin-of-text first).
  std::vector<int32_t> encode_with_template(std::string_view text,
                                            SpecialTokens special = SpecialTokens::kRecognise) const;

  // From now on encoding takes about so much memory a thread; less memory is slower. Not beside encoding.
  void limit_memory(size_t bytes_per_thread);

  std::string decode(std::span<const int32_t> tokens, bool skip_special = false) const;  // bytes
  std::string_view token_bytes(int32_t token) const;                                     // "" for a gap
  bool is_special(int32_t token) const;
  // Added tokens by content, others by their bytes; in the notation of vocabulary files (Ġthe) see
  // definition.h.
  std::optional<int32_t> token_to_id(std::string_view bytes) const;
  const std::vector<AddedToken>& added_tokens() const;
  // The token that ends a document: the first of <|endoftext|>, <|end_of_text|>, </s>, <eos>, <|im_end|> it
  // has.
  std::optional<int32_t> end_of_text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Decoding as tokens arrive: push() returns the text that is now certain and holds back the start of a
// character whose bytes are not complete. Bytes that cannot become a character pass through.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  std::string push(int32_t token);
  std::string finish();  // what is held back, as it is

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string held_;
};

// Encoding text that arrives in parts, with the result of encoding it at once. Holds back what a later part
// could change: usually less than a line, at most everything since the last place where a word ends.
class StreamEncoder {
 public:
  explicit StreamEncoder(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::kAsText);
  void push(std::string_view text, std::vector<int32_t>& tokens);
  void finish(std::vector<int32_t>& tokens);  // and ready for another text

 private:
  void encode_held(size_t size, std::vector<int32_t>& tokens);
  const Tokenizer* tokenizer_;
  SpecialTokens special_;
  bool cuttable_;
  std::string held_;
};

}  // namespace stoker::tokenizer
