// Rows of whole documents: the packing itself, the plan on disk, damage.
#include "data/shard/pack_plan.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"
#include "data/shard/best_fit.h"
#include "io/memory_file_system.h"

namespace stoker::data {
namespace {

TEST(Packing, BestFitLosesNothingAndPadsLess) {
  std::vector<uint32_t> lengths;
  uint64_t total = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    lengths.push_back(static_cast<uint32_t>(random_u64({3, 0}, i) % 700));
    total += lengths.back();
  }
  lengths.push_back(5000);
  total += 5000;
  const auto plan = pack_best_fit(lengths, 1024);
  EXPECT_EQ(plan.tokens, total);
  std::map<uint32_t, uint64_t> rows, documents;
  for (const auto& piece : plan.pieces)
    rows[piece.row] += piece.tokens, documents[piece.document] += piece.tokens;
  for (const auto& [row, tokens] : rows) EXPECT_LE(tokens, 1024u);
  for (const auto& [document, tokens] : documents) EXPECT_EQ(tokens, lengths[document]);
  EXPECT_EQ(rows.size(), plan.rows);
  EXPECT_EQ(plan.cut_documents, 1u);
  EXPECT_LT(plan.padding(), 0.02);
  ConcatenatedRows concatenated(1024);
  for (const uint32_t tokens : lengths) concatenated.add(tokens);
  EXPECT_GT(concatenated.cut_documents(), 500u);
}

// A dataset of one split over three shards; document d of a shard has lengths[d] tokens, EOD included.
Dataset made(io::MemoryFileSystem& fs, const std::vector<uint32_t>& lengths) {
  fs.make_dirs("d");
  const auto put = [&](const std::string& name, std::string_view contents) {
    const auto f = fs.create("d/" + name);
    f->append(contents);
    f->close();
  };
  put("tokenizer.json", "{}");
  put("sources.jsonl", "");
  Manifest m;
  m.tokenizer = {{"tokenizer.json", 2, hash128("{}")}, 1000, 0, -1};
  m.sources = {"sources.jsonl", 0, hash128("")};
  SplitRecord split{"train", 0, 0, 0, {}};
  for (int shard = 0; shard < 3; ++shard) {
    ShardWriter writer(fs, "d", fmt::format("train_{:05}", shard), TokenType::kUint16);
    for (size_t d = 0; d < lengths.size(); ++d) {
      std::vector<int32_t> tokens(lengths[d], static_cast<int32_t>(1 + d % 900));
      tokens.back() = 0;
      writer.add(tokens, {hash128(fmt::format("{} {}", shard, d)), 5, d, static_cast<uint32_t>(shard)});
    }
    split.add(writer.finish());
  }
  m.splits.push_back(split);
  put("manifest.json", m.to_json());
  return Dataset::open(fs, "d");
}

std::vector<uint32_t> some_lengths() {
  std::vector<uint32_t> lengths;
  for (uint64_t i = 0; i < 200; ++i) lengths.push_back(1 + static_cast<uint32_t>(random_u64({4, 0}, i) % 90));
  return lengths;
}

TEST(PackPlan, EveryTokenOfEveryKeptDocumentIsInOneRow) {
  io::MemoryFileSystem fs;
  const auto dataset = made(fs, some_lengths());
  for (const uint64_t window : {uint64_t{1} << 23, uint64_t{700}})
    for (const bool filtered : {false, true}) {
      PackOptions options;
      options.window_tokens = window;
      if (filtered) {
        options.keep = [](const DocumentOrigin& origin, uint64_t tokens) {
          return tokens >= 10 && origin.record % 3;
        };
        options.filter = R"({"min_tokens": 10})";
      }
      const auto plan = build_pack_plan(fs, dataset, "train", "p", 64, options);
      EXPECT_EQ(open_pack_plan(fs, dataset, "p", "train"), plan);
      EXPECT_EQ(verify_pack_plan(fs, dataset, "p"), std::vector<std::string>{});
      EXPECT_LT(plan.padding(), window == 700 ? 0.12 : 0.05);
      EXPECT_EQ(plan.documents + plan.documents_left_out, 600u);
      for (size_t s = 0; s < 3; ++s) {
        const auto file = fs.open_read(dataset.path_of(plan.shards[s].file));
        const auto rows = PackRows::parse(file->map(), "rows");
        const auto tokens = dataset.open_shard(dataset.split("train").shards[s]);
        std::vector<int> seen(tokens->tokens(), 0);
        std::vector<PackedPiece> pieces;
        for (uint64_t r = 0; r < rows.rows(); ++r) {
          pieces.clear();
          rows.row(r, pieces);
          ASSERT_FALSE(pieces.empty());
          for (const auto& p : pieces) {
            EXPECT_EQ(tokens->document_of(p.first_token), p.document);
            EXPECT_EQ(tokens->document_of(p.first_token + p.tokens - 1), p.document);
            for (uint64_t t = p.first_token; t < p.first_token + p.tokens; ++t) ++seen[t];
          }
        }
        for (uint64_t t = 0; t < seen.size(); ++t) {
          const uint64_t document = tokens->document_of(t),
                         length = tokens->document_start(document + 1) - tokens->document_start(document);
          EXPECT_EQ(seen[t], !filtered || (length >= 10 && document % 3) ? 1 : 0);
        }
        const auto with = rows.rows_with(5, 1);
        ASSERT_EQ(with.size(), static_cast<size_t>(seen[5]));
      }
    }
}

TEST(PackPlan, DamageAndStrangersAreRefused) {
  io::MemoryFileSystem fs;
  const auto dataset = made(fs, some_lengths());
  const auto expect = [&](ErrorKind kind, const std::string& words, auto&& action) {
    try {
      action();
      ADD_FAILURE() << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  expect(ErrorKind::kUsage, "stoker data pack d", [&] { open_pack_plan(fs, dataset, "none", "train"); });
  expect(ErrorKind::kUsage, "plain name", [&] { open_pack_plan(fs, dataset, "../x", "train"); });
  const auto plan = build_pack_plan(fs, dataset, "train", "p", 64);
  expect(ErrorKind::kUsage, "made for split train", [&] { open_pack_plan(fs, dataset, "p", "held_out"); });
  fs.flip_bit("d/" + plan.shards[1].file.name, 400);
  const auto faults = verify_pack_plan(fs, dataset, "p");
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_NE(faults[0].find("p_train_00001.rows"), std::string::npos);

  // Every cut of a file, and wild numbers in it, are Data errors.
  const auto file = fs.open_read("d/" + plan.shards[0].file.name);
  const auto bytes = file->map();
  for (size_t n = 0; n < bytes.size(); n += 37)
    expect(ErrorKind::kData, "rows", [&] { PackRows::parse(bytes.first(n), "rows"); });
  for (const size_t at : {size_t{52}, size_t{56}, size_t{48 + 4 * (plan.shards[0].rows + 1) + 6}}) {
    std::vector<std::byte> wild(bytes.begin(), bytes.end());
    wild[at + 1] = std::byte{0xff};
    std::vector<PackedPiece> pieces;
    const auto rows = PackRows::parse(wild, "rows");
    expect(ErrorKind::kData, "rows", [&] {
      for (uint64_t r = 0; r < rows.rows(); ++r) rows.row(r, pieces);
    });
  }
}

}  // namespace
}  // namespace stoker::data
