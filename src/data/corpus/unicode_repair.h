// data/corpus/unicode_repair.h
// Text as people meant it: one normal form, no invisible debris, double-encoded UTF-8 undone.
// Steps      1. line ends: CR LF, CR, U+2028, U+2029, U+0085 become LF
//            2. double encoding: a run of characters that, read as windows-1252 bytes, is valid UTF-8 with a
//               multi-byte character is replaced by it ("cafÃ©" -> "café"); repeated at most twice
//            3. removed: controls but tab and LF, U+FEFF, U+200B, U+2060, soft hyphens, bidirectional marks,
//               noncharacters, interlinear marks; blanks of other widths (U+00A0, U+2000..200A, U+3000 ...)
//               become a space
//            4. Unicode normalisation (NFC, or NFKC which also folds ligatures and full-width forms)
//            5. trailing blanks of lines and more than two line feeds in a row are cut
// Input      valid UTF-8 (else the malformed bytes are dropped and counted)
// Determinism, cost   a pure function; idempotent; plain ASCII is checked and copied once
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace stoker::corpus {

struct UnicodeOptions {
  bool fix_double_encoding = true;
  bool compatibility = false;  // NFKC instead of NFC
  bool squeeze_blank_lines = true;
};

struct Repaired {
  std::string text;
  uint64_t malformed = 0;  // bytes dropped
  uint64_t undone = 0;     // double-encoded runs
  uint64_t removed = 0;    // invisible characters
};

Repaired repair_unicode(std::string_view text, const UnicodeOptions& options = {});

}  // namespace stoker::corpus
