#!/usr/bin/env python3
"""Writes unigram_vectors.h: two small unigram models, trained on text that is made here, and what SentencePiece
makes of some texts with them. Needs Debian's python3-sentencepiece (0.1.97 when this was last run); the test
that reads the header does not. An argument names a file for the first model's replacements, as the fuzzer wants it:

    /usr/bin/python3 tests/unit/make_unigram_vectors.py tests/fuzz/seeds/tokenizer/replacements \\
        > tests/unit/unigram_vectors.h"""
import os
import random
import struct
import sys
import tempfile

import sentencepiece

WORDS = """the a shepherd walks over hill woolly lamb counted seven ewes while rain falls upon café naïve größe
москва 東京 羊 hello wool number 1234 567 ½ don't""".split()
ODD = [" ", "  ", "\t", "\n", "\u00a0", "\u0301", "é", "e\u0301", "ab", "abc", "xx", "\u200b", "🐑", "한", "\x00", "\x01",
       "\ufffd", "<unk>", "<s>", "ß"]
RULES = [("é", "e"), ("ab", "c"), ("abc", "woolly"), ("\t", " "), ("\n", " "), ("\u200b", ""), ("🐑", "a lamb"), ("xx", "x")]
MODELS = {
    "rules": dict(vocab_size=140, remove_extra_whitespaces=True),
    "bytes": dict(vocab_size=420, byte_fallback=True, remove_extra_whitespaces=False,
                  normalization_rule_name="identity"),
}
CASES = 60


def fields(data):
    """The fields of a protocol buffer: number and value, which is an int or bytes."""
    def number(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value, at

    at = 0
    while at < len(data):
        tag, at = number(at)
        if tag & 7 == 0:
            value, at = number(at)
        else:
            size = 4
            if tag & 7 == 2:
                size, at = number(at)
            value, at = data[at:at + size], at + size
        yield tag >> 3, value


def quote(data):
    return '"%s"' % "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else "\\%03o" % b for b in data)


def train(folder, name, options, chance):
    corpus = [" ".join(chance.choices(WORDS, k=chance.randint(3, 14))) + chance.choice(".!?,") for _ in range(2000)]
    corpus_path, rules_path = os.path.join(folder, "corpus"), os.path.join(folder, "rules.tsv")
    with open(corpus_path, "w") as f:
        f.write("\n".join(corpus) + "\n")
    with open(rules_path, "w") as f:
        for left, right in RULES:
            f.write("\t".join(" ".join("%X" % ord(c) for c in side) for side in (left, right)) + "\n")
    if name == "rules":
        options = dict(options, normalization_rule_tsv=rules_path)
    prefix = os.path.join(folder, name)
    sentencepiece.SentencePieceTrainer.train(input=corpus_path, model_type="unigram", model_prefix=prefix,
                                             hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
    with open(prefix + ".model", "rb") as f:
        return f.read()


def random_text(chance):
    kind = chance.random()
    if kind < 0.5:
        return "".join(chance.choice(WORDS + ODD + [" "]) for _ in range(chance.randint(0, 8))).encode()
    if kind < 0.7:
        return "".join(chr(chance.choice([chance.randrange(32, 127), chance.randrange(160, 0x2581),
                                          chance.randrange(0x2600, 0xd800), chance.randrange(0x10000, 0x20000)]))
                       for _ in range(chance.randint(0, 8))).encode()
    if kind < 0.85:
        return bytes(chance.randrange(256) for _ in range(chance.randint(0, 8)))
    return (chance.choice(WORDS + ODD) * chance.randint(1, 12)).encode()


def write(name, model, chance):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    top = list(fields(model))
    print("static const struct unigram_piece %s_pieces[] = {" % name)
    for piece in (dict(fields(value)) for number, value in top if number == 1):
        print("    { %s, %.9g, %d }," % (quote(piece[1]), struct.unpack("<f", piece[2])[0], piece.get(3, 1)))
    charsmap = [dict(fields(value)).get(2, b"") for number, value in top if number == 3][0]
    if charsmap and len(sys.argv) > 1:
        with open(sys.argv[1], "wb") as f:
            f.write(b"\x83" + charsmap)
    print("};\nstatic const char %s_charsmap[] =" % name)
    for at in range(0, len(charsmap), 24):
        print("    " + quote(charsmap[at:at + 24]))
    print("    \"\";\nstatic const struct unigram_case %s_cases[] = {" % name)
    for _ in range(CASES):
        text = random_text(chance)
        ids = " ".join(str(i) for i in processor.encode(text))
        print("    { %s, %d, \"%s\" }," % (quote(text), len(text), ids))
    print("};\n")


def main():
    chance = random.Random(11)
    print("/* Written by make_unigram_vectors.py. */")
    print("#ifndef WOOLLY_TESTS_UNIGRAM_VECTORS_H\n#define WOOLLY_TESTS_UNIGRAM_VECTORS_H\n")
    print("#include <stddef.h>\n")
    print("struct unigram_piece {\n    const char *text;\n    float score;\n    int kind;\n};\n")
    print("struct unigram_case {\n    const char *text;\n    size_t len;\n    const char *ids;\n};\n")
    print("// clang-format off")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in MODELS.items():
            write(name, train(folder, name, options, chance), chance)
    print("// clang-format on\n#endif")


main()
