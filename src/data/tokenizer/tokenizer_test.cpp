// Properties: nothing is lost, cutting and caching change nothing, training does not depend on threads; and errors
// that say what to do.
#include "data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "base/threads.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/trainer.h"

namespace stoker::tokenizer {
namespace {

const std::string kGoldenFiles = STOKER_SOURCE_DIR "/tests/golden/tokenizer/";

std::string random_bytes(std::mt19937& random, size_t size) {
  static const std::string kLikely = "  \n\n\tthe of and 's 12 <|endoftext|> \xe4\xb8\xad\xc3\xa9!?(";
  std::string out;
  while (out.size() < size) {
    switch (random() % 4) {
      case 0:
        out += static_cast<char>(random());
        break;
      case 1:
        out.append(random() % 100, static_cast<char>(random()));
        break;
      default:
        out += kLikely.substr(random() % kLikely.size(), random() % 12);
    }
  }
  return out;
}

class AllPatterns : public testing::TestWithParam<SplitPattern> {
 protected:
  Tokenizer tokenizer_ = Tokenizer::load(kGoldenFiles + std::string(split_name(GetParam())) + ".json");
};

TEST_P(AllPatterns, AnyBytesComeBack) {
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_bytes(random, random() % 700);
    for (auto mode : {SpecialTokens::kAsText, SpecialTokens::kRecognise}) {
      const auto ids = tokenizer_.encode(text, mode);
      ASSERT_EQ(tokenizer_.decode(ids), text);
      std::string streamed;
      StreamDecoder stream(tokenizer_, false);
      for (int32_t id : ids) streamed += stream.push(id);
      ASSERT_EQ(streamed + stream.finish(), text);
    }
  }
}

TEST_P(AllPatterns, PartsGiveTheTokensOfTheWhole) {
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_bytes(random, 1000);
    for (auto mode : {SpecialTokens::kAsText, SpecialTokens::kRecognise}) {
      StreamEncoder stream(tokenizer_, mode);
      std::vector<int32_t> tokens;
      for (size_t at = 0; at < text.size();) {
        const size_t n = 1 + random() % 90;
        stream.push(std::string_view(text).substr(at, n), tokens);
        at += n;
      }
      stream.finish(tokens);
      ASSERT_EQ(tokens, tokenizer_.encode(text, mode));
    }
  }
}

// The first encoding fills the cache, the second reads it; a tokenizer of its own has none.
TEST_P(AllPatterns, TheCacheChangesNothing) {
  std::mt19937 random(3);
  std::vector<std::string> texts;
  for (int i = 0; i < 20; ++i) texts.push_back(random_bytes(random, 3000));
  std::vector<std::vector<int32_t>> first;
  for (const auto& text : texts) first.push_back(Tokenizer(tokenizer_.definition()).encode(text));
  for (int round = 0; round < 2; ++round)
    for (size_t i = 0; i < texts.size(); ++i) ASSERT_EQ(tokenizer_.encode(texts[i]), first[i]);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < texts.size(); ++i) wrong[t] += tokenizer_.encode(texts[i]) != first[i];
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

INSTANTIATE_TEST_SUITE_P(Patterns, AllPatterns, testing::ValuesIn(kSplitPatterns), [](const auto& name) {
  std::string s(split_name(name.param));
  if (s.find('.') != s.npos) s.replace(s.find('.'), 1, "_");
  return s;
});

// Pieces that no longer find room in the cache, short and long ones, some of many tokens.
TEST_P(AllPatterns, ALittleMemoryChangesNothing) {
  std::mt19937 random(5);
  std::string text;
  for (int i = 0; i < 30000; ++i) {
    const size_t length = i % 50 ? 2 + random() % 12 : 20 + random() % 60;
    for (size_t k = 0; k < length; ++k) text += static_cast<char>('a' + random() % 26);
    text += ' ';
    if (i % 3 == 0) text += "the training data ";
  }
  Tokenizer small(tokenizer_.definition());
  small.limit_memory(0);
  const auto expected = tokenizer_.encode(text);
  for (int round = 0; round < 2; ++round) ASSERT_EQ(small.encode(text), expected);
}

// So much at once that the tokens' memory is asked for beforehand: behind what is there, and more than was guessed.
TEST_P(AllPatterns, AMuchLongerTextGoesBehindWhatIsThere) {
  std::string text;
  for (uint32_t i = 0; text.size() < (size_t{9} << 20); ++i)
    text += static_cast<char>('!' + i * i % 61 + i % 7);
  std::vector<int32_t> tokens{1, 2, 3};
  tokenizer_.encode_append(text, tokens);
  ASSERT_EQ((std::vector<int32_t>(tokens.begin(), tokens.begin() + 3)), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(tokenizer_.decode(std::span(tokens).subspan(3)), text);
}

// The definition of BPE, as plainly as it can be said.
std::vector<int32_t> merge_plainly(const Definition& d, std::string_view piece) {
  std::vector<int32_t> tokens;
  for (char c : piece)
    for (const auto& e : d.vocab)
      if (!e.literal && e.bytes == std::string(1, c)) tokens.push_back(e.id);
  for (;;) {
    const Merge* best = nullptr;
    size_t where = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i)
      for (const Merge& m : d.merges)
        if (m.left == tokens[i] && m.right == tokens[i + 1] && (!best || m.rank < best->rank))
          best = &m, where = i;
    if (!best) return tokens;
    tokens[where] = best->result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

TEST(Bpe, ShortAndLongPiecesFollowTheDefinition) {
  const auto t = Tokenizer::load(kGoldenFiles + "gpt2.json");
  std::array<int32_t, 256> bytes;
  for (const auto& e : t.definition().vocab)
    if (e.bytes.size() == 1) bytes[static_cast<uint8_t>(e.bytes[0])] = e.id;
  const Bpe bpe(bytes, t.definition().merges), narrow(bytes, t.definition().merges, Isa::kBaseline);
  std::mt19937 random(4);
  std::vector<PieceKey> keys;
  std::vector<std::vector<int32_t>> expected;
  const std::string likely = "aaaeeinnrgst bdco";
  for (int i = 0; i < 300; ++i) {
    std::string piece;
    for (size_t size = 1 + random() % (i % 3 ? 20 : 130); piece.size() < size;)
      piece.append(i % 7 ? 1 : random() % 40,
                   i % 5 ? likely[random() % likely.size()] : static_cast<char>(random()));
    std::vector<int32_t> tokens;
    bpe.merge(piece, tokens);
    ASSERT_EQ(tokens, merge_plainly(t.definition(), piece)) << testing::PrintToString(piece);
    if (piece.size() > kMaxKeyBytes) continue;
    keys.push_back(make_key(piece.data(), piece.size(), piece.size()));
    expected.push_back(tokens);
  }
  // The same many at a time: every number of them, so that lanes are full, half empty and left over.
  for (const Bpe* b : {&bpe, &narrow})
    for (size_t count = 0; count <= keys.size(); count += count < 40 ? 1 : 13) {
      std::vector<int32_t> tokens(count * kMaxKeyTokens), counts(count);
      b->merge_keys(keys.data(), count, tokens.data(), counts.data());
      for (size_t i = 0; i < count; ++i) {
        const int32_t* const first = tokens.data() + i * kMaxKeyTokens;
        ASSERT_EQ(std::vector<int32_t>(first, first + counts[i]), expected[i]) << i << " of " << count;
      }
    }
}

// In a run of one character the next merge is often right behind the last, but not where the last made a pair of a lower rank.
TEST(Bpe, InARunAPairThatCameAboutMayGoBefore) {
  for (const char* merges : {R"(["a a", "aa a"])", R"(["aa a", "a a"])", R"(["aa aa", "a a", "aa a"])"}) {
    const auto t = Tokenizer::from_json(
        std::string(
            R"({"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1, "aaa": 2, "aaaa": 3}, "merges": )") +
        merges + R"(}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}})");
    for (size_t size = 1; size < 90; ++size) {
      const std::string run(size, 'a');
      ASSERT_EQ(t.encode(run), merge_plainly(t.definition(), run)) << merges << " " << size;
    }
  }
}

TEST(PairRanks, FindsEveryPairAndNoOther) {
  for (const size_t size : {0, 1, 7, 1000, 50000}) {
    std::mt19937 random(static_cast<unsigned>(size));
    std::map<std::pair<int32_t, int32_t>, uint32_t> truth;
    std::vector<Merge> merges;
    for (uint32_t i = 0; i < size; ++i) {
      const auto id = [&] { return static_cast<int32_t>(random() % (i % 3 ? 300 : 200000)); };
      merges.push_back({id(), id(), static_cast<int32_t>(i), i});
      truth[{merges.back().left, merges.back().right}] = i;  // of a pair listed twice the last
    }
    const PairRanks ranks(merges);
    for (const Merge& m : merges) ASSERT_EQ(ranks.find(m.left, m.right), (truth[{m.left, m.right}]));
    for (int i = 0; i < 2000; ++i) {
      const auto left = static_cast<int32_t>(random() % 300), right = static_cast<int32_t>(random() % 300);
      const auto it = truth.find({left, right});
      ASSERT_EQ(ranks.find(left, right), it == truth.end() ? PairRanks::kNone : it->second);
    }
  }
}

TEST(Bpe, AMillionEqualCharactersAreNotQuadratic) {
  const auto t = Tokenizer::load(kGoldenFiles + "llama3.json");
  for (const char* unit : {"a", "=", " ", "\xe4\xb8\xad", "ab"}) {
    std::string text;
    while (text.size() < 1000000) text += unit;
    EXPECT_EQ(t.decode(t.encode(text)), text);
  }
}

TEST(Bpe, AByteWithoutTokenIsAnErrorNotALoss) {
  const auto t = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
          "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}})");
  EXPECT_EQ(t.encode("abab"), (std::vector<int32_t>{2, 2}));
  try {
    t.encode("abc");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_NE(std::string(e.what()).find("no token for byte 0x63 ('c')"), std::string::npos) << e.what();
  }
}

TEST(StreamDecoder, HoldsBackIncompleteCharactersOnly) {
  const auto t = Tokenizer::load(kGoldenFiles + "gpt2.json");
  auto push = [&](StreamDecoder& d, std::string_view bytes) {
    std::string out;
    for (char c : bytes) out += d.push(*t.token_to_id(std::string(1, c)));
    return out;
  };
  StreamDecoder d(t);
  EXPECT_EQ(push(d, "a\xe4\xb8"), "a");
  EXPECT_EQ(push(d, "\xad"), "\xe4\xb8\xad");
  EXPECT_EQ(push(d, "\xf0\x9f\x99"), "");
  EXPECT_EQ(push(d, "x"), "\xf0\x9f\x99x");
  EXPECT_EQ(push(d, "\xff\xc0"), "\xff\xc0");  // can start no character
  EXPECT_EQ(push(d, "\xed\xa0"), "\xed\xa0");  // would be a surrogate
  EXPECT_EQ(push(d, "\xc3"), "");
  EXPECT_EQ(d.finish(), "\xc3");
  EXPECT_EQ(d.push(*t.token_to_id("<|endoftext|>")), "");
}

TEST(Normalize, KeepsBytesThatAreNotCharacters) {
  std::string storage;
  EXPECT_EQ(to_nfc("plain caf\xc3\xa9", storage), "plain caf\xc3\xa9");
  EXPECT_EQ(to_nfc("e\xcc\x81\xff"
                   "e\xcc\x81 e\xcc",
                   storage),
            "\xc3\xa9\xff\xc3\xa9 e\xcc");
  EXPECT_EQ(to_nfc("\xff\xcc\x81", storage), "\xff\xcc\x81");
  EXPECT_EQ(to_nfc("q\xcc\x87\xcc\xa3", storage), "q\xcc\xa3\xcc\x87");  // marks in canonical order
  EXPECT_EQ(to_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", storage), "\xea\xb0\x81");  // Hangul jamo
}

std::string training_text() {
  std::mt19937 random(8);
  std::string text;
  for (int i = 0; i < 6000; ++i) {
    text += "word" + std::to_string(random() % 300 * (random() % 300)) + (i % 11 ? " " : ".\n");
    if (i % 50 == 0) text += random_bytes(random, 30);
  }
  return text;
}

TEST(Trainer, ThreadsAndOrderChangeNothing) {
  const std::string text = training_text();
  const TrainOptions options{.vocab_size = 700};
  BpeTrainer whole(options);
  whole.add(text);
  const auto wanted = whole.train().to_json();
  std::vector<std::string_view> parts;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t cut = first_safe_cut(rest, 500);
    parts.push_back(rest.substr(0, cut));
    rest.remove_prefix(cut);
  }
  ASSERT_GT(parts.size(), 20u);
  for (int threads : {1, 2, 5}) {
    BpeTrainer trainer(options);
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t)
      team.emplace_back([&, t] {
        for (size_t i = parts.size(); i-- > 0;)
          if (static_cast<int>(i) % threads == t) trainer.add(parts[i]);
      });
    for (auto& thread : team) thread.join();
    EXPECT_EQ(trainer.train().to_json(), wanted);
    EXPECT_EQ(trainer.counts().bytes, text.size());
    BpeTrainer parallel(options);
    const int before = compute_threads();
    set_compute_threads(threads);
    parallel.add_parallel(text);
    set_compute_threads(before);
    EXPECT_EQ(parallel.train().to_json(), wanted);
  }
}

// Each step of training against counting everything anew.
TEST(Trainer, EachMergeIsTheMostFrequentPair) {
  BpeTrainer trainer({.vocab_size = 420, .split = SplitPattern::kGpt2, .min_frequency = 2});
  const std::string text =
      "aaaa aaa aa banana bananas bandana ananas anna aaab abab ababab " + training_text().substr(0, 6000);
  trainer.add(text);
  const auto t = trainer.train();
  std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
  {
    std::unordered_map<std::string, int64_t> counts;
    for (size_t at = 0; at < text.size();) {
      const size_t end = piece_end(SplitPattern::kGpt2, text, at);
      ++counts[text.substr(at, end - at)];
      at = end;
    }
    for (const auto& [word, count] : counts) {
      std::vector<int32_t> ids;
      for (char c : word) ids.push_back(*t.token_to_id(std::string(1, c)));
      words.emplace_back(ids, count);
    }
  }
  ASSERT_GT(t.definition().merges.size(), 100u);
  for (const Merge& m : t.definition().merges) {
    std::unordered_map<uint64_t, int64_t> counts;
    for (const auto& [ids, count] : words)
      for (size_t i = 0; i + 1 < ids.size(); ++i)
        counts[uint64_t(uint32_t(ids[i])) << 32 | uint32_t(ids[i + 1])] += count;
    uint64_t best = 0;
    int64_t most = 0;
    for (const auto& [pair, count] : counts)
      if (count > most || (count == most && pair < best)) best = pair, most = count;
    ASSERT_EQ(best, uint64_t(uint32_t(m.left)) << 32 | uint32_t(m.right)) << "merge " << m.rank;
    for (auto& [ids, count] : words) {
      std::vector<int32_t> next;
      for (size_t i = 0; i < ids.size(); ++i) {
        if (i + 1 < ids.size() && ids[i] == m.left && ids[i + 1] == m.right) next.push_back(m.result), ++i;
        else next.push_back(ids[i]);
      }
      ids = next;
    }
  }
}

TEST(Trainer, RefusesWhatMakesNoSense) {
  auto message = [](TrainOptions options) -> std::string {
    try {
      BpeTrainer trainer(options);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message({.vocab_size = 256}).find("need at least 257"), std::string::npos);
  EXPECT_NE(message({.special_tokens = {"x"}}).find("single byte"), std::string::npos);
  EXPECT_NE(message({.special_tokens = {"<a>", "<a>"}}).find("twice"), std::string::npos);
  EXPECT_EQ(message({.special_tokens = {}}), "");
}

TEST(Trainer, NeverMergesTextIntoASpecialToken) {
  BpeTrainer trainer({.vocab_size = 300, .special_tokens = {"abcd"}});
  for (int i = 0; i < 50; ++i) trainer.add("abcd abcd abcdabcd ");
  const auto t = trainer.train();
  for (int32_t id : t.encode("abcd abcd")) EXPECT_FALSE(t.is_special(id));
  EXPECT_EQ(t.encode("abcd", SpecialTokens::kRecognise), std::vector<int32_t>{0});
}

TEST(TokenizerJson, EveryRefusalNamesTheFieldAndWhatIsSupported) {
  const std::string head = R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "model": )";
  const std::string model = R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]})";
  const std::vector<std::tuple<std::string, ErrorKind, std::string>> files = {
      {"", ErrorKind::kData, "not valid JSON"},
      {std::string(100000, '['), ErrorKind::kData, "nested more than 32 deep"},
      {head + R"({"vocab": {"a": 5000000}, "merges": []}})", ErrorKind::kData,
       "token id 5000000: expected 0 to"},
      {"[]", ErrorKind::kData, "the file should be an object"},
      {"{}", ErrorKind::kData, "the file has no field 'model'"},
      {R"({"model": 3})", ErrorKind::kData, "model should be an object"},
      {R"({"model": {"type": "WordPiece", "vocab": {}}})", ErrorKind::kUsage,
       "model WordPiece is not supported"},
      {R"({"model": {"vocab": [], "merges": []}})", ErrorKind::kData, "model.vocab should be an object"},
      {R"({"model": {"vocab": {"a": -1}, "merges": []}})", ErrorKind::kData,
       "model.vocab[a] should be a token id"},
      {R"({"model": {"vocab": {"a": 4000000000}, "merges": []}})", ErrorKind::kData,
       "model.vocab[a] should be a token id"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [["a"]]}})", ErrorKind::kData, "model.merges[0] should be"},
      {R"({"model": {"vocab": {"a": 0}, "merges": ["a"]}})", ErrorKind::kData, "merge 0 is 'a'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": ["a a"]}})", ErrorKind::kData, "needs token 'aa'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [], "dropout": 0.1}})", ErrorKind::kUsage, "dropout 0.1"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}})", ErrorKind::kUsage,
       "end_of_word_suffix"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [], "unk_token": "a"}})", ErrorKind::kUsage, "unk_token"},
      {head + R"({"vocab": {"a": 0, "b": 0}, "merges": []}})", ErrorKind::kData, "token id 0 twice"},
      {head + model + R"(, "normalizer": {"type": "Lowercase"}})", ErrorKind::kUsage,
       "normalizer Lowercase is not supported (supported: null, NFC)"},
      {head + model + R"(, "decoder": {"type": "Metaspace"}})", ErrorKind::kUsage, "decoder Metaspace"},
      {head + model + R"(, "post_processor": {"type": "BertProcessing"}})", ErrorKind::kUsage,
       "post_processor BertProcessing"},
      {head + model + R"(, "added_tokens": [{"id": 7, "content": "<x>"}]})", ErrorKind::kData,
       "'<x>' has id 7, but Hugging Face tokenizers reads this file as id 3"},
      {head + model + R"(, "added_tokens": [{"content": "<x>"}]})", ErrorKind::kData,
       "added token '<x>' has no field 'id'"},
      {R"({"model": )" + model + "}", ErrorKind::kUsage, "without pre_tokenizer"},
      {R"({"pre_tokenizer": {"type": "Metaspace"}, "model": )" + model + "}", ErrorKind::kUsage,
       "pre_tokenizer Metaspace"},
      {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"},
          {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}, "model": )" +
           model + "}",
       ErrorKind::kUsage, "known here: \\w+\nKnown are those of gpt2, llama3, qwen2, qwen3.5, cl100k, o200k"},
  };
  for (const auto& [json, kind, says] : files) {
    try {
      Tokenizer::from_json(json);
      ADD_FAILURE() << "accepted: " << json;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << json;
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << json << "\ngave: " << e.what();
    }
  }
  EXPECT_EQ(Tokenizer::from_json(head + model + "}").vocab_size(), 3);
}

std::vector<AddedToken> published_end() { return {{.id = 10, .content = "<|endoftext|>", .special = true}}; }

TEST(Tiktoken, RefusesBadLines) {
  for (const char* ranks : {"", "YQ==", "YQ== x\n", "YQ== -1\n", "Y!== 0\n", "YQ= 0\n", "YQ== 0\nYQ== 1\n",
                            "YQ== 0\nYg== 0\n", "YQ== 99999999999\n"}) {
    try {
      Tokenizer::from_tiktoken(ranks, SplitPattern::kGpt2);
      ADD_FAILURE() << ranks;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kData) << ranks;
    }
  }
  const auto t = Tokenizer::from_tiktoken("YQ== 0\nYg== 1\nYWI= 2\n", SplitPattern::kGpt2, published_end());
  EXPECT_EQ(t.encode("aba"), (std::vector<int32_t>{2, 0}));
}

// Ids that a ranks file leaves out below its special tokens stay where they are when it is saved as tokenizer.json.
TEST(Tiktoken, GapsSurviveTokenizerJson) {
  const auto t = Tokenizer::from_tiktoken("YQ== 0\nYg== 1\nYWI= 2\n", SplitPattern::kCl100k, published_end());
  const auto again = Tokenizer::from_json(t.to_json());
  EXPECT_EQ(again.encode("ab<|endoftext|>", SpecialTokens::kRecognise), (std::vector<int32_t>{2, 10}));
  EXPECT_TRUE(again.definition().vocab == t.definition().vocab);
  EXPECT_TRUE(again.definition().added == t.definition().added);
  EXPECT_EQ(again.token_bytes(5), "");
}

}  // namespace
}  // namespace stoker::tokenizer
