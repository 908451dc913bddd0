"""Image files that are damaged, lie, or are none at all: each kind puts one at a path, by chance."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from attack import foreign_files

Put = Callable[[random.Random, Path], None]

FORMATS = (
    *("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "ICNS", "TGA", "PCX", "JPEG2000", "AVIF", "DDS"),
    *("SGI", "MPO", "QOI", "SPIDER", "MSP", "XBM", "EPS", "PDF"),
)
MODES = (
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F"),
    *("La", "RGBa"),
)
MANY = 2**31 - 1
SIZES = (
    *((0, 0), (0, 9), (9, 0), (1, 1), (MANY, 1), (1, MANY), (MANY, MANY), (65535, 65535), (20_000, 10_000)),
    *((9_400, 9_400), (60_000, 1_400), (1_400, 60_000), (2**32 - 1, 7)),  # the first three just under what is refused
)
PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n%%EOF\n"
OTHERS = (
    *(b"", b"\0", bytes(5000), b"text", b"<html><img src=x></html>", b"%PDF-1.7\n", b"PK\x03\x04", b"\x7fELF"),
    *(b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF\xff\xff\xff\xffWEBPVP8X"),
    *(b"P6\n9 9\n255\n", b"P6 99999999 99999999 255\n", b"P7\n", b"\0\0\1\0\xff\xff", b"icns\xff\xff\xff\xff", b"qoif"),
    *(b"8BPS", b"DDS |\0\0\0", b"cposix\nsystem\n(S'true'\ntR.", b"#!/bin/sh\ntouch x\n", PROGRAM, b"\0\0\0\x0cjP  "),
    *(b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"#define x_width 999999999\n#define x_height 999999999\n"),
)


@functools.cache
def real(kind: str) -> bytes:
    """A small image in that format; a PNG where this Pillow cannot write it."""
    image, content = Image.effect_noise((24, 20), 90).convert("RGB"), io.BytesIO()
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB")
    try:
        image.convert(mode).save(content, kind)
    except (OSError, KeyError, ValueError):
        return real("PNG")
    return content.getvalue()


def of_any_format(chance: random.Random) -> bytes:
    return real(chance.choice(FORMATS))


def whole(chance: random.Random, path: Path) -> None:
    """Nothing is wrong but, most of the time, its name."""
    path.write_bytes(of_any_format(chance))


def cut(chance: random.Random, path: Path) -> None:
    content = of_any_format(chance)
    path.write_bytes(content[: chance.randrange(len(content))])


def flipped(chance: random.Random, path: Path) -> None:
    content = bytearray(of_any_format(chance))
    early = chance.random() < 0.5  # where its size is, and what it is made of
    for _ in range(chance.choice([1, 1, 2, 10, 100])):
        bit = chance.randrange(8 * min(len(content), 200 if early else len(content)))
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def overwritten(chance: random.Random, path: Path) -> None:
    content = bytearray(of_any_format(chance))
    at, length = chance.randrange(len(content)), chance.choice([1, 2, 4, 8, 100, 5000])
    content[at : at + length] = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length), b""])
    path.write_bytes(content)


def spliced(chance: random.Random, path: Path) -> None:
    first, second = of_any_format(chance), of_any_format(chance)
    path.write_bytes(first[: chance.randrange(len(first))] + second[chance.randrange(len(second)) :])


def of_a_mode(chance: random.Random, path: Path) -> None:
    """In every mode that Pillow knows, as far as its formats take it."""
    mode, size = chance.choice(MODES), chance.choice([(24, 20), (1, 1), (1, 300), (300, 1)])
    content = io.BytesIO()
    image = Image.frombytes(mode, size, chance.randbytes(8 * size[0] * size[1])[: _length(mode, size)])
    try:
        image.save(content, chance.choice(("PNG", "TIFF", "WEBP", "JPEG2000", "JPEG", "TGA", "DDS")))
    except (OSError, KeyError, ValueError):
        content = io.BytesIO(real("PNG"))
    path.write_bytes(content.getvalue())


def _length(mode: str, size: tuple[int, int]) -> int:
    return len(Image.new(mode, size).tobytes())


def of_a_size(chance: random.Random, path: Path) -> None:
    """A PNG that says that it is huge, or has no pixels; its data are zeros, packed, as many as it says or few."""
    width, height = chance.choice(SIZES)
    depth, colour = chance.choice([(8, 2), (16, 6), (1, 0), (8, 3), (16, 2), (8, 6), (8, 7), (255, 255)])
    rows = min(height * (1 + width * depth * 4 // 8), chance.choice([0, 1000, 2**25]))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, chance.choice([0, 0, 1, 9]))
    chunks = [(b"IHDR", header), (b"PLTE", bytes(768)), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b"")]
    path.write_bytes(png(chunks))


def with_chunks(chance: random.Random, path: Path) -> None:
    """A PNG with what its readers unpack beside pixels: text, a profile, EXIF, frames."""
    bomb = zlib.compress(bytes(2**26), 9)
    extra = chance.choice(
        [
            (b"zTXt", b"a\0\0" + bomb),
            (b"iTXt", b"a\0\1\0\0\0" + bomb),
            (b"iCCP", b"a\0\0" + bomb),
            (b"eXIf", chance.choice([b"", b"II*\0", b"Exif\0\0" + chance.randbytes(60), b"MM\0*\0\0\0\x08\xff\xff"])),
            (b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            (b"tRNS", chance.randbytes(chance.choice([0, 1, 2, 5, 6, 300]))),
            (b"gAMA", b""),
            (chance.randbytes(4), chance.randbytes(9)),
        ]
    )
    header = struct.pack(">IIBBBBB", 8, 8, 8, chance.choice([0, 2, 3, 6]), 0, 0, 0)
    chunks = [(b"IHDR", header), extra, (b"PLTE", bytes(9)), (b"IDAT", zlib.compress(bytes(300))), (b"IEND", b"")]
    path.write_bytes(png(chunks))


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_exif(chance: random.Random, path: Path) -> None:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = chance.choice([0, 2, 5, 6, 8, 9, 65535])
    Image.new("RGB", (24, 20)).save(content, chance.choice(("JPEG", "WEBP", "PNG", "TIFF")), exif=exif)
    changed = bytearray(content.getvalue())
    for _ in range(chance.choice([0, 1, 5])):
        changed[chance.randrange(min(len(changed), 150))] = chance.randrange(256)
    path.write_bytes(changed)


def animated(chance: random.Random, path: Path) -> None:
    width, content = chance.randint(1, 30), io.BytesIO()
    frames = [Image.new("P", (width, 20), n) for n in range(5)]
    frames[0].save(content, chance.choice(("GIF", "WEBP", "TIFF", "PNG")), save_all=True, append_images=frames[1:])
    changed = bytearray(content.getvalue())
    for _ in range(chance.choice([0, 1, 20])):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    path.write_bytes(changed)


@functools.cache
def large_jpeg() -> tuple[bytes, bytes]:
    """All but its end, and its last scan, which may be there again."""
    content = io.BytesIO()
    Image.new("L", (5000, 5000), 128).save(content, "JPEG", progressive=True)
    data = content.getvalue()[:-2]
    return data, data[data.rindex(b"\xff\xda") :]


def with_many_scans(chance: random.Random, path: Path) -> None:
    """A JPEG that takes as long as thousands of images."""
    data, scan = large_jpeg()
    path.write_bytes(data + scan * chance.choice([1, 300, 20_000]) + b"\xff\xd9")


def other(chance: random.Random, path: Path) -> None:
    """What begins as an image does, or is something else."""
    path.write_bytes(chance.choice(OTHERS) + chance.choice([b"", b"", chance.randbytes(400), of_any_format(chance)]))


def foreign(chance: random.Random, path: Path) -> None:
    foreign_files.put(chance.choice(foreign_files.KINDS), path)


KINDS: tuple[Put, ...] = (
    *(whole, cut, flipped, flipped, overwritten, spliced, of_a_mode, of_a_size, with_chunks, with_exif, animated),
    *(other, foreign, with_many_scans),
)
