"""PNG files that end in a seal, so that damaged, edited and exchanged ones are noticed.

The seal is a text chunk that names what the file holds and has a checksum of all bytes before it; viewers ignore it.
"""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from lib.base.files import write_bytes

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def write_sealed(path: Path, array: np.ndarray, name: str, chunk: bytes = b"") -> None:
    """Write an array uint8 (height, width) or (height, width, 3) as what `name` says, with a chunk before the seal."""
    body = cv2.imencode(".png", np.ascontiguousarray(array))[1].tobytes().removesuffix(PNG_END) + chunk
    write_bytes(path, body + seal(body, name), durable=False)


def read_sealed(path: Path, name: str) -> bytes | None:
    """The file's bytes; None where it is absent, damaged or something else than `name` says."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content if content.endswith(seal(before_seal(content, name), name)) else None


def before_seal(content: bytes, name: str) -> bytes:
    """A sealed file's bytes but for its seal."""
    return content[: -len(seal(b"", name))]


def png_pixels(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def seal(body: bytes, name: str) -> bytes:
    """The end of a PNG: a tEXt chunk with the checksum of `body`, which is all that precedes it, and IEND."""
    return text_chunk(f"Map\0{zlib.crc32(body):08x} {name}") + PNG_END


def text_chunk(text: str) -> bytes:
    """A PNG's tEXt chunk: keyword, zero byte, text."""
    kind = b"tEXt" + text.encode("ascii", "backslashreplace")
    return struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", zlib.crc32(kind))
