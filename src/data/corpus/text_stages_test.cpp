#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/error.h"
#include "data/corpus/decontaminate_ngrams.h"
#include "data/corpus/label_classifier.h"
#include "data/corpus/language_identify.h"
#include "data/corpus/pii_redact.h"
#include "data/corpus/quality_rules.h"
#include "data/corpus/unicode_encoding.h"
#include "data/corpus/unicode_repair.h"

namespace stoker::corpus {
namespace {

TEST(UnicodeRepair, EachDefectOnce) {
  EXPECT_EQ(repair_unicode("a\r\nb\rc\xE2\x80\xA8"
                           "d")
                .text,
            "a\nb\nc\nd");
  EXPECT_EQ(repair_unicode("x\xE2\x80\x8By\xEF\xBB\xBFz\x07 soft\xC2\xADhyphen").text, "xyz softhyphen");
  EXPECT_EQ(repair_unicode("no\xC2\xA0"
                           "break\xE3\x80\x80wide")
                .text,
            "no break wide");
  EXPECT_EQ(repair_unicode("e\xCC\x81").text, "\xC3\xA9");  // NFC
  EXPECT_EQ(repair_unicode("trailing  \n\n\n\n\nnext\t\n").text, "trailing\n\nnext\n");
  UnicodeOptions nfkc;
  nfkc.compatibility = true;
  EXPECT_EQ(repair_unicode("\xEF\xAC\x81t \xEF\xBC\xA1", nfkc).text, "fit A");  // fi ligature, full-width A
  const auto broken = repair_unicode(
      "a\xFF"
      "b\xC3");
  EXPECT_EQ(broken.text, "ab");
  EXPECT_EQ(broken.malformed, 2u);
  EXPECT_EQ(repair_unicode("").text, "");
}

TEST(UnicodeRepair, UndoesDoubleEncodingButNotRealText) {
  const auto once = repair_unicode("caf\xC3\x83\xC2\xA9 it\xC3\xA2\xE2\x82\xAC\xE2\x84\xA2s");
  EXPECT_EQ(once.text, "caf\xC3\xA9 it\xE2\x80\x99s");
  EXPECT_EQ(once.undone, 2u);
  EXPECT_EQ(repair_unicode("caf\xC3\x83\xC6\x92\xC3\x82\xC2\xA9").text, "caf\xC3\xA9");  // twice
  for (const char* good : {"caf\xC3\xA9", "na\xC3\xAFve \xE2\x80\x93 r\xC3\xA9sum\xC3\xA9",
                           "\xC3\x83 S\xC3\xA3o", "50 \xE2\x82\xAC", "\xE6\xBC\xA2\xE5\xAD\x97"})
    EXPECT_EQ(repair_unicode(good).text, good);
}

TEST(UnicodeRepair, IsIdempotentAndAlwaysValid) {
  uint64_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const auto r = static_cast<unsigned>(state >> 40);
      if (r % 3 == 0) bytes += static_cast<char>(r >> 8);
      else if (r % 3 == 1) bytes += "\xC3\x83\xC2\xA9";
      else bytes += " \r\n\t\xE2\x80\x8B e\xCC\x81"[(r >> 8) % 12];
    }
    const auto once = repair_unicode(bytes).text;
    EXPECT_EQ(valid_utf8_prefix(once), once.size());
    const auto twice = repair_unicode(once).text;
    // Undoing may bring up a further level of double encoding; without it repair must be a fixed point.
    UnicodeOptions plain;
    plain.fix_double_encoding = false;
    EXPECT_EQ(repair_unicode(once, plain).text, once);
    EXPECT_EQ(valid_utf8_prefix(twice), twice.size());
  }
}

TEST(LanguageIdentification, BytesThatAreNoTextEndTheText) {
  std::string binary;
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) binary += static_cast<char>(random());
  const std::string english =
      "The kernel reads the page and writes it back when the memory is needed for something else. ";
  EXPECT_EQ(identify_language(english + "\xf6\x40" + binary).code, "en");
  (void)identify_language(binary);
}

TEST(LanguageIdentification, KnownTexts) {
  const std::pair<const char*, const char*> cases[] = {
      {"en",
       "The river runs through the old town and past the mill, where people still bring their corn in "
       "autumn."},
      {"de",
       "Der Fluss flie\xC3\x9Ft durch die alte Stadt und an der M\xC3\xBChle vorbei, wohin die Leute im "
       "Herbst ihr Korn bringen."},
      {"it",
       "Il fiume attraversa la citt\xC3\xA0 vecchia e passa accanto al mulino, dove la gente porta ancora il "
       "grano in autunno."},
      {"ja",
       "\xE5\xB7\x9D\xE3\x81\xAF\xE5\x8F\xA4\xE3\x81\x84\xE7\x94\xBA\xE3\x82\x92\xE9\x80\x9A\xE3\x82\x8A\xE3"
       "\x80\x81\xE6\xB0\xB4\xE8\xBB\x8A\xE5\xB0\x8F\xE5\xB1\x8B\xE3\x81\xAE\xE3\x81\x9D\xE3\x81\xB0\xE3\x82"
       "\x92\xE6\xB5\x81\xE3\x82\x8C\xE3\x81\xBE\xE3\x81\x99\xE3\x80\x82"},
  };
  for (const auto& [code, text] : cases) {
    const auto language = identify_language(text);
    EXPECT_EQ(language.code, code);
    EXPECT_TRUE(language.reliable);
    EXPECT_GT(language.share, 0.9);
  }
  EXPECT_EQ(identify_language("").code, "und");
  EXPECT_EQ(identify_language("12345 67890 ---").code, "und");
}

TEST(QualitySignals, CountsByHand) {
  const auto s = measure_quality("The cat sat on the mat with 3 # dogs...\n- a bullet\n\nThe end.\nThe end.");
  EXPECT_EQ(s[kWords], 15);  // "#" and "-" are no words
  EXPECT_EQ(s[kLines], 4);
  EXPECT_FLOAT_EQ(s[kHashPerWord], 1.0f / 17);
  EXPECT_FLOAT_EQ(s[kBulletLines], 0.25f);
  EXPECT_FLOAT_EQ(s[kEllipsisLines], 0.25f);
  EXPECT_FLOAT_EQ(s[kEllipsisPerWord], 1.0f / 17);
  EXPECT_FLOAT_EQ(s[kDuplicateLines], 0.25f);
  EXPECT_FLOAT_EQ(s[kPunctuatedLines], 0.75f);
  EXPECT_EQ(s[kStopWords], 2);  // the, with
  EXPECT_EQ(s[kStopWordCount], 5);
  EXPECT_FLOAT_EQ(s[kAlphaWords], 14.0f / 17);
  EXPECT_FLOAT_EQ(s[kNewlinesPerWord], 4.0f / 17);
  for (const float zero : measure_quality("")) EXPECT_EQ(zero, 0);
  for (int i = 0; i < kSignalCount; ++i) EXPECT_EQ(signal_by_name(signal_name(i)), i);
  EXPECT_EQ(signal_by_name("nosuch"), -1);
}

TEST(QualitySignals, RepetitionMatchesAPlainCount) {
  // "a b c d e" three times: 15 words, 29 characters; "a b" is the top pair (3 characters, 3 times).
  const auto s = measure_quality("a b c d e a b c d e a b c d e");
  EXPECT_FLOAT_EQ(s[kTop2Gram], 9.0f / 29);
  EXPECT_FLOAT_EQ(s[kTop3Gram], 15.0f / 29);
  // The second and third "a b c d e" repeat the first: 10 letters.
  EXPECT_FLOAT_EQ(s[kDuplicate5Gram], 10.0f / 29);
  EXPECT_FLOAT_EQ(s[kDuplicate10Gram], 10.0f / 29);  // words 5..14 repeat words 0..9
  EXPECT_EQ(measure_quality("all words here differ from each other completely")[kTop2Gram], 0);
  EXPECT_FLOAT_EQ(measure_quality("p one\n\np one\n\nq two")[kDuplicateParagraphs], 1.0f / 3);
  EXPECT_FLOAT_EQ(measure_quality("\xC3\xA9\xC3\xA9 x")[kMeanWordLength], 1.5f);
}

std::string prose(int sentences) {
  std::string text;
  for (int i = 0; i < sentences; ++i)
    text += "Sentence number " + std::to_string(i * 7919 % 1000) + " says that the " +
            std::string(1, static_cast<char>('a' + i % 26)) + "pple and " + std::to_string(i) +
            " pears have been eaten with care.\n";
  return text;
}

TEST(QualityRules, GoodProsePassesAndEachFaultIsNamed) {
  const auto quality = quality_rule_set("gopher_quality"), repetition = quality_rule_set("gopher_repetition"),
             fineweb = quality_rule_set("fineweb"), c4 = quality_rule_set("c4");
  const auto good = measure_quality(prose(30));
  EXPECT_EQ(first_broken_rule(quality, good), -1);
  EXPECT_EQ(first_broken_rule(repetition, measure_quality("Nothing in this short line happens twice.")), -1);
  EXPECT_EQ(first_broken_rule(fineweb, good), -1);
  EXPECT_EQ(first_broken_rule(c4, good), -1);
  auto reason = [](const std::vector<QualityRule>& rules, const std::string& text) {
    const int broken = first_broken_rule(rules, measure_quality(text));
    return broken < 0 ? std::string("kept") : rules[static_cast<size_t>(broken)].reason();
  };
  EXPECT_EQ(reason(quality, "too short"), "words outside 50..100000");
  std::string numbers;
  for (int i = 0; i < 100; ++i) numbers += "10000" + std::to_string(i) + " ";
  EXPECT_EQ(reason(quality, numbers), "alpha_words below 0.8");
  EXPECT_EQ(reason(repetition, "same line here\nsame line here\nsame line here\n"),
            "duplicate_lines above 0.3");
  EXPECT_EQ(reason(c4, prose(9) + "{"), "curly_braces above 0");
  EXPECT_EQ(reason(fineweb, "no stop\nno stop\nat all\n"), "punctuated_lines below 0.12");
  EXPECT_THROW(quality_rule_set("nosuch"), Error);
}

TEST(QualityRules, C4Lines) {
  const std::string page =
      "A good sentence ends here.[12]\nshort\nPlease enable JavaScript to go on.\nno stop at the end here\n"
      "We use cookies to track you.\n\nAnother [citation needed] one stays.\n";
  EXPECT_EQ(c4_lines(page, true), "A good sentence ends here.\n\nAnother  one stays.\n");
  EXPECT_EQ(c4_lines(page, false),
            "A good sentence ends here.\nno stop at the end here\n\nAnother  one stays.\n");
  EXPECT_EQ(c4_lines("", true), "");
}

TEST(Pii, FindsWhatIdentifiesAndLeavesTheRest) {
  const std::pair<const char*, const char*> cases[] = {
      {"mail jo.e+x@mail.example.co.uk, ok", "mail <email>, ok"},
      {"end of sentence a@b.org.", "end of sentence <email>."},
      {"@user and user@host and a@b.c1", "@user and user@host and a@b.c1"},
      {"from 8.8.8.8:53 to 192.168.1.1 and 127.0.0.1", "from <ip>:53 to 192.168.1.1 and 127.0.0.1"},
      {"version 6.1.2.3.4, libfoo-1.2.3.4, v1.2.3.4 and 999.1.1.1",
       "version 6.1.2.3.4, libfoo-1.2.3.4, v1.2.3.4 and 999.1.1.1"},
      {"2a00:1450:4009:81f::200e is public, std::a::b is not, 12:34:56 either",
       "<ip> is public, std::a::b is not, 12:34:56 either"},
      {"call +44 20 7946 0958 or (555) 123-4567 or 555-123-4567", "call <phone> or <phone> or <phone>"},
      {"on 2026-11-21 or 21-11-2026, ISBN 978-3-16-148410-0",
       "on 2026-11-21 or 21-11-2026, ISBN 978-3-16-148410-0"},
      {"card 4111 1111 1111 1111 but not 4111 1111 1111 1112", "card <card> but not 4111 1111 1111 1112"},
      {"key AKIAIOSFODNN7EXAMPLE here", "key <key> here"},
      {"ghp_0123456789abcdefghijklmnopqrstuvwxyz", "<key>"},
      {"-----BEGIN RSA PRIVATE KEY-----\nMIIabc+/=\n-----END RSA PRIVATE KEY-----\nafter", "<key>\nafter"},
      {"", ""},
  };
  for (const auto& [before, after] : cases) EXPECT_EQ(redact_pii(before).text, after);
  const auto two = redact_pii("a@b.com c@d.com e@f.com", {{true, true, true, true, true}, true});
  EXPECT_EQ(two.text, "email@example.com firstname.lastname@example.org email@example.com");
  EXPECT_EQ(two.counts[0], 3u);
  PiiOptions only_keys;
  only_keys.kinds = {false, false, false, false, true};
  EXPECT_EQ(redact_pii("a@b.com 8.8.8.8", only_keys).text, "a@b.com 8.8.8.8");
}

TEST(LabelClassifier, LearnsAndSurvivesItsFile) {
  std::vector<LabelledText> examples;
  const char* const cooking[] = {"oven", "butter", "flour", "simmer", "salt", "dough"};
  const char* const sailing[] = {"mast", "harbour", "wind", "anchor", "rope", "hull"};
  for (int i = 0; i < 300; ++i) {
    const auto& words = i % 2 ? cooking : sailing;
    std::string text = "note " + std::to_string(i) + " about ";
    for (int k = 0; k < 8; ++k) text += std::string(words[(i * 31 + k * 17) % 6]) + " and then ";
    examples.push_back({text, i % 2 ? "cooking" : "sailing"});
  }
  const auto model = LabelClassifier::train(examples);
  EXPECT_GT(model.held_out_examples(), 10u);
  EXPECT_EQ(model.held_out_accuracy(), 1);
  EXPECT_EQ(model.labels()[static_cast<size_t>(model.predict("melt the butter, add flour and salt").label)],
            "cooking");
  EXPECT_EQ(model.predict("...").label, -1);
  const std::string bytes = model.encode();
  EXPECT_EQ(LabelClassifier::train(examples).encode(), bytes);
  const auto again = LabelClassifier::parse(bytes, "m");
  EXPECT_EQ(again.encode(), bytes);
  EXPECT_EQ(again.probabilities("the anchor"), model.probabilities("the anchor"));
  for (const size_t at : {size_t{0}, size_t{9}, size_t{20}, bytes.size() / 2, bytes.size() - 1}) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    EXPECT_THROW(LabelClassifier::parse(damaged, "m"), Error) << at;
  }
  EXPECT_THROW(LabelClassifier::parse(std::string_view(bytes).substr(0, 100), "m"), Error);
  EXPECT_THROW(LabelClassifier::train({{"a", "x"}, {"b", "x"}}), Error);
  // Labels at random cannot be learnt: accuracy on texts that were held out must stay near chance.
  std::vector<LabelledText> noise;
  for (int i = 0; i < 2000; ++i)
    noise.push_back(
        {"word" + std::string(1, static_cast<char>('a' + i * 7 % 26)) + " text " + std::to_string(i),
         i * 2654435761u >> 31 ? "p" : "q"});
  LabelTraining training;
  training.held_out = 0.5;
  EXPECT_NEAR(LabelClassifier::train(noise, training).held_out_accuracy(), 0.5,
              0.09);  // 4 standard errors of 1000 draws
}

TEST(Decontamination, FindsTheItemHoweverItIsDressed) {
  DecontaminationIndex index(8);
  const auto france = index.add(
      "quiz/1", "Which city on the river Seine has been the capital of France since the tenth century?");
  const auto shortest = index.add("quiz/2", "Name the largest moon of Saturn");
  index.add("quiz/3", "Yes.");
  EXPECT_EQ(index.items(), 3u);
  const auto hit = index.check(
      "intro words. WHICH city, on the River Seine, has been the capital of France since the tenth century "
      "-- Paris!");
  EXPECT_EQ(hit.item, france);
  EXPECT_FLOAT_EQ(hit.overlap, 1);
  const auto part = index.check("I know a city on the river Seine has been the capital of something");
  EXPECT_EQ(part.item, france);
  EXPECT_GT(part.overlap, 0.1);
  EXPECT_LT(part.overlap, 0.7);
  const auto moon = index.check("Question: name the largest moon of Saturn, please");
  EXPECT_EQ(moon.item, shortest);
  EXPECT_FLOAT_EQ(moon.overlap, 1);
  EXPECT_EQ(index.check("yes. nothing to see in here at all, only plain words of no consequence").overlap, 0);
  EXPECT_EQ(index.check("").overlap, 0);
  EXPECT_THROW(DecontaminationIndex(3), Error);
}

}  // namespace
}  // namespace stoker::corpus
