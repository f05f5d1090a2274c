"""Two kinds of tokenizer, trained and run in plain Python: pieces as SentencePiece's BPE makes them, and byte-level BPE.

Both know how to write themselves into a GGUF file (metadata) and encode exactly as engines that read that file do:
the SentencePiece kind joins the pair whose joined piece has the best score, the byte-level kind the pair that was
merged earliest. Text is cut into words first and a word is encoded once, which is fast enough for a small world.
"""
import re
from collections import Counter

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
SPACE = "\u2581"
LETTER, OTHER = r"[^\W\d_]", r"(?:[^\s\w]|_)"
CONTRACTION = r"'s|'t|'re|'ve|'m|'ll|'d"

# How byte-level BPE cuts text before it merges, by the name that tokenizer.ggml.pre gives it.
CUTS = {
    "qwen2": rf"(?i:{CONTRACTION})|(?:[^\r\n\w]|_)?{LETTER}+|\d| ?{OTHER}+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "refact": rf"\d|{CONTRACTION}| ?{LETTER}+| ?{OTHER}+|\s+(?!\S)|\s+",
}


def learn_merges(words, count, may_join=lambda a, b: True):
    """The `count` most useful merges for `words` (a Counter of symbol tuples), the most frequent pair first."""
    merges = []
    words = dict(words)
    while len(merges) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        pairs = {pair: times for pair, times in pairs.items() if may_join(*pair)}
        if not pairs:
            break
        # The pair itself breaks ties, so that the result does not depend on the order of a dictionary.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        joined = Counter()
        for word, times in words.items():
            joined[tuple(join_pair(list(word), best))] += times
        words = joined
    return merges


def join_pair(symbols, pair):
    i = 0
    while i + 1 < len(symbols):
        if (symbols[i], symbols[i + 1]) == pair:
            symbols[i:i + 2] = [symbols[i] + symbols[i + 1]]
        i += 1
    return symbols


class SentencePieces:
    """Pieces with scores, a space as U+2581, one in front of the text, bytes for characters without a piece."""

    # No piece has a space anywhere but in front or crosses from letters to anything else, so words encode alone.
    WORD = re.compile(rf"{SPACE}?[A-Za-z]+|{SPACE}?[^{SPACE}A-Za-z]|{SPACE}")
    bos, eos = 1, 2

    def __init__(self, text, size):
        words = Counter(self.words(text))
        characters = sorted(set("".join(words)) - {"\n"})
        merges = learn_merges({tuple(word): times for word, times in words.items()}, size - 259 - len(characters))
        pieces = list(dict.fromkeys(a + b for a, b in merges)) + characters
        self.tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
        self.types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces)
        self.scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))]
        self.ids = {piece: 259 + i for i, piece in enumerate(pieces)}
        self.cache = {}

    def words(self, text):
        return self.WORD.findall((" " + text).replace(" ", SPACE))

    def encode(self, text):
        """Ids without <s> and </s>."""
        ids = []
        for word in self.words(text):
            if word not in self.cache:
                self.cache[word] = self.encode_word(word)
            ids += self.cache[word]
        return ids

    def encode_word(self, word):
        symbols = list(word)
        while True:
            # Lowest id is best score; the leftmost of equals.
            best = min(((self.ids[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in self.ids),
                       default=None)
            if best is None:
                break
            i = best[1]
            symbols[i:i + 2] = [symbols[i] + symbols[i + 1]]
        return [token for symbol in symbols for token in
                ([self.ids[symbol]] if symbol in self.ids else [3 + byte for byte in symbol.encode()])]

    def decode(self, ids):
        data = b""
        for token in ids:
            if self.types[token] == BYTE:
                data += bytes([token - 3])
            elif self.types[token] == NORMAL:
                data += self.tokens[token].replace(SPACE, " ").encode()
        text = data.decode(errors="replace")
        return text[1:] if text.startswith(" ") else text

    def metadata(self):
        return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": self.tokens,
                "tokenizer.ggml.scores": self.scores, "tokenizer.ggml.token_type": self.types,
                "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
                "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True,
                "tokenizer.ggml.add_eos_token": False, "tokenizer.ggml.add_space_prefix": True}


def byte_letters():
    """One printable character for each byte: itself where it is printable, else the next free one from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, spare = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte) if byte in printable else chr(spare)
        spare += byte not in printable
    return letters


class BytePairs:
    """Byte-level BPE: 256 bytes, merges in the order they were learnt, control tokens at the end."""

    LETTERS = byte_letters()
    BYTES = {letter: byte for byte, letter in LETTERS.items()}

    def __init__(self, text, size, cut, controls):
        self.cut_name, self.cut = cut, re.compile(CUTS[cut])
        words = Counter(self.spell(word) for word in self.cut.findall(text))
        self.merges = learn_merges({tuple(word): times for word, times in words.items()}, size - 256 - len(controls))
        pieces = sorted(self.BYTES) + [a + b for a, b in self.merges]
        assert len(set(pieces)) == len(pieces)
        self.tokens = pieces + controls
        self.types = [NORMAL] * len(pieces) + [CONTROL] * len(controls)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.bos, self.eos = None, self.ids["<|endoftext|>"]
        self.cache = {}

    def spell(self, word):
        return "".join(self.LETTERS[byte] for byte in word.encode())

    def encode(self, text):
        ids = []
        for word in self.cut.findall(text):
            if word not in self.cache:
                self.cache[word] = self.encode_word(word)
            ids += self.cache[word]
        return ids

    def encode_word(self, word):
        symbols = list(self.spell(word))
        while True:
            best = min((self.ranks.get(pair, len(self.ranks)) for pair in zip(symbols, symbols[1:])),
                       default=len(self.ranks))
            if best == len(self.ranks):
                return [self.ids[symbol] for symbol in symbols]
            join_pair(symbols, self.merges[best])

    def decode(self, ids):
        letters = "".join(self.tokens[token] for token in ids if self.types[token] == NORMAL)
        return bytes(self.BYTES[letter] for letter in letters).decode(errors="replace")

    def metadata(self):
        return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": self.cut_name, "tokenizer.ggml.tokens": self.tokens,
                "tokenizer.ggml.token_type": self.types, "tokenizer.ggml.merges": [f"{a} {b}" for a, b in self.merges],
                "tokenizer.ggml.bos_token_id": self.eos, "tokenizer.ggml.eos_token_id": self.eos,
                "tokenizer.ggml.add_bos_token": False}
