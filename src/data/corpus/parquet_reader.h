// data/corpus/parquet_reader.h
// Rows of a Parquet file -> records: the string column RecordOptions::text_field is the text, a column url or id the name.
// An optional part: it needs Arrow's C++ library, which Debian 12 does not have. `./dev parquet` brings it and builds with
// it; without it every call but the first two fails with words that say so.
// Bad records   a null; a text longer than max_record_bytes; a file that is no Parquet, is cut, lacks the column or has one
//               that holds no strings: one record that says so, and the file ends there
// Memory        pages are read one after another; all of Arrow's memory is capped at 4 * max_record_bytes + 64 MiB
#pragma once
#include <memory>
#include <string>

#include "data/corpus/factory_records.h"
#include "io/file_system.h"

namespace stoker::corpus {

bool parquet_built_in();
// "built in (Arrow 26.0.1)", or why not and what to do.
std::string parquet_support();

std::unique_ptr<RecordReader> make_parquet_reader(io::FileSystem& fs, const std::string& path,
                                                  const RecordOptions& options);

}  // namespace stoker::corpus
