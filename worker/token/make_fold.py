#!/usr/bin/env python3
"""Writes fold_table.c: what BERT's tokenizer makes of single code points, from the Unicode data of this Python.

    python3 worker/token/make_fold.py > worker/token/fold_table.c

Small letters come as runs: in a run every step-th code point lies the same distance from its small letter.
Decompositions are complete (canonical, NFD) and without the marks that stripping accents drops; Hangul
syllables are left out, as they are computed."""
import unicodedata

LAST = 0x110000
HANGUL = range(0xAC00, 0xD7A4)


def ranges_of(codes):
    out = []
    for code in codes:
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def lower_runs():
    runs = []
    for code in range(LAST):
        small = chr(code).lower()
        if len(small) != 1 or ord(small) == code:
            continue
        delta = ord(small) - code
        if runs:
            first, last, step, run_delta = runs[-1]
            gap = code - last
            if delta == run_delta and gap <= 2 and (first == last or gap == step):
                runs[-1] = (first, code, gap, delta)
                continue
        runs.append((code, code, 1, delta))
    return runs


def stripped():
    pairs = []
    for code in range(LAST):
        whole = unicodedata.normalize("NFD", chr(code))
        if code in HANGUL or whole == chr(code):
            continue
        pairs += [(code, ord(c)) for c in whole if unicodedata.category(c) != "Mn"] or [(code, 0)]
    return pairs


def write(kind, name, rows, per_line):
    print("const struct %s %s[] = {" % (kind, name))
    texts = ["{" + ",".join(v) + "}" for v in rows]
    for at in range(0, len(texts), per_line):
        print("    " + ",".join(texts[at:at + per_line]) + ",")
    print("};")
    print("const int n_%s = sizeof(%s) / sizeof(*%s);\n" % (name, name, name))


def main():
    category = [unicodedata.category(chr(code)) for code in range(LAST)]
    dropped = ranges_of(c for c in range(LAST) if category[c] in ("Cc", "Cf", "Co") and c not in (9, 10, 13))
    marks = ranges_of(c for c in range(LAST) if category[c] == "Mn")
    print("/* Written by make_fold.py from Unicode %s. */" % unicodedata.unidata_version)
    print('#include "worker/token/fold.h"\n')
    print("// clang-format off")
    write("fold_range", "fold_controls", [("0x%x" % a, "0x%x" % b) for a, b in dropped], 5)
    write("fold_range", "fold_marks", [("0x%x" % a, "0x%x" % b) for a, b in marks], 5)
    write("fold_run", "fold_lower", [("0x%x" % a, "0x%x" % b, str(s), str(d)) for a, b, s, d in lower_runs()], 3)
    write("fold_pair", "fold_bases", [("0x%x" % a, "0x%x" % b) for a, b in stripped()], 5)


main()
