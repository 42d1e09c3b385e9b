// data/tokenizer/json_file.h
// Hugging Face's tokenizer.json <-> Definition. docs/formats/tokenizer.md has what is supported.
// Errors  Data: not JSON, a field of the wrong type, an inconsistent vocabulary. Usage: a feature that would
// change
//         ids and is not supported; the message names the field
#pragma once
#include <string>
#include <string_view>

#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

Definition definition_from_json(std::string_view json);
std::string definition_to_json(const Definition& definition);

// GPT-2's pair of files: vocab.json (name -> id) and merges.txt (a "#version" line, then "left right" lines).
Definition definition_from_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt,
                                            SplitPattern split);
std::string vocab_to_json(const Definition& definition);
std::string merges_to_text(const Definition& definition);

// tiktoken's ranks: "base64(bytes) rank" lines; every split of a token into two tokens is a merge of its
// rank.
Definition definition_from_tiktoken(std::string_view ranks, SplitPattern split);
// The special tokens that tiktoken's own code adds to a published file: cl100k_base.tiktoken and its kin.
std::vector<AddedToken> published_special_tokens(std::string_view encoding_name);

}  // namespace stoker::tokenizer
