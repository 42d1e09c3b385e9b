#include <array>

#include "data/tokenizer/definition.h"
#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {
namespace {

bool printable(int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

struct Alphabet {
  std::array<uint16_t, 256> code;  // byte -> code point
  std::array<int16_t, 324> byte;   // code point -> byte or -1
  std::vector<uint8_t> order;
  Alphabet() {
    byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) code[b] = printable(b) ? static_cast<uint16_t>(b) : next++;
    for (int b = 0; b < 256; ++b) byte[code[b]] = static_cast<int16_t>(b);
    for (int16_t b : byte)
      if (b >= 0) order.push_back(static_cast<uint8_t>(b));
  }
};

const Alphabet& alphabet() {
  static const Alphabet a;
  return a;
}

}  // namespace

const std::vector<uint8_t>& alphabet_order() { return alphabet().order; }

std::string byte_to_alphabet(uint8_t byte) {
  const uint16_t c = alphabet().code[byte];
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (char c : bytes) out += byte_to_alphabet(static_cast<uint8_t>(c));
  return out;
}

bool alphabet_to_bytes(std::string_view name, std::string& bytes) {
  bytes.clear();
  const auto* s = reinterpret_cast<const uint8_t*>(name.data());
  for (size_t i = 0; i < name.size();) {
    const Utf8Char c = decode_utf8(s + i, name.size() - i);
    if (!c.valid || c.code >= alphabet().byte.size() || alphabet().byte[c.code] < 0) return false;
    bytes.push_back(static_cast<char>(alphabet().byte[c.code]));
    i += c.length;
  }
  return true;
}

}  // namespace stoker::tokenizer
