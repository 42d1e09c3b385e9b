#!/usr/bin/env python3
"""Writes tests/golden/interchange/*: the files of other tools that Stoker reads. The MDS shards come from MosaicML's own writer
(pip install mosaicml-streaming), the tar files from Python's tarfile; nothing of Stoker takes part."""
import io
import pathlib
import shutil
import tarfile

from streaming import MDSWriter

OUT = pathlib.Path(__file__).parent / "interchange"
TEXTS = ["first document", "zweites Dokument mit \u00e9\n", "", "x" * 300]

shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir()


def mds(name, columns, samples):
    directory = OUT / "tmp"
    with MDSWriter(out=str(directory), columns=columns, compression=None, hashes=[]) as writer:
        for sample in samples:
            writer.write(sample)
    shutil.move(directory / "shard.00000.mds", OUT / name)
    shutil.rmtree(directory)


mds("text.mds", {"text": "str", "id": "int", "blob": "bytes"},
    [{"text": t, "id": i, "blob": bytes([i] * i)} for i, t in enumerate(TEXTS)])
mds("pickled.mds", {"text": "pkl"}, [{"text": t} for t in TEXTS])


def tar(name, fmt):
    with tarfile.open(OUT / name, "w", format=fmt) as t:
        directory = tarfile.TarInfo("folder")
        directory.type = tarfile.DIRTYPE
        t.addfile(directory)
        for i, text in enumerate(TEXTS):
            long = "a very long name/" * 12 if i == 1 else "../../" if i == 2 else ""
            for extension, body in (("txt", text), ("json", '{"text":\n "json %d"}' % i), ("cls", str(i))):
                data = body.encode()
                info = tarfile.TarInfo("%s%06d.%s" % (long, i, extension))
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))


tar("gnu.tar", tarfile.GNU_FORMAT)
tar("pax.tar", tarfile.PAX_FORMAT)
