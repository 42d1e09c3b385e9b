#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/encode_cache.h"
#include "data/tokenizer/normalize.h"

namespace stoker::tokenizer {
namespace {

constexpr int32_t kMaxId =
    (1 << 21) - 1;  // far above any vocabulary; bounds the tables that are indexed by id

void check_definition(const Definition& d) {
  for (size_t i = 0; i < d.vocab.size(); ++i) {
    const int32_t id = d.vocab[i].id;
    if (id < 0 || id >= kMaxId)
      fail(ErrorKind::kData, "the vocabulary has token id {}: expected 0 to {}", id, kMaxId - 1);
    if (i && d.vocab[i - 1].id >= id)
      fail(ErrorKind::kData, "the vocabulary has token id {} twice: each token needs an id of its own", id);
  }
  for (const AddedToken& a : d.added)
    if (a.id < 0 || a.id >= kMaxId)
      fail(ErrorKind::kData, "added token '{}' has id {}: expected 0 to {}", a.content, a.id, kMaxId - 1);
}

Hash128 hash_definition(const Definition& d) {
  Hasher h;
  auto number = [&](int64_t v) { h.update(&v, sizeof v); };
  auto text = [&](std::string_view s) {
    number(static_cast<int64_t>(s.size()));
    h.update(s);
  };
  text("stoker tokenizer 1");
  text(split_name(d.split));
  number(d.nfc | d.add_prefix_space << 1 | d.ignore_merges << 2);
  number(static_cast<int64_t>(d.vocab.size()));
  for (const auto& e : d.vocab) number(e.id), number(e.literal), text(e.bytes);
  number(static_cast<int64_t>(d.merges.size()));
  for (const Merge& m : d.merges) number(m.left), number(m.right), number(m.result), number(m.rank);
  number(static_cast<int64_t>(d.added.size()));
  for (const AddedToken& a : d.added) {
    number(a.id), text(a.content);
    number(a.single_word | a.lstrip << 1 | a.rstrip << 2 | a.normalized << 3 | a.special << 4);
  }
  for (const auto* part : {&d.prefix, &d.suffix}) {
    number(static_cast<int64_t>(part->size()));
    for (int32_t id : *part) number(id);
  }
  return h.digest();
}

std::array<int32_t, 256> byte_tokens(const Definition& d) {
  std::array<int32_t, 256> tokens;
  tokens.fill(-1);
  for (const auto& e : d.vocab)
    if (e.bytes.size() == 1 && !e.literal) tokens[static_cast<uint8_t>(e.bytes[0])] = e.id;
  return tokens;
}

}  // namespace

struct Tokenizer::State {
  explicit State(Definition d);
  void encode_segment(std::string_view text, std::vector<int32_t>& out) const;
  void encode_normalized(std::string_view text, std::vector<int32_t>& out, bool skip_special) const;
  void encode_plain(std::string_view text, std::vector<int32_t>& out) const;

  Definition definition;
  Hash128 hash;
  int32_t vocab_size = 0;
  std::vector<std::string_view> bytes;  // by id
  std::vector<uint8_t> special;         // by id
  std::unordered_map<std::string_view, int32_t> vocab_ids, added_ids;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  Bpe bpe;
  PieceFinder find;
  std::vector<KnownPiece> known;  // the vocabulary's words that are pieces of their own, by id
  std::function<int32_t(std::string_view)> whole;  // with ignore_merges: the token that is the piece, or -1

  // Each encoding thread works with a cache of its own; they are kept for the next one.
  size_t cache_bytes = EncodeCache::kMostBytes;
  mutable std::mutex idle_mutex;
  mutable std::vector<std::unique_ptr<EncodeCache>> idle;
  struct Lease {
    explicit Lease(const State& s) : state(s) {
      std::lock_guard lock(s.idle_mutex);
      if (s.idle.empty()) {
        cache = std::make_unique<EncodeCache>(s.bpe, s.whole, s.known, s.cache_bytes);
      } else {
        cache = std::move(s.idle.back());
        s.idle.pop_back();
      }
    }
    ~Lease() {
      std::lock_guard lock(state.idle_mutex);
      state.idle.push_back(std::move(cache));
    }
    const State& state;
    std::unique_ptr<EncodeCache> cache;
  };
};

namespace {

// The words of the vocabulary that encoding gives back as themselves. Not all do: one may be out of reach of the merges.
std::vector<KnownPiece> known_pieces(const Definition& d, const Bpe& bpe) {
  const auto alphabet = byte_tokens(d);
  const auto has_token = [&](char byte) { return alphabet[static_cast<uint8_t>(byte)] >= 0; };
  std::vector<KnownPiece> known;
  std::vector<PieceKey> keys;
  for (const auto& e : d.vocab) {
    if (e.literal || e.bytes.empty() || e.bytes.size() > kMaxKeyBytes) continue;
    if (!d.ignore_merges && !std::all_of(e.bytes.begin(), e.bytes.end(), has_token)) continue;
    keys.push_back(make_key(e.bytes.data(), e.bytes.size(), e.bytes.size()));
    known.push_back({keys.back(), e.id});
  }
  if (d.ignore_merges) return known;
  std::vector<int32_t> tokens(keys.size() * kMaxKeyTokens), counts(keys.size());
  bpe.merge_keys(keys.data(), keys.size(), tokens.data(), counts.data());
  size_t kept = 0;
  for (size_t i = 0; i < known.size(); ++i)
    if (counts[i] == 1 && tokens[i * kMaxKeyTokens] == known[i].token) known[kept++] = known[i];
  known.resize(kept);
  return known;
}

}  // namespace

Tokenizer::State::State(Definition d)
    : definition((check_definition(d), std::move(d))),
      hash(hash_definition(definition)),
      bpe(byte_tokens(definition), definition.merges),
      find(definition.split) {
  if (definition.ignore_merges)
    whole = [this](std::string_view piece) {
      const auto it = vocab_ids.find(piece);
      return it == vocab_ids.end() ? -1 : it->second;
    };
  for (const auto& e : definition.vocab) vocab_size = std::max(vocab_size, e.id + 1);
  for (const auto& a : definition.added) vocab_size = std::max(vocab_size, a.id + 1);
  bytes.resize(static_cast<size_t>(vocab_size));
  special.resize(static_cast<size_t>(vocab_size));
  vocab_ids.reserve(definition.vocab.size());
  for (const auto& e : definition.vocab) {
    bytes[static_cast<size_t>(e.id)] = e.bytes;
    if (!e.literal) vocab_ids.emplace(e.bytes, e.id);
  }
  known = known_pieces(definition, bpe);
  std::vector<AddedToken> parts[2];
  std::vector<std::string> contents[2];
  for (const auto& a : definition.added) {
    bytes[static_cast<size_t>(a.id)] = a.content;
    special[static_cast<size_t>(a.id)] = a.special;
    added_ids.emplace(a.content, a.id);
    std::string storage;
    parts[a.normalized].push_back(a);
    contents[a.normalized].emplace_back(a.normalized && definition.nfc ? to_nfc(a.content, storage)
                                                                       : a.content);
  }
  raw_matcher = AddedTokenMatcher(std::move(parts[0]), contents[0]);
  normalized_matcher = AddedTokenMatcher(std::move(parts[1]), contents[1]);
  for (const auto* part : {&definition.prefix, &definition.suffix})
    for (int32_t id : *part)
      if (id < 0 || id >= vocab_size)
        fail(ErrorKind::kData, "the post-processor uses token id {}: the vocabulary ends at {}", id,
             vocab_size - 1);
}

namespace {

// Calls plain(text) and token(id) for what lies between and at the matches, in order.
template <typename Plain, typename Token>
void split_added(const AddedTokenMatcher& matcher, std::string_view text, bool skip_special, Plain&& plain,
                 Token&& token) {
  size_t done = 0, from = 0;
  AddedTokenMatcher::Match m;
  while (matcher.find(text, from, done, skip_special, m)) {
    if (done < m.begin) plain(text.substr(done, m.begin - done));
    token(m.token->id);
    done = m.end;
    from = m.resume;
  }
  if (done < text.size()) plain(text.substr(done));
}

}  // namespace

void Tokenizer::State::encode_plain(std::string_view text, std::vector<int32_t>& out) const {
  std::string prefixed;
  if (definition.add_prefix_space && text.front() != ' ') {
    prefixed.reserve(text.size() + 1);
    prefixed += ' ';
    prefixed += text;
    text = prefixed;
  }
  const Lease lease(*this);
  lease.cache->encode(find, text, out);
}

void Tokenizer::State::encode_normalized(std::string_view text, std::vector<int32_t>& out,
                                         bool skip_special) const {
  std::string storage;
  if (definition.nfc) text = to_nfc(text, storage);
  split_added(
      normalized_matcher, text, skip_special, [&](std::string_view part) { encode_plain(part, out); },
      [&](int32_t id) { out.push_back(id); });
}

Tokenizer::Tokenizer(Definition definition) : state_(std::make_unique<State>(std::move(definition))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

const Definition& Tokenizer::definition() const { return state_->definition; }
int32_t Tokenizer::vocab_size() const { return state_->vocab_size; }
Hash128 Tokenizer::content_hash() const { return state_->hash; }

void Tokenizer::limit_memory(size_t bytes_per_thread) {
  state_->idle.clear();
  state_->cache_bytes = bytes_per_thread;
}

void Tokenizer::encode_append(std::string_view text, std::vector<int32_t>& tokens,
                              SpecialTokens special) const {
  const bool skip = special == SpecialTokens::kAsText;
  split_added(
      state_->raw_matcher, text, skip,
      [&](std::string_view part) { state_->encode_normalized(part, tokens, skip); },
      [&](int32_t id) { tokens.push_back(id); });
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<int32_t> tokens;
  encode_append(text, tokens, special);
  return tokens;
}

std::vector<int32_t> Tokenizer::encode_with_template(std::string_view text, SpecialTokens special) const {
  std::vector<int32_t> tokens = definition().prefix;
  encode_append(text, tokens, special);
  tokens.insert(tokens.end(), definition().suffix.begin(), definition().suffix.end());
  return tokens;
}

std::string_view Tokenizer::token_bytes(int32_t token) const {
  if (token < 0 || token >= vocab_size())
    fail(ErrorKind::kData,
         "token id {} is outside this tokenizer's vocabulary of {}: was it made by another one?", token,
         vocab_size());
  return state_->bytes[static_cast<size_t>(token)];
}

bool Tokenizer::is_special(int32_t token) const {
  return token >= 0 && token < vocab_size() && state_->special[static_cast<size_t>(token)];
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool skip_special) const {
  std::string out;
  for (int32_t token : tokens) {
    const std::string_view bytes = token_bytes(token);
    if (!(skip_special && is_special(token))) out += bytes;
  }
  return out;
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view bytes) const {
  for (const auto* ids : {&state_->added_ids, &state_->vocab_ids})
    if (const auto it = ids->find(bytes); it != ids->end()) return it->second;
  return {};
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const { return definition().added; }

std::optional<int32_t> Tokenizer::end_of_text() const {
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"})
    if (const auto it = state_->added_ids.find(name); it != state_->added_ids.end()) return it->second;
  return {};
}

}  // namespace stoker::tokenizer
