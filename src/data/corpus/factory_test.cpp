#include "data/corpus/factory_build.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/factory_records.h"
#include "data/corpus/warc_reader.h"
#include "data/shard/manifest.h"

namespace stoker::corpus {
namespace {

namespace stdfs = std::filesystem;

std::vector<RawRecord> read_records(const char* format, std::string_view bytes, uint64_t max = 1 << 20) {
  size_t at = 0;
  RecordOptions options;
  options.max_record_bytes = max;
  const auto reader = make_record_reader(
      format,
      [&](char* to, size_t want) {
        const size_t n = std::min<size_t>({want, bytes.size() - at, 11});
        std::memcpy(to, bytes.data() + at, n);
        at += n;
        return n;
      },
      options);
  std::vector<RawRecord> out;
  RawRecord record;
  while (reader->next(record)) out.push_back(record);
  return out;
}

TEST(Records, CsvQuotesAndBadRows) {
  const auto rows = read_records("csv", "id;text\r\n1;\"a \"\"b\"\"\r\n;c\"\r\n2;plain\n3\n\n4;\"open");
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].bytes, "a \"b\"\r\n;c");
  EXPECT_EQ(rows[0].name, "1");
  EXPECT_EQ(rows[1].bytes, "plain");
  EXPECT_EQ(rows[2].bad, "row of 1 fields, the header has 2");
  EXPECT_EQ(rows[3].bad, "a quote is never closed");
  EXPECT_EQ(read_records("csv", "a,b\n1,2\n")[0].bad.substr(0, 16), "no column 'text'");
  EXPECT_TRUE(read_records("csv", "").empty());
}

TEST(Records, LongLinesAreSkippedWithoutBeingHeld) {
  const auto lines =
      read_records("jsonl", "{\"text\":\"a\"}\n" + std::string(5000, 'x') + "\n{\"text\":\"b\"}", 1000);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].bad, "line longer than 1000 bytes");
  EXPECT_EQ(lines[2].number, 2u);
  EXPECT_EQ(lines[2].bytes, "{\"text\":\"b\"}");
}

std::string tar_member(const std::string& name, const std::string& content, char type = '0') {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  header.replace(124, 11, fmt::format("{:011o}", content.size()));
  header[156] = type;
  header.replace(257, 5, "ustar");
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  header.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
  return header + content + std::string((512 - content.size() % 512) % 512, '\0');
}

TEST(Records, TarMembersHostileAndGood) {
  const std::string tar = tar_member("a/one.txt", "first") + tar_member("../../etc/x.txt", "evil") +
                          tar_member("/abs.txt", "evil") + tar_member("link.txt", "", '2') +
                          tar_member("pic.png", std::string(700, 'p')) +
                          tar_member("two.json", "{\"text\":\"2\"}");
  const auto members = read_records("tar", tar + std::string(1024, '\0'));
  ASSERT_EQ(members.size(), 4u);
  EXPECT_EQ(members[0].name, "a/one.txt");
  EXPECT_EQ(members[0].bytes, "first");
  EXPECT_EQ(members[1].bad, "member name leads outside the archive");
  EXPECT_EQ(members[2].bad, "member name leads outside the archive");
  EXPECT_EQ(members[3].kind, RecordKind::kJson);
  EXPECT_EQ(read_records("tar", tar.substr(0, 515))[0].bad, "the archive ends inside a member");
  std::string damaged = tar;
  damaged[3] = 'X';
  EXPECT_NE(read_records("tar", damaged)[0].bad.find("checksum"), std::string::npos);
}

TEST(Records, WarcBodies) {
  const std::string http =
      "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=\"iso-8859-1\"\r\nTransfer-Encoding: "
      "chunked\r\n\r\n5\r\n<p>ab\r\n4\r\n</p>\r\n0\r\n\r\n";
  auto warc = [](const std::string& type, const std::string& content_type, const std::string& body) {
    return "WARC/1.0\r\nWARC-Type: " + type +
           "\r\nWARC-Target-URI: http://x.example/\r\nContent-Type: " + content_type +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body + "\r\n\r\n";
  };
  const std::string file = warc("warcinfo", "x/y", "skip") +
                           warc("response", "application/http; msgtype=response", http) +
                           warc("response", "application/http", "HTTP/1.1 404 No\r\n\r\nno") +
                           warc("conversion", "text/plain", "words");
  const auto records = read_records("warc", file);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].bytes, "<p>ab</p>");
  EXPECT_EQ(records[0].charset, "iso-8859-1");
  EXPECT_EQ(records[0].name, "http://x.example/");
  EXPECT_EQ(records[1].bytes, "words");
  EXPECT_NE(read_records("warc", file.substr(0, file.size() - 6)).back().bad.find("ends inside"),
            std::string::npos);
  EXPECT_NE(read_records("warc", "WARC/1.0\r\nContent-Length: 99999999999999\r\nWARC-Type: resource\r\n\r\nx")
                .back()
                .bad.size(),
            0u);
  RawRecord bomb;
  std::string packed(4096, '\0');
  const std::string zeros(1 << 20, '\0');
  z_stream z{};
  ASSERT_EQ(deflateInit2(&z, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(zeros.data()));
  z.avail_in = static_cast<uInt>(zeros.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  packed.resize(z.total_out);
  deflateEnd(&z);
  EXPECT_TRUE(open_http_response(
      "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + packed, 100000, bomb));
  EXPECT_EQ(bomb.bad, "unpacked body longer than 100000 bytes");
}

class Factory : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = (stdfs::temp_directory_path() / fmt::format("stoker_factory_{}_{}", ::getpid(),
                                                        ::testing::UnitTest::GetInstance()->random_seed()))
                .string();
    stdfs::remove_all(root_);
    stdfs::create_directories(root_ + "/in/pages");
    std::string lines;
    for (int i = 0; i < 400; ++i) {
      const std::string body = prose(i % 300);
      lines += nlohmann::json{{"text", body}, {"id", "d" + std::to_string(i)}}.dump() + "\n";
      if (i % 50 == 7) lines += "this is no JSON\n";
    }
    put("in/lines.jsonl", lines);
    for (int i = 0; i < 60; ++i)
      put(fmt::format("in/pages/p{:02}.html", i),
          "<html><body><nav><a href=x>Menu</a></nav><main><h1>Page</h1><p>" + prose(1000 + i % 40) +
              "</p><p>Write to a" + std::to_string(i) +
              "@example.com with any remark on it.</p></main></body></html>");
    put("in/pages/deep.html", [] {
      std::string deep;
      for (int i = 0; i < 5000; ++i) deep += "<div>";
      return deep;
    }());
    put("in/empty.txt", "");
  }
  void TearDown() override { stdfs::remove_all(root_); }

  static std::string prose(int seed) {
    static const char* const kWords[] = {"the",  "river", "and",   "old",  "town",  "with",  "people",
                                         "that", "bring", "corn",  "have", "house", "of",    "stone",
                                         "to",   "be",    "found", "in",   "every", "valley"};
    std::string out;
    for (uint64_t i = 0; i < 120; ++i) {
      out += kWords[random_u64({static_cast<uint64_t>(seed), 5}, i) % 20];
      out += i % 12 == 11 ? ".\n" : " ";
      if (i % 7 == 3)
        out += "x" + std::to_string(random_u64({static_cast<uint64_t>(seed), 6}, i) % 100000) + "y ";
    }
    return out;
  }
  void put(const std::string& name, const std::string& text) const {
    stdfs::create_directories(stdfs::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name, std::ios::binary) << text;
  }
  Recipe recipe(const std::string& stages, const std::string& out, const std::string& work) const {
    return parse_recipe("output = \"" + out + "\"\nwork = \"" + work +
                            "\"\nmemory_mb = 64\nchunk_mb = 1\nthreads = 2\n" + "stages = [" + stages +
                            "]\n[[source]]\nname = \"lines\"\npaths = [\"in/lines.jsonl\"]\npriority = 1\n" +
                            "[[source]]\nname = \"pages\"\npaths = [\"in/pages\"]\nlabel = \"web\"\n",
                        "recipe.toml", root_);
  }
  // Every file of the version, by name.
  static std::map<std::string, std::string> files_of(const std::string& directory) {
    std::map<std::string, std::string> out;
    for (const auto& entry : stdfs::recursive_directory_iterator(directory))
      if (entry.is_regular_file()) {
        std::ifstream in(entry.path(), std::ios::binary);
        std::ostringstream text;
        text << in.rdbuf();
        out[stdfs::relative(entry.path(), directory).string()] = text.str();
      }
    return out;
  }
  // What it returns in a process of its own that no permission is waived for, as for root they are.
  static int as_nobody(const std::function<int()>& action) {
    const pid_t child = ::fork();
    if (child == 0) {
      int code = 99;
      try {
        if (::geteuid() != 0 || ::setuid(65534) == 0) code = action();
      } catch (const std::exception& e) {
        fmt::print(stderr, "{}\n", e.what());
      }
      ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static constexpr const char* kStages =
      "{use = \"unicode\"}, {use = \"language\", keep = [\"en\"], min_share = 0.2}, {use = \"quality\", "
      "bounds = {words = [20, 100000]}}, "
      "{use = \"pii\"}, {use = \"exact\"}, {use = \"near\"}, {use = \"lines\"}, {use = \"label\", name = "
      "\"stone\", pattern = \"stone\"}";
  std::string root_;
};

TEST_F(Factory, EveryDocumentIsKeptOrHasAReason) {
  const auto r = build_corpus(io::real_file_system(), recipe(kStages, "out", "work"));
  EXPECT_EQ(r.documents_in, 400u + 8 + 61);
  EXPECT_EQ(r.quarantined, 9u);  // eight lines and one page
  const auto files = files_of(r.directory);
  auto lines = [&](const char* name) {
    return static_cast<uint64_t>(std::count(files.at(name).begin(), files.at(name).end(), '\n'));
  };
  EXPECT_EQ(lines("documents.jsonl") + lines("dropped.jsonl") + lines("quarantine.jsonl"), r.documents_in);
  EXPECT_EQ(lines("documents.jsonl"), r.documents_out);
  EXPECT_NE(files.at("quarantine.jsonl").find("nested 5000 deep"), std::string::npos);
  EXPECT_NE(files.at("dropped.jsonl").find("\"reason\":\"exact: copy\",\"matched\":\"lines/lines.jsonl#"),
            std::string::npos);
  EXPECT_EQ(files.at("documents.jsonl").find("@example.com"), std::string::npos);
  EXPECT_NE(files.at("documents.jsonl").find("\"labels\":[\"web\""), std::string::npos);
  EXPECT_NE(files.at("report.html").find("Samples of each reason"), std::string::npos);
  const auto again = build_corpus(io::real_file_system(), recipe(kStages, "out", "work"));
  EXPECT_TRUE(again.up_to_date);
  EXPECT_EQ(again.chunks_computed, 0u);
  EXPECT_EQ(again.documents_out, r.documents_out);
}

// A dead link is refused where what it leads to would be read (as data prepare does); a path that the system finds too long is a
// record in quarantine.
TEST_F(Factory, WhatCannotBeLookedAtIsNamed) {
  put("some/a.txt", prose(1));
  const std::string tail = "\n[[source]]\nname = \"some\"\npaths = [\"some\"]\n";
  const auto build = [&] {
    return build_corpus(
        io::real_file_system(),
        parse_recipe("output = \"out\"\nmemory_mb = 64\nthreads = 1" + tail, "r.toml", root_));
  };
  stdfs::create_symlink("nowhere", root_ + "/some/README");
  EXPECT_EQ(build().documents_in, 1u);
  stdfs::create_symlink("nowhere", root_ + "/some/b.txt");
  try {
    build();
    FAIL() << "a dead link was passed over";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_NE(std::string(e.what()).find("some/b.txt"), std::string::npos) << e.what();
  }
  stdfs::remove(root_ + "/some/b.txt");
  // Deeper than a path can say: made, and removed, from within.
  const auto before = stdfs::current_path();
  const std::string folder(200, 'd');
  stdfs::current_path(root_ + "/some");
  constexpr int kDepth = 25;
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_EQ(::mkdir(folder.c_str(), 0700), 0);
    ASSERT_EQ(::chdir(folder.c_str()), 0);
  }
  std::ofstream("far.txt") << prose(2);
  stdfs::current_path(before);
  const auto r = build();
  EXPECT_EQ(r.quarantined, 1u);
  EXPECT_EQ(r.documents_in, 2u);
  EXPECT_NE(files_of(r.directory).at("quarantine.jsonl").find("far.txt"), std::string::npos);
}

TEST_F(Factory, ThreadsAndCacheDoNotChangeABit) {
  auto one = recipe(kStages, "out1", "work1");
  one.threads = 1;
  const auto a = build_corpus(io::real_file_system(), one);
  auto four = recipe(kStages, "out2", "work2");
  four.threads = 4;
  const auto b = build_corpus(io::real_file_system(), four);
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(files_of(a.directory), files_of(b.directory));
  // Part of the cache gone, part of it damaged.
  int number = 0;
  for (const auto& entry : stdfs::recursive_directory_iterator(root_ + "/work2"))
    if (entry.is_regular_file()) {
      if (++number % 3 == 0) stdfs::remove(entry.path());
      else if (number % 3 == 1) stdfs::resize_file(entry.path(), entry.file_size() / 2);
    }
  stdfs::remove_all(root_ + "/out2");
  const auto c = build_corpus(io::real_file_system(), four);
  EXPECT_EQ(files_of(a.directory), files_of(c.directory));
}

TEST_F(Factory, AMovedThresholdReadsNothingAgain) {
  build_corpus(
      io::real_file_system(),
      recipe("{use = \"unicode\"}, {use = \"quality\", bounds = {words = [20, 100000]}}, {use = \"near\"}",
             "out", "work"));
  stdfs::rename(root_ + "/in", root_ + "/gone");
  stdfs::create_directories(root_ + "/in");
  for (const auto& entry : stdfs::recursive_directory_iterator(root_ + "/gone"))
    if (entry.is_regular_file()) {  // same names, sizes and times; other contents: reading them would show
      const auto to = root_ + "/in/" + stdfs::relative(entry.path(), root_ + "/gone").string();
      stdfs::create_directories(stdfs::path(to).parent_path());
      stdfs::rename(entry.path(), to);
      const auto time = stdfs::last_write_time(to);
      const auto size = stdfs::file_size(to);
      std::ofstream(to, std::ios::binary) << std::string(size, 'z');
      stdfs::last_write_time(to, time);
    }
  const auto r = build_corpus(
      io::real_file_system(),
      recipe("{use = \"unicode\"}, {use = \"quality\", bounds = {words = [125, 100000]}}, {use = \"near\"}",
             "out", "work"));
  EXPECT_EQ(r.chunks_computed, 0u);
  EXPECT_EQ(r.documents_in, 469u);
  EXPECT_FALSE(r.up_to_date);
}

// Pruning keeps what the same recipe needs, and no more: the rest is made again to the same bytes.
TEST_F(Factory, PruningKeepsWhatIsNeeded) {
  auto& fs = io::real_file_system();
  const auto files_in_work = [&] {
    size_t n = 0;
    for (const auto& entry : stdfs::recursive_directory_iterator(root_ + "/work"))
      n += entry.is_regular_file();
    return n;
  };
  const std::string fewer = "{use = \"unicode\"}, {use = \"exact\"}";
  const auto small = build_corpus(fs, recipe(fewer, "small", "work"), true);
  EXPECT_EQ(small.pruned_files, 0u);
  const size_t needed = files_in_work();
  build_corpus(fs, recipe(kStages, "out", "work"));
  const size_t all = files_in_work();
  ASSERT_GT(all, needed);
  put("work/text/00/torn.tmp-1-1", "of a killed process");
  const auto again = build_corpus(fs, recipe(fewer, "small", "work"), true);
  EXPECT_EQ(again.chunks_computed, 0u);
  EXPECT_EQ(again.pruned_files, all + 1 - needed);
  EXPECT_EQ(files_in_work(), needed);
  const auto truth = build_corpus(fs, recipe(kStages, "truth", "work-truth"));
  stdfs::remove_all(root_ + "/out");
  EXPECT_EQ(files_of(build_corpus(fs, recipe(kStages, "out", "work")).directory), files_of(truth.directory));
}

TEST_F(Factory, KilledAtAnyMomentItGoesOnToTheSameBytes) {
  const auto truth = build_corpus(io::real_file_system(), recipe(kStages, "truth", "work-truth"));
  const auto wanted = files_of(truth.directory);
  for (uint64_t round = 0; round < 8; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        auto one = recipe(kStages, "out", "work");
        one.threads = 1;
        build_corpus(io::real_file_system(), one);
      } catch (...) {
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(random_u64({11, 0}, round) % 60000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  const auto r = build_corpus(io::real_file_system(), recipe(kStages, "out", "work"));
  EXPECT_EQ(files_of(r.directory), wanted);
}

TEST_F(Factory, MistakesInARecipeAreNamed) {
  auto message = [&](const std::string& stages) -> std::string {
    try {
      recipe(stages, "out", "work");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message("{use = \"frobnicate\"}").find("no stage 'frobnicate'"), std::string::npos);
  EXPECT_NE(message("{use = \"near\", bnads = 3}").find("unknown key 'bnads'"), std::string::npos);
  EXPECT_NE(message("{use = \"quality\", bounds = {wrods = [1, 2]}}").find("no signal 'wrods'"),
            std::string::npos);
  EXPECT_NE(message("{use = \"label\", name = \"x\"}").find("exactly one"), std::string::npos);
  EXPECT_NE(message("{use = \"language\", keep = [\"english\"]}").find("'english' is no code"),
            std::string::npos);
  EXPECT_EQ(message("{use = \"language\", keep = [\"en\", \"zh-hant\", \"und\"]}"), "");
  EXPECT_NE(message("{use = \"near\", min_similarity = 7.5}").find("min_similarity is 7.5: expected 0 to 1"),
            std::string::npos);
  EXPECT_NE(message("\"unicode\"").find("expected stages = [{use = "), std::string::npos);
  // What is there under a wrong name is told before what is missing.
  auto whole = [](const char* text) -> std::string {
    try {
      parse_recipe(text, "r.toml", "");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(whole("outptu = \"o\"\n[[source]]\npaths = [\"x\"]").find("unknown key 'outptu'"),
            std::string::npos);
  EXPECT_NE(whole("output = \"o\"\n[[sources]]\npaths = [\"x\"]").find("unknown key 'sources'"),
            std::string::npos);
  EXPECT_NE(whole("output = \"o\"\n[source]\npaths = [\"x\"]").find("[[source]]"), std::string::npos);
}

// What a dataset's manifest says of the stages: the recipe's keys, in a form that a manifest can hold.
TEST_F(Factory, SettingsOfStagesAreInTheRecipesWords) {
  const auto said = [&](const std::string& stage) {
    const std::string settings = recipe("{use = " + stage + "}", "out", "work").stages.at(0).settings();
    return data::canonical_json(settings, "settings");
  };
  EXPECT_EQ(said("\"language\", keep = [\"en\"], min_share = 0.7"),
            R"({"keep":["en"],"min_share":"0.7","use":"language"})");
  EXPECT_EQ(
      said("\"near\", bands = 9, min_similarity = 0.85, prefer = \"longest\""),
      R"({"bands":9,"min_similarity":"0.85","n":5,"parameters":"fineweb","prefer":"longest","rows":8,"use":"near"})");
  EXPECT_EQ(said("\"quality\", rules = \"c4\", bounds = {words = [30, inf]}"),
            R"({"bounds":{"words":[30,"inf"]},"rules":["c4"],"use":"quality"})");
  for (const char* stage :
       {"\"unicode\"", "\"c4_lines\"", "\"pii\"", "\"exact\"", "\"lines\"",
        "\"label\", name = \"l\", pattern = \"x\"", "\"decontaminate\", sets = \"in/lines.jsonl\""})
    EXPECT_NE(said(stage).find("\"use\":"), std::string::npos) << stage;
}

// Not at the end of a long build.
TEST_F(Factory, AMissingTokenizerIsToldBeforeAnythingIsRead) {
  auto r = recipe("", "out", "work");
  r.tokenizer = root_ + "/none.json";
  EXPECT_THROW(build_corpus(io::real_file_system(), r), Error);
  EXPECT_FALSE(stdfs::exists(root_ + "/work/text"));
}

// Builds side by side into one folder: whoever is first writes the version, and the others find it.
TEST_F(Factory, BuildsSideBySideEndWithOneVersion) {
  std::vector<std::string> versions(3);
  std::vector<std::thread> builds;
  for (auto& version : versions)
    builds.emplace_back([&] {
      try {
        version = build_corpus(io::real_file_system(), recipe(kStages, "out", "work")).version;
      } catch (const std::exception& e) {
        version = e.what();
      }
    });
  for (auto& build : builds) build.join();
  EXPECT_EQ(versions[0].size(), 16u) << versions[0];
  EXPECT_EQ(versions, std::vector<std::string>(3, versions[0]));
  EXPECT_EQ(files_of(root_ + "/out").size(), files_of(root_ + "/out/" + versions[0]).size() + 1);
}

TEST_F(Factory, SourcesThatGiveNothingAreNamed) {
  auto message = [&](const std::string& path) -> std::string {
    auto one = recipe("", "out", "work");
    one.sources[0].paths = {root_ + "/" + path};
    try {
      list_inputs(io::real_file_system(), one);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message("nothing*").find("nothing at"), std::string::npos);
  stdfs::create_directories(root_ + "/empty/folder");
  EXPECT_NE(message("empty").find("there is no file in"), std::string::npos);
  std::ofstream(root_ + "/empty/program.exe") << "x";
  EXPECT_NE(message("empty").find("none of 1 files says"), std::string::npos);
}

// Names are bytes, JSON is UTF-8.
TEST_F(Factory, WhateverAFileIsCalledWhatIsWrittenIsJson) {
  put("odd/bad\xff\xfe.txt", prose(1));
  put("odd/copy\xc3.txt", prose(1));
  put("odd/new\nline \"quoted\".txt", prose(2));
  put("odd/broken\xe2\x82.jsonl", "{\"text\": 5}\n");
  auto one = recipe("{use = \"exact\"}", "out", "work");
  one.sources.pop_back();
  one.sources[0].paths = {root_ + "/odd"};
  const auto r = build_corpus(io::real_file_system(), one);
  EXPECT_EQ(r.documents_out, 2u);
  EXPECT_EQ(r.quarantined, 1u);
  std::set<std::string> ids;
  for (const auto& [name, text] : files_of(r.directory)) {
    if (!name.ends_with(".jsonl")) continue;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      ids.insert(nlohmann::json::parse(line).at("id").get<std::string>());
  }
  EXPECT_EQ(ids, (std::set<std::string>{"lines/bad\uFFFD\uFFFD.txt#0", "lines/copy\uFFFD.txt#0",
                                        "lines/new\nline \"quoted\".txt#0", "lines/broken\uFFFD.jsonl#0"}));
}

// Neither its size nor its time changes when a file may be read at last.
TEST_F(Factory, AFileThatCouldNotBeOpenedIsTriedAgain) {
  put("tree/a.txt", prose(1));
  put("tree/b.txt", prose(2));
  auto one = recipe("", "out", "work");
  one.sources.pop_back();
  one.sources[0].paths = {root_ + "/tree"};
  stdfs::permissions(root_, stdfs::perms::all);
  stdfs::permissions(root_ + "/tree/b.txt", stdfs::perms::none);
  EXPECT_EQ(as_nobody([&] {
              const auto r = build_corpus(io::real_file_system(), one);
              return r.quarantined == 1 && r.documents_out == 1 ? 0 : 1;
            }),
            0);
  stdfs::permissions(root_ + "/tree/b.txt", stdfs::perms::owner_all);
  const auto r = build_corpus(io::real_file_system(), one);
  EXPECT_EQ(r.quarantined, 0u);
  EXPECT_EQ(r.documents_out, 2u);
}

// A folder that cannot be listed ends the build: what is in it, and behind it, must not be missing without a word.
TEST_F(Factory, AFolderThatCannotBeListedIsAnError) {
  stdfs::create_directories(root_ + "/tree/b-locked");
  std::ofstream(root_ + "/tree/a.txt") << "one";
  std::ofstream(root_ + "/tree/c.txt") << "two";
  stdfs::permissions(root_ + "/tree/b-locked", stdfs::perms::none);
  auto one = recipe("", "out", "work");
  one.sources[0].paths = {root_ + "/tree"};
  EXPECT_EQ(as_nobody([&] {
              try {
                list_inputs(io::real_file_system(), one);
                return 2;
              } catch (const Error& e) {
                return std::string(e.what()).find("b-locked: Permission denied") != std::string::npos ? 0 : 3;
              }
            }),
            0);
  stdfs::permissions(root_ + "/tree/b-locked", stdfs::perms::owner_all);
}

TEST(Artifacts, TornFilesAreMissing) {
  const std::string folder =
      (stdfs::temp_directory_path() / fmt::format("stoker_artifacts_{}", ::getpid())).string();
  ArtifactStore store(io::real_file_system(), folder);
  const Hash128 key{1, 2};
  EXPECT_FALSE(store.get("text", key));
  store.put("text", key, "contents");
  EXPECT_EQ(store.get("text", key), "contents");
  stdfs::resize_file(store.path("text", key), 20);
  EXPECT_FALSE(store.get("text", key));
  EXPECT_FALSE(store.has("text", key));
  const std::vector<ChunkDocument> documents = {{1, 2, "name", "", "text"}, {3, 4, "", "bad", ""}};
  const std::string bytes = encode_chunk(documents);
  EXPECT_EQ(decode_chunk(bytes).at(1).bad, "bad");
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(decode_chunk(std::string_view(bytes).substr(0, n)), Error) << n;
  stdfs::remove_all(folder);
}

}  // namespace
}  // namespace stoker::corpus
