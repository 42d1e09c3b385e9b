#!/usr/bin/env python3
"""One job of datatrove on JSON lines, on one core; prints {"cpu_s", "wall_s"} of the work itself, imports left out.

    datatrove_job.py dedup|shards INPUT_FOLDER WORK_FOLDER [TOKENIZER_JSON]

dedup   signatures, buckets, clusters, filter: FineWeb's parameters (14 bands of 8, 5-grams of words), as in its examples
shards  Gopher's repetition and quality rules, the same dedup, then token files"""
import json
import os
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
from loguru import logger

logger.remove()
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import load_word_tokenizer


def run(pipeline, work, name, tasks=1):
    LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{work}/logs/{name}", skip_completed=False).run()


def main():
    what, source, work = sys.argv[1:4]
    load_word_tokenizer("eng").word_tokenize("Loaded before the clock starts.")
    cpu, wall = time.process_time(), time.perf_counter()
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    if what == "shards":
        run([JsonlReader(source), GopherRepetitionFilter(), GopherQualityFilter(), JsonlWriter(f"{work}/filtered", compression=None)], work, "filter")
        source = f"{work}/filtered"
    run([JsonlReader(source), MinhashDedupSignature(f"{work}/signatures", config=config)], work, "signatures")
    run([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], work, "buckets", 14)
    run([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], work, "cluster")
    last = [JsonlReader(source), MinhashDedupFilter(f"{work}/remove")]
    if what == "shards":
        last += [DocumentTokenizer(f"{work}/tokens", tokenizer_name_or_path=sys.argv[4], eos_token="<|endoftext|>", local_working_dir=None)]
    else:
        last += [JsonlWriter(f"{work}/kept", compression=None)]
    run(last, work, "last")
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}))


main()
