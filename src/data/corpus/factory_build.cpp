#include "data/corpus/factory_build.h"

#include <malloc.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/threads.h"
#include "data/corpus/factory_decide.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/factory_lines.h"
#include "data/corpus/factory_map.h"
#include "data/corpus/factory_output.h"

namespace stoker::corpus {
namespace {

class FactoryBuilder {
 public:
  FactoryBuilder(io::FileSystem& fs, const Recipe& recipe)
      : fs_(fs),
        recipe_(recipe),
        context_(fs, recipe),
        store_(fs, recipe.work),
        columns_(context_, store_),
        threads_(recipe.threads > 0 ? recipe.threads : compute_threads()) {}

  BuildResult run(bool prune) {
    const double start = monotonic_s();
    check_output(recipe_);
    if (prune) store_.remember_asked();
    for (int round = 0;; ++round) {
      try {
        BuildResult result = attempt();
        if (prune) {
          const auto pruned = store_.prune();
          result.pruned_files = pruned.files;
          result.pruned_bytes = pruned.bytes;
        }
        result.seconds = monotonic_s() - start;
        return result;
      } catch (const ArtifactLost& lost) {
        columns_.distrust();
        if (round == 4)
          fail(ErrorKind::kStorage,
               "{}: files of the work directory keep failing their checksum ({}): check the disk",
               recipe_.work, lost.what);
      }
    }
  }

 private:
  BuildResult attempt() {
    Corpus corpus;
    corpus.inputs = list_inputs(fs_, recipe_);
    for (const auto& batch : corpus.inputs.batches) {
      corpus.batch_first_file.push_back(static_cast<uint32_t>(corpus.files.size()));
      for (const auto& file : batch.files) corpus.files.push_back(&file);
    }
    BuildResult result;
    result.files = corpus.inputs.files;
    result.left_out = corpus.inputs.left_out;
    result.stored_bytes = corpus.inputs.bytes;
    DocumentDecisions decisions(context_, columns_, corpus, watch_);
    decisions.name_labels();
    ChunkMapper mapper(fs_, context_, store_, columns_, corpus, watch_, threads_);
    size_t begin = 0, end = next_lines(0);
    result.chunks_computed = mapper.ingest(end);
    result.text_bytes_in = decisions.number_documents();
    decisions.decide(begin, end);
    while (end < recipe_.stages.size()) {
      const double start = monotonic_s();
      const uint64_t bytes = remove_repeated_lines(end, recipe_, decisions, columns_, store_, corpus);
      watch_.add("lines", monotonic_s() - start, bytes);
      begin = end + 1;
      end = next_lines(begin);
      result.chunks_computed += mapper.map_segment(begin, end);
      decisions.decide(begin, end);
    }
    decisions.decide_weights();
    result.chunks = corpus.chunks.size();
    result.documents_in = corpus.documents.size();
    malloc_trim(0);  // what deciding held is wanted for writing
    write_corpus(fs_, context_, store_, corpus, threads_, result);
    result.timings = watch_.take();
    return result;
  }

  // The next stage that changes text by what the whole corpus holds, or the end: a segment ends there.
  size_t next_lines(size_t from) const {
    while (from < recipe_.stages.size() && recipe_.stages[from].kind != StageKind::kLines) ++from;
    return from;
  }

  io::FileSystem& fs_;
  const Recipe& recipe_;
  StageContext context_;
  ArtifactStore store_;
  ChunkColumns columns_;
  int threads_;
  Stopwatch watch_;
};

}  // namespace

BuildResult build_corpus(io::FileSystem& fs, const Recipe& recipe, bool prune) {
  return FactoryBuilder(fs, recipe).run(prune);
}

}  // namespace stoker::corpus
