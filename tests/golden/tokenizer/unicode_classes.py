#!/usr/bin/env python3
"""Asks PyPI's tokenizers (Oniguruma and Rust's regex) for the class of every code point and prints where
src/data/tokenizer/unicode_ranges.cpp disagrees, in the form of src/data/tokenizer/unicode/unicode16.txt."""
import os
import re
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
LIMIT = 0x110000


def matching(pattern):
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed")
    found = set()
    for base in range(0, LIMIT, 0x400):
        codes = [c for c in range(base, base + 0x400) if not 0xD800 <= c < 0xE000]
        kept = set()
        for text, _ in split.pre_tokenize_str("".join(map(chr, codes))):
            kept.update(map(ord, text))
        found.update(c for c in codes if c not in kept)
    return found


def word_characters():
    """\\w of Rust's regex: a single_word token is refused next to a word character."""
    t = Tokenizer(models.BPE({"a": 0}, []))
    t.add_tokens([AddedToken("%", single_word=True, normalized=False)])
    mark = t.token_to_id("%")
    return {c for c in range(LIMIT) if not 0xD800 <= c < 0xE000 and c != ord("%")
            and mark not in t.encode("%" + chr(c)).ids}


def main():
    ours = [0] * LIMIT
    text = open(os.path.join(ROOT, "src/data/tokenizer/unicode_ranges.cpp")).read()
    cells = [int(x, 16) for x in re.findall(r"0x([0-9a-f]+),", text)]
    for cell, nxt in zip(cells, cells[1:] + [LIMIT << 5]):
        for c in range(cell >> 5, nxt >> 5):
            ours[c] = cell & 15
    theirs = [0] * LIMIT
    for pattern, value in ((r"[\p{Lu}\p{Lt}]", 1), (r"\p{Ll}", 2), (r"[\p{Lm}\p{Lo}]", 3), (r"\p{M}", 4), (r"\p{N}", 5), (r"\s", 6)):
        for c in matching(pattern):
            theirs[c] = value
    for c in word_characters():
        theirs[c] |= 8
    different = [c for c in range(LIMIT) if ours[c] != theirs[c] and not 0xD800 <= c < 0xE000]
    start = None
    for i, c in enumerate(different):
        start = c if start is None else start
        if i + 1 == len(different) or different[i + 1] != c + 1 or theirs[c + 1] != theirs[c]:
            print(f"{start:X}..{c:X} {theirs[c]}")
            start = None
    print(f"# {len(different)} of {LIMIT} code points differ from tokenizers {tokenizers.__version__}")


main()
