#!/usr/bin/env python3
"""Writes tests/golden/megatron/*: small Megatron .bin/.idx pairs, made from the format's description alone (docs/formats/shards.md)
and read back by an independent reader below, so that Stoker's writer and reader have a truth that is not Stoker. Standard library only."""
import pathlib
import struct

OUT = pathlib.Path(__file__).parent / "megatron"
DOCS = [[1, 2, 3, 0], [0], [65499, 7, 7, 7, 7, 0], list(range(300)) + [0], [], [42, 0]]


def write(prefix, docs, code, fmt):
    width = struct.calcsize("<" + fmt)
    blob, lengths, pointers = b"", [], []
    for doc in docs:
        pointers.append(len(blob))
        lengths.append(len(doc))
        blob += struct.pack("<%d%s" % (len(doc), fmt), *doc)
    bounds = list(range(len(docs) + 1))
    idx = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(docs), len(bounds))
    idx += struct.pack("<%di" % len(lengths), *lengths)
    idx += struct.pack("<%dq" % len(pointers), *pointers)
    idx += struct.pack("<%dq" % len(bounds), *bounds)
    (OUT / (prefix + ".bin")).write_bytes(blob)
    (OUT / (prefix + ".idx")).write_bytes(idx)
    assert read(prefix) == docs and len(blob) == width * sum(lengths)


def read(prefix):
    idx = (OUT / (prefix + ".idx")).read_bytes()
    blob = (OUT / (prefix + ".bin")).read_bytes()
    assert idx[:9] == b"MMIDIDX\x00\x00"
    version, code, n, d = struct.unpack_from("<QBQQ", idx, 9)
    assert version == 1
    fmt = {4: "i", 8: "H"}[code]
    lengths = struct.unpack_from("<%di" % n, idx, 34)
    pointers = struct.unpack_from("<%dq" % n, idx, 34 + 4 * n)
    bounds = struct.unpack_from("<%dq" % d, idx, 34 + 12 * n)
    assert len(idx) == 34 + 12 * n + 8 * d and bounds[0] == 0 and bounds[-1] == n
    return [list(struct.unpack_from("<%d%s" % (l, fmt), blob, p)) for l, p in zip(lengths, pointers)]


OUT.mkdir(exist_ok=True)
write("u16", DOCS, 8, "H")
write("i32", [d + [1 << 20] for d in DOCS], 4, "i")
