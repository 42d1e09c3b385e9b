"""What the golden files and the parity run share: the patterns, nasty texts, and tokenizers of PyPI's tokenizers."""
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
WORD = r"[^\r\n\p{L}\p{N}]?"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REGEX = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": CONTRACTIONS + "|" + WORD + r"\p{L}+|\p{N}{1,3}" + SYMBOLS + REST,
    "qwen2": CONTRACTIONS + "|" + WORD + r"\p{L}+|\p{N}" + SYMBOLS + REST,
    "qwen3.5": CONTRACTIONS + "|" + WORD + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + REST,
    # tiktoken's text written for Oniguruma: \z for $, no possessive {1,3}+
    "cl100k": CONTRACTIONS + "|" + WORD + r"\p{L}+|\p{N}{1,3}" + SYMBOLS + r"|\s+\z" + REST,
    "o200k": WORD + UP + "*" + LOW + "+" + CONTRACTIONS + "?|" + WORD + UP + "+" + LOW + "*" + CONTRACTIONS + "?"
             + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST,
}
TIKTOKEN_CL100K = (r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
                   r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""")


def pre_tokenizer(name):
    if name == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(REGEX[name]), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(name, text, vocab_size, min_frequency=2, special=("<|endoftext|>",), nfc=False):
    t = Tokenizer(models.BPE())
    if nfc:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizer(name)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


NASTY = [
    "", " ", "  ", "\n", "\r\n", " \n ", "\t\t x", "a", "é", "e\u0301", "\u0301", "\u00a0\u00a0x", "\u3000 中文\u3000字",
    "Hello, world! I'm here; you're there. They'll've DON'T WE'RE I'LL he'D",
    "it's IT'S it'S 's 't 're don'tx 'tis ''s '''ll O'Neil's x'\u017f X'\u017fy 'll'll",
    "rock'n'roll 's's 'RE'VE'M\n'd\r\n'S",
    "12345678901234567890 1 12 123 1234 3.14159 1,000,000 0x1F x2y33z444 ٣٤٥٦٧ ⅷ² Ⅻ ½½½½",
    "camelCaseHTMLParser XMLHttpRequest ABCdefGHI aB AbC ABc ǅǅa ΑΒΓαβγ ЖжЖЖж",
    "HELLO中文WORLD 中A文B ªAº ʰABC AʰBC e\u0301E\u0301e \u0301\u0301A \u0301a A\u0301 !\u0301 !\u0301a",
    "a  b   c    d\n\n\n\ne \n f\n \n \ng\t\n\t h   ", "trailing   \n  ", "trailing \n\n", "   leading", "\n\n  \n\tx  \r\n\r\n y",
    "x\n y\n  z\n\tq\n\t\tw\r a\r\r b \r\nc", "if (x) {\n        return y[0] != z;  // why?\n}\n",
    "!!!\n\n\n??? ... \n...\n/\n//\n path/to/file\n!/\n/ a/b !/\r\n/x", " !x (y) [z] {w} <v> \"q\" 'p' `o` ~n @m #l $k %j ^i &h *g -f +e =d \\c |b ;a",
    "()a (b) ((c)) _d __e -f--g \t(h \t\ti", "漢字かなカナ한국어 ภาษาไทย हिन्दी العربية עברית Ελληνικά Русский Tiếng Việt",
    "हिन्दी में क्षत्रिय ನಮಸ್ಕಾರ தமிழ் മലയാളം བོད་ཡིག မြန်မာ ខ្មែរ", "🙂👍🏽👨‍👩‍👧‍👦🇩🇪 a🙂b 1🙂2 🙂🙂 \ufe0f☃️ 🏳️‍🌈!", "𝒜𝓑𝔠 𐐀𐐨 𠀀𪚥 \U0010FFFF \uE000",
    "\u0000\u0001\u001b[0m\u007f \u0085x\u0085\u0085 \u200b\u200d\ufeff\u2028\u2029 \u180e \x1c\x1d\x1e\x1f ",
    "Å Å A\u030a ﬁ ﬀ ½ \u1e9b\u0323 \u0958 각 \u1100\u1161\u11a8 \u0344 q\u0307\u0323 q\u0323\u0307 \u2126 \uf900",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> <|endo", "<|im_start|>user\nhi<|im_end|>\n", "<tool> <tool_call>x</tool_call>  <tool>",
    " <strip> x  <lstrip>y<rstrip>  z <word> xword word-word <word>s", "<mask>  \n<mask>word word\u00e9 e\u0301word", "caf\u00e9<c\u0327a> cafe\u0301 <\u00e7a>",
    "https://example.org/a?b=c&d=e#f user@example.com C:\\dir\\file.txt", "a" * 300, " " * 300, "\n" * 100 + "x", "ab" * 200, "1" * 100, "!" * 200,
    "中" * 120, "é" * 90, "aA" * 80, "A" * 70 + "a", " a" * 50, "\u0301" * 80, "x" + " " * 70 + "y", "\r\n" * 40 + " ", "'s" * 40, "🙂" * 30,
    "\u1c89\ua7cb\U000105c0\U00010d4a \U00010d40\U000116d0 \U00010d69x \U0002ebf0", "\u0e33\u0e32 \u09be\u09c7 \u0b47\u0b3e",
]


def random_text(rng, size):
    """UTF-8 text of every kind of character, with the neighbours that matter to the patterns more often."""
    common = [" ", " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "'re", "a", "B", "z", "Q", "the", "The", "THE", "1", "22", "333",
              "!", "/", "(", ".", ",", "\u00a0", "\u3000", "é", "e\u0301", "\u0301", "中", "文", "ж", "Ж", "ǅ", "ʰ", "ª", "٣", "²", "🙂", "\u200d", "ſ",
              "<|endoftext|>", "<tool>", "<lstrip>", "<rstrip>", "word", "<mask>", "\u0085", "\u2028", "\u0e33", "한", "क्ष", "_", "-", "\\", "\""]
    out = []
    for _ in range(size):
        kind = rng.random()
        if kind < 0.72:
            out.append(rng.choice(common))
        elif kind < 0.86:
            out.append(chr(rng.randrange(0x80)))
        elif kind < 0.94:
            out.append(chr(rng.randrange(0x3000)))
        else:
            c = rng.randrange(0x110000)
            out.append(chr(c) if not 0xD800 <= c < 0xE000 else "?")
        if rng.random() < 0.03:
            out.append(out[-1] * rng.randrange(1, 90))
    return "".join(out)


def add_tokens(t, kind):
    """Added tokens with every flag."""
    if kind == "plain":
        t.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        return
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False), AddedToken("<strip>", single_word=True)])
    t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<tool_call>", normalized=False), AddedToken("<lstrip>", lstrip=True, normalized=False),
                  AddedToken("<rstrip>", rstrip=True, normalized=True), AddedToken("word", single_word=True, normalized=False),
                  AddedToken("<c\u0327a>", normalized=True)])


def training_text():
    rng = random.Random(7)
    syllables = [a + b for a in "bcdfghklmnprst" for b in ("a", "e", "i", "o", "u", "en", "ing", "er", "é")]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randrange(1, 4))) for _ in range(400)]
    lines = []
    for _ in range(260):
        line = " ".join(rng.choice(words[: rng.choice((20, 100, 400))]) for _ in range(rng.randrange(3, 12)))
        lines.append(line.capitalize() + rng.choice([".", "!", "?", ",", ":", " (x)", "'s", "'LL", ""]) + rng.choice(["\n", " ", "\n\n    ", "\r\n"]))
    return "".join(lines) + "\n".join(t for t in NASTY if len(t) < 200) + random_text(rng, 1500)
