// data/corpus/unicode_encoding.h
// Bytes of unknown encoding -> UTF-8.
// Order    byte order mark; then, when the bytes are valid UTF-8 with at least one multi-byte
//          character, UTF-8 whatever was declared (text in a legacy encoding is almost never
//          valid UTF-8 by chance); then the declared label (HTTP header or other hint, then HTML
//          meta / XML declaration); then pure ASCII; then ICU's statistical detector; then
//          windows-1252
// Labels   as browsers read them: iso-8859-1 and ascii mean windows-1252, gb2312 means gb18030,
//          and so on
// Errors   bytes that do not fit become U+FFFD and are counted: conversion itself never fails. An
//          unknown label is ignored
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace stoker::corpus {

struct EncodingGuess {
  std::string name;    // a converter name; "UTF-8" when no conversion is needed
  std::string source;  // "bom", "valid", "declared", "meta", "ascii", "statistics", "fallback"
};

// hint: a label from outside, or empty. html: also look at <meta charset> and the XML declaration.
EncodingGuess detect_encoding(std::string_view bytes, std::string_view hint, bool html);

struct Decoded {
  std::string text;       // valid UTF-8, without a byte order mark
  uint64_t replaced = 0;  // malformed sequences that became U+FFFD
};
Decoded decode_to_utf8(std::string_view bytes, const EncodingGuess& encoding);

// Length of the longest prefix that is valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF).
size_t valid_utf8_prefix(std::string_view bytes);

}  // namespace stoker::corpus
