#!/usr/bin/env python3
"""Makes the Parquet files that src/data/corpus/parquet_test.cpp reads. Needs pyarrow."""
import os

import pyarrow as pa
import pyarrow.parquet as pq

here = os.path.dirname(os.path.abspath(__file__))
texts = [f"row {i}: " + "words " * (i % 7) for i in range(600)]
texts[5] = None
texts[6] = ""
texts[7] = "caf\u00e9 \U0001f600"
table = pa.table({"text": texts, "url": [f"http://x/{i}" for i in range(600)], "n": list(range(600))})
# Small pages and groups, so that both kinds of edges are crossed; a dictionary that overflows into plain pages.
pq.write_table(table, f"{here}/rows.parquet", compression="snappy", row_group_size=250, data_page_size=512,
               dictionary_pagesize_limit=1024)
pq.write_table(table.slice(0, 20), f"{here}/rows-v2.parquet", compression="zstd", data_page_version="2.0", use_dictionary=False)
