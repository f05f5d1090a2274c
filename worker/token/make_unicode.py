#!/usr/bin/env python3
"""Writes unicode_table.c: the class of every code point, from the Unicode data of this Python.

    python3 worker/token/make_unicode.py > worker/token/unicode_table.c

Code points lie in blocks of equal size; blocks that are alike are stored once. Of the possible sizes the one
that makes the smallest table is taken. The classes are numbered as in unicode.h."""
import unicodedata

LAST = 0x110000
CLASS_OF_CATEGORY = {"L": 1, "N": 2, "P": 3, "S": 4, "M": 5}
SPACE = 6
# The property White_Space: the separators, and these controls.
SPACE_CONTROLS = set(range(0x09, 0x0E)) | {0x85}


def class_of(code):
    category = unicodedata.category(chr(code))
    if category[0] == "Z" or code in SPACE_CONTROLS:
        return SPACE
    return CLASS_OF_CATEGORY.get(category[0], 0)


def cut(classes, size):
    blocks, numbers = [], {}
    index = []
    for at in range(0, LAST, size):
        block = classes[at:at + size]
        if block not in numbers:
            numbers[block] = len(blocks)
            blocks.append(block)
        index.append(numbers[block])
    return index, blocks


def write_rows(values, indent, per_row):
    for at in range(0, len(values), per_row):
        print(indent + ",".join(str(v) for v in values[at:at + per_row]) + ",")


def main():
    classes = bytes(class_of(code) for code in range(LAST))
    fits = [b for b in range(6, 10) if len(cut(classes, 1 << b)[1]) <= 256]
    bits = min(fits, key=lambda b: (LAST >> b) + (len(cut(classes, 1 << b)[1]) << b))
    index, blocks = cut(classes, 1 << bits)
    print("/* Written by make_unicode.py from Unicode %s. */" % unicodedata.unidata_version)
    print('#include "worker/token/unicode.h"\n')
    print("_Static_assert(UNICODE_BLOCK_BITS == %d, \"unicode.h and this table belong together\");\n" % bits)
    print("// clang-format off")
    print("const uint8_t unicode_blocks[UNICODE_LAST >> UNICODE_BLOCK_BITS] = {")
    write_rows(index, "    ", 26)
    print("};\n")
    print("const char unicode_classes[][(1 << UNICODE_BLOCK_BITS) + 1] = {")
    for block in blocks:
        digits = "".join(str(c) for c in block)
        rows = ['    "%s"' % digits[at:at + 96] for at in range(0, len(digits), 96)]
        print("\n".join(rows) + ",")
    print("};")


main()
