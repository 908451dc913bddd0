"""One image file as pixels, in whatever format Pillow reads. Decisions, so that an image always means the same:

rotation        as its EXIF tag says
transparency    laid over black, as augmentation pads with black
16 bits         the upper 8, rounded; 32-bit floats are refused, as nothing says what their range is
animation       the first frame
a size          the centre square, resized (bilinear, antialiased)
huge images     from 89 million pixels, Pillow's mark of a decompression bomb, refused
many scans      of a JPEG, refused, as each may take as long as the whole image
programs        EPS, refused: Pillow would have Ghostscript run it
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
import warnings
import zlib
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import DataError

_ORIENTATION = 0x0112  # the EXIF tag
_SCAN, _MAX_SCANS = b"\xff\xda", 100  # the marker in a JPEG; a progressive one has ten or so
_CHUNK, _CHUNKS = 2**20, 256  # what is looked through for it
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, NotImplementedError),
    *(
        struct.error,
        zlib.error,
        MemoryError,
        RuntimeError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ),
)
"""What Pillow's decoders raise on damaged files; SyntaxError is its own word for a broken PNG."""

warnings.simplefilter("error", Image.DecompressionBombWarning)  # as Pillow's documentation advises


def read_image(file: Path, image_size: int | None) -> NDArray[np.uint8]:
    """uint8 (H, W, 3); the centre square, `image_size` wide, unless that is None. Raises DataError, naming the file."""
    try:
        with open_file(file) as stream, Image.open(stream) as image:
            _require_harmless(image.format, stream)
            if image_size is not None:
                # A JPEG decodes faster at a half, quarter or eighth; twice the size asked for keeps the quality.
                image.draft(None, (2 * image_size, 2 * image_size))
            image.load()
            pixels = _rgb(_upright(image))
            return np.asarray(pixels if image_size is None else _square(pixels, image_size))
    except _UNREADABLE as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{file}: {reason or type(error).__name__}") from error


def open_file(file: Path) -> BufferedReader:
    """Raises ValueError for a pipe, which would be waited for, and a device, which may have no end."""
    stream = open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ValueError("is not a file")
    return stream


def _require_harmless(kind: str | None, stream: BinaryIO) -> None:
    """Raises ValueError for a program, and for a JPEG that would take minutes to decode."""
    if kind == "EPS":
        raise ValueError("is a program that draws an image, not an image")
    if kind in ("JPEG", "MPO"):
        stream.seek(0)
        chunks = itertools.takewhile(bool, (stream.read(_CHUNK) for _ in range(_CHUNKS)))
        num_scans = sum(chunk.count(_SCAN) for chunk in chunks)
        if num_scans > _MAX_SCANS:  # one of some bytes takes as long as the whole image
            raise ValueError(f"has {num_scans:,} scans; at most {_MAX_SCANS} are read")


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65_535:
        raise ValueError("its pixels are 32-bit integers, of unknown range")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _square(image: Image.Image, image_size: int) -> Image.Image:
    if image.size == (image_size, image_size):
        return image
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
