#include <gtest/gtest.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <atomic>
#include <chrono>
#include <set>

#include "base/error.h"
#include "base/expect_error.h"
#include "data/corpus/compressed_input.h"
#include "data/corpus/document_reader.h"
#include "data/corpus/document_source.h"
#include "data/corpus/ordered_work.h"
#include "io/memory_file_system.h"

namespace stoker::corpus {
namespace {

void put_file(io::FileSystem& fs, const std::string& path, std::string_view contents) {
  fs.make_dirs(io::parent_of(path));
  const auto f = fs.create(path);
  f->append(contents);
  f->close();
}

std::string gzip(std::string_view text) {
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}
std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as the command line tool does
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}
std::string xz(std::string_view text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  size_t used = 0;
  EXPECT_EQ(
      lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
                              text.size(), reinterpret_cast<uint8_t*>(out.data()), &used, out.size()),
      LZMA_OK);
  out.resize(used);
  return out;
}

std::string read_all(io::FileSystem& fs, const std::string& path, size_t piece = 100000) {
  CompressedInput in(fs, path);
  std::string out, buffer(piece, '\0');
  while (const size_t n = in.read(buffer.data(), piece)) out.append(buffer, 0, n);
  EXPECT_EQ(in.produced(), out.size());
  EXPECT_EQ(in.stored_hash(), hash128(io::read_text(fs, path)));
  return out;
}

std::string prose(size_t bytes) {
  std::string s;
  for (uint64_t i = 0; s.size() < bytes; ++i)
    s += fmt::format("line {} of a text\n", i * i * 2654435761u % 100003);
  s.resize(bytes);
  return s;
}

TEST(CompressedInput, AllFormatsGiveTheTextBack) {
  io::MemoryFileSystem fs;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{70000}, size_t{1500000}}) {
    const std::string text = prose(bytes);
    put_file(fs, "plain", text);
    put_file(fs, "gz", gzip(text));
    put_file(fs, "zst", zstd(text));
    put_file(fs, "xz", xz(text));
    put_file(fs, "gz2", gzip(text) + gzip("and more") + std::string(512, '\0'));
    put_file(fs, "zst2", zstd(text) + zstd("and more"));
    put_file(fs, "xz2", xz(text) + xz("and more"));
    for (const char* name : {"plain", "gz", "zst", "xz"})
      for (const size_t piece : {size_t{17}, size_t{100000}})
        if (piece > 100 || bytes < 100000) {
          EXPECT_EQ(read_all(fs, name, piece), text) << name;
        }
    for (const char* name : {"gz2", "zst2", "xz2"}) EXPECT_EQ(read_all(fs, name), text + "and more") << name;
  }
}

TEST(CompressedInput, TruncationAtAnyByteIsAnError) {
  io::MemoryFileSystem fs;
  const std::string text = prose(3000);
  for (const std::string& packed : {gzip(text), zstd(text), xz(text)})
    for (size_t n = 7; n < packed.size(); n += 13) {
      put_file(fs, "cut", packed.substr(0, n));
      EXPECT_NE(
          message_of([&] { read_all(fs, "cut"); }).find("cut: the file ends at byte " + std::to_string(n)),
          std::string::npos);
    }
}

TEST(CompressedInput, DamageGarbageAndBombsAreErrors) {
  io::MemoryFileSystem fs;
  const std::string text = prose(300000);
  for (const std::string& packed : {gzip(text), zstd(text), xz(text)}) {
    put_file(fs, "bad", packed);
    fs.flip_bit("bad", packed.size() / 2, 3);
    EXPECT_NE(message_of([&] { read_all(fs, "bad"); }).find("bad: corrupt "), std::string::npos);
  }
  put_file(fs, "tail", gzip(text) + "garbage");
  EXPECT_NE(message_of([&] { read_all(fs, "tail"); }).find("corrupt gzip"), std::string::npos);
  put_file(fs, "bomb", zstd(std::string(90 << 20, ' ')));
  EXPECT_NE(message_of([&] { read_all(fs, "bomb"); }).find("decompression bomb"), std::string::npos);
}

TEST(Sources, NamesGlobsAndFolders) {
  EXPECT_EQ(format_of_name("a.rst.gz"), SourceFormat::kText);
  EXPECT_EQ(format_of_name("a.jsonl.zst"), SourceFormat::kJsonLines);
  EXPECT_EQ(format_of_name("a.gz"), std::nullopt);
  EXPECT_TRUE(glob_matches("*.txt", "a.txt"));
  EXPECT_FALSE(glob_matches("*.txt", "b/a.txt"));
  EXPECT_TRUE(glob_matches("**/*.txt", "a.txt"));
  EXPECT_TRUE(glob_matches("**/*.txt", "x/y/a.txt"));
  EXPECT_TRUE(glob_matches("x/**/y/?.txt", "x/a/b/y/1.txt"));
  EXPECT_FALSE(glob_matches("x/[ab].txt", "x/c.txt"));

  io::MemoryFileSystem fs;
  for (const char* name :
       {"c/b.txt", "c/a.md", "c/z/x.jsonl.gz", "c/skip.bin", "c/.hidden/q.txt", "c/Makefile"})
    put_file(fs, name, "x");
  auto names = [&](const std::vector<std::string>& inputs) {
    std::string all;
    for (const auto& f : list_sources(fs, inputs).files)
      all += fmt::format("{}:{}:{} ", f.input, f.name, to_string(f.format));
    return all;
  };
  EXPECT_EQ(names({"c"}), "0:a.md:text 0:b.txt:text 0:z/x.jsonl.gz:jsonl ");
  EXPECT_EQ(list_sources(fs, {"c"}).left_out, 2u);
  EXPECT_EQ(names({"c/skip.bin", "c/**/*.jsonl*"}), "0:skip.bin:text 1:z/x.jsonl.gz:jsonl ");
  EXPECT_NE(message_of([&] { names({"nowhere"}); }, ErrorKind::kUsage).find("no such file or folder"),
            std::string::npos);
  EXPECT_NE(
      message_of([&] { names({"c/*.zip"}); }, ErrorKind::kUsage).find("found no files that match the glob"),
      std::string::npos);
}

struct ReadBack {
  std::vector<std::string> documents;  // "source.record=text"
  std::vector<std::string> bad;        // "source.record: reason"
  uint64_t empty = 0, done = 0, stored = 0;
};
ReadBack read(io::FileSystem& fs, const std::vector<std::string>& inputs, ReadOptions options = {},
              int threads = 1) {
  const auto list = list_sources(fs, inputs);
  DocumentReader reader(fs, list.files, options);
  ReadBack out;
  std::set<uint32_t> done;
  OrderedWork<Load, Opened>::run(
      threads, [&] { return reader.next(); }, [&](Load load) { return reader.open(std::move(load)); },
      [&](Opened o) {
        for (auto& d : o.documents)
          out.documents.push_back(fmt::format("{}.{}={}", d.source, d.record, d.text));
        for (auto& b : o.bad) out.bad.push_back(fmt::format("{}.{}: {}", b.source, b.record, b.reason));
        for (auto& d : o.done) {
          EXPECT_TRUE(done.insert(d.source).second);
          EXPECT_EQ(d.stored_hash, hash128(io::read_text(fs, list.files[d.source].path)));
        }
        out.empty += o.empty;
        out.stored += o.stored_bytes;
      });
  out.done = done.size();
  EXPECT_EQ(done.size(), list.files.size());
  EXPECT_EQ(out.stored, list.stored_bytes());
  return out;
}

TEST(Reader, JsonLinesGoodAndBad) {
  io::MemoryFileSystem fs;
  put_file(fs, "a.jsonl",
           "{\"text\": \"one\\n\\u00e9\"}\n"
           "\n"
           "{\"text\": 5}\n"
           "{\"other\": \"x\"}\n"
           "[1]\n"
           "{\"text\": \"cut off\n"
           "{\"text\": \"\xff\"}\n"
           "{\"text\": \"\"}\n"
           "{\"text\": \"last\", \"meta\": {\"body\": \"deep\"}}");
  const auto out = read(fs, {"a.jsonl"});
  EXPECT_EQ(out.documents, (std::vector<std::string>{"0.0=one\n\xc3\xa9", "0.8=last"}));
  ASSERT_EQ(out.bad.size(), 5u);
  EXPECT_EQ(out.bad[0], "0.2: field \"text\" is not a string");
  EXPECT_EQ(out.bad[1], "0.3: no field \"text\"");
  EXPECT_EQ(out.bad[2], "0.4: expected a JSON object");
  EXPECT_NE(out.bad[3].find("0.5: no JSON"), std::string::npos);
  EXPECT_EQ(out.bad[4], "0.6: byte 10 of the line is not UTF-8");
  EXPECT_EQ(out.empty, 1u);
  ReadOptions deep;
  deep.json_field = "/meta/body";
  EXPECT_EQ(read(fs, {"a.jsonl"}, deep).documents, (std::vector<std::string>{"0.8=deep"}));
}

TEST(Reader, PiecesAndThreadsDoNotMatter) {
  io::MemoryFileSystem fs;
  std::string lines;
  for (int i = 0; i < 9000; ++i)
    lines +=
        fmt::format("{{\"text\": \"record {} {}\"}}\n", i, std::string(static_cast<size_t>(i % 97), 'x'));
  put_file(fs, "c/big.jsonl.gz", gzip(lines + lines));
  put_file(fs, "c/small.jsonl", lines.substr(0, lines.find('\n', 5000) + 1));
  for (int i = 0; i < 50; ++i)
    put_file(fs, fmt::format("c/{:02}.txt", i), prose(static_cast<size_t>(i) * 1000));
  put_file(fs, "c/cut.txt.gz", gzip(prose(100000)).substr(0, 2000));
  const auto one = read(fs, {"c"});
  EXPECT_GT(one.documents.size(), 18000u);
  ASSERT_EQ(one.bad.size(), 1u);
  EXPECT_NE(one.bad[0].find("cut.txt.gz: the file ends at byte 2000"), std::string::npos);
  EXPECT_EQ(one.empty, 1u);
  for (const uint64_t load : {uint64_t{1000}, uint64_t{100000}})
    for (const int threads : {1, 3}) {
      ReadOptions options;
      options.load_bytes = load;
      const auto other = read(fs, {"c"}, options, threads);
      EXPECT_EQ(other.documents, one.documents);
      EXPECT_EQ(other.bad, one.bad);
    }
}

TEST(Reader, LongThingsAreCutOrSkipped) {
  io::MemoryFileSystem fs;
  ReadOptions options;
  options.max_document_bytes = 1000;
  const std::string text = prose(2500) + std::string(2500, 'y') + "\xc3\xa9";
  put_file(fs, "t.txt", text);
  const auto out = read(fs, {"t.txt"}, options);
  std::string joined;
  for (const auto& d : out.documents) {
    const std::string body = d.substr(d.find('=') + 1);
    EXPECT_LE(body.size(), 1000u);
    joined += body;
  }
  EXPECT_EQ(joined, text);
  EXPECT_TRUE(out.bad.empty());

  const std::string big(400000, 'z');
  put_file(fs, "l.jsonl",
           "{\"text\": \"a\"}\n{\"text\": \"" + big + "\"}\n{\"text\": \"b\"}\n{\"text\": \"" +
               std::string(1500, 'q') + "\"}\n{\"text\": \"c\"}");
  for (const uint64_t load : {uint64_t{200}, uint64_t{1} << 20}) {
    options.load_bytes = load;
    const auto lines = read(fs, {"l.jsonl"}, options);
    EXPECT_EQ(lines.documents, (std::vector<std::string>{"0.0=a", "0.2=b", "0.4=c"}));
    ASSERT_EQ(lines.bad.size(), 2u);
    EXPECT_EQ(lines.bad[0], "0.1: a line of 400.01 kB: expected at most 1.00 kB (--max-document)");
    EXPECT_EQ(lines.bad[1].substr(0, 13), "0.3: a line o");
  }
}

TEST(Reader, InvalidTextIsReportedWithItsPlace) {
  io::MemoryFileSystem fs;
  put_file(fs, "a.txt", "good \xf0\x9f\x98\x80 then \xed\xa0\x80");
  put_file(fs, "b.txt",
           "\xef\xbb\xbf"
           "fine");
  const auto out = read(fs, {"a.txt", "b.txt"});
  EXPECT_EQ(out.bad, (std::vector<std::string>{"0.0: byte 15 is not UTF-8"}));
  EXPECT_EQ(out.documents, (std::vector<std::string>{"1.0=fine"}));
  for (const std::string_view bad :
       {"\x80", "\xc0\x80", "\xe0\x80\x80", "\xf5\x80\x80\x80", "\xf4\x90\x80\x80", "\xe2\x82"})
    EXPECT_EQ(find_invalid_utf8(bad), 0u);
}

TEST(OrderedWork, KeepsOrderAndRethrowsTheFirst) {
  for (const int threads : {1, 2, 7}) {
    int next = 0;
    std::vector<int> seen;
    OrderedWork<int, int>::run(
        threads, [&]() -> std::optional<int> { return next < 500 ? std::optional(next++) : std::nullopt; },
        [](int i) {
          if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          return i * 2;
        },
        [&](int i) { seen.push_back(i); });
    ASSERT_EQ(seen.size(), 500u);
    for (int i = 0; i < 500; ++i) ASSERT_EQ(seen[static_cast<size_t>(i)], 2 * i);
    next = 0;
    EXPECT_EQ(message_of([&] {
                OrderedWork<int, int>::run(
                    threads, [&]() -> std::optional<int> { return next++; },
                    [](int i) {
                      if (i == 101) fail(ErrorKind::kData, "second");
                      if (i == 100) {
                        std::this_thread::sleep_for(std::chrono::milliseconds(3));
                        fail(ErrorKind::kData, "first");
                      }
                      return i;
                    },
                    [](int) {});
              }),
              "first");
  }
  request_stop();
  message_of(
      [] {
        OrderedWork<int, int>::run(
            2, []() -> std::optional<int> { return 1; }, [](int i) { return i; }, [](int) {});
      },
      ErrorKind::kCancelled);
  clear_stop();
}

}  // namespace
}  // namespace stoker::corpus
