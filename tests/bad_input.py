"""Pictures that users and strangers send: odd, damaged, mislabelled, or no pictures at all.

``python tests/bad_input.py FOLDER`` writes them as files. The same seeds give the same
cases; their bytes also depend on Pillow's encoders.
"""

from __future__ import annotations

import functools
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

SIZE_WH = (96, 64)
EXTENSIONS = ("jpg", "png", "webp", "gif", "tif", "bmp")


@dataclass(frozen=True)
class Case:
    """One file: ``name`` says what is wrong with it, ``extension`` what it claims to be."""

    name: str
    extension: str
    content: bytes

    @property
    def file(self) -> str:
        return f"{self.name}.{self.extension}"


def write(folder: Path) -> list[Case]:
    """Put every case into ``folder`` as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    made = cases()
    for case in made:
        (folder / case.file).write_bytes(case.content)
    return made


@functools.cache
def cases() -> list[Case]:
    """All of them; no two have the same name."""
    made = [
        *_intact(),
        *_shapes(),
        *_truncated(),
        *_flipped(),
        *_overwritten(),
        *_wrong_extension(),
        *_no_pictures(),
        *_damaged_png(),
        *_metadata(),
        *_bombs(),
        *_names(),
    ]
    names = [case.name for case in made]
    assert len(set(names)) == len(names)
    return made


def picture(mode: str = "RGB", size_wh: tuple[int, int] = SIZE_WH) -> Image.Image:
    """A bright figure before a dark, grainy background."""
    width, height = size_wh
    y, x = np.mgrid[:height, :width]
    inside = ((x / width - 0.5) / 0.25) ** 2 + ((y / height - 0.5) / 0.45) ** 2 < 1
    rgb = np.where(inside[..., None], [235, 200, 180], [30, 60, 40])
    rgb = rgb + np.random.default_rng(0).integers(-20, 21, rgb.shape)
    image = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size_wh))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def floats(kind: str) -> Image.Image:
    """Greys as float32 beyond 0…1, with what is no number at all."""
    grey = np.asarray(picture("L"), np.float32) * {"unit": 1 / 255, "large": 1e30}.get(kind, 1.0)
    if kind == "broken":
        grey[:20], grey[20:25], grey[25:30] = np.nan, np.inf, -np.inf
    return Image.fromarray(grey)


def grey16() -> Image.Image:
    return Image.fromarray(np.asarray(picture("L"), np.uint16) * 257)


def transparent_palette() -> Image.Image:
    image = picture("P")
    image.info["transparency"] = bytes(range(256))
    return image


def frames(count: int) -> list[Image.Image]:
    return [picture().rotate(20 * turn) for turn in range(count)]


@functools.cache
def encodings() -> dict[str, tuple[str, bytes]]:
    """Whole files, one for each kind that decoders treat differently: name → type, content."""
    first, *others = frames(3)
    animated: dict[str, Any] = {"save_all": True, "append_images": others, "duration": 50}
    rgba = picture("RGBA")
    return {
        "jpeg": ("jpg", encoded(picture(), "JPEG")),
        "jpeg-progressive": ("jpg", encoded(picture(), "JPEG", progressive=True)),
        "jpeg-grey": ("jpg", encoded(picture("L"), "JPEG")),
        "jpeg-cmyk": ("jpg", encoded(picture("CMYK"), "JPEG")),
        "png": ("png", encoded(picture(), "PNG")),
        "png-rgba": ("png", encoded(rgba, "PNG")),
        "png-grey-alpha": ("png", encoded(picture("LA"), "PNG")),
        "png-palette": ("png", encoded(picture("P"), "PNG")),
        "png-palette-alpha": ("png", encoded(transparent_palette(), "PNG")),
        "png-16-bit": ("png", encoded(grey16(), "PNG")),
        "png-1-bit": ("png", encoded(picture("1"), "PNG")),
        "png-animated": ("png", encoded(first, "PNG", **animated)),
        "webp": ("webp", encoded(picture(), "WEBP")),
        "webp-lossless": ("webp", encoded(rgba, "WEBP", lossless=True)),
        "webp-animated": ("webp", encoded(first, "WEBP", **animated)),
        "gif": ("gif", encoded(picture("P"), "GIF")),
        "gif-transparent": ("gif", encoded(picture("P"), "GIF", transparency=3)),
        "gif-animated": ("gif", encoded(first, "GIF", **animated)),
        "tiff": ("tif", encoded(picture(), "TIFF")),
        "tiff-lzw": ("tif", encoded(picture(), "TIFF", compression="tiff_lzw")),
        "tiff-deflate": ("tif", encoded(rgba, "TIFF", compression="tiff_adobe_deflate")),
        "tiff-jpeg": ("tif", encoded(picture(), "TIFF", compression="jpeg")),
        "tiff-cmyk": ("tif", encoded(picture("CMYK"), "TIFF")),
        "tiff-lab": ("tif", encoded(picture("LAB"), "TIFF")),
        "tiff-16-bit": ("tif", encoded(grey16(), "TIFF")),
        "tiff-float": ("tif", encoded(floats("unit"), "TIFF")),
        "tiff-pages": ("tif", encoded(first, "TIFF", save_all=True, append_images=others)),
        "bmp": ("bmp", encoded(picture(), "BMP")),
    }


def _intact() -> Iterator[Case]:
    for name, (extension, content) in encodings().items():
        yield Case(f"intact-{name}", extension, content)
    for kind in ("byte", "large", "broken"):
        yield Case(f"float-{kind}", "tif", encoded(floats(kind), "TIFF"))
    integers = Image.fromarray(np.asarray(picture("L"), np.int32) * 1_000_000)
    yield Case("integers-32-bit", "tif", encoded(integers, "TIFF"))
    for grey in (0, 128, 255):
        yield Case(f"flat-{grey}", "png", encoded(Image.new("RGB", SIZE_WH, (grey,) * 3), "PNG"))
    yield Case("invisible", "png", encoded(Image.new("RGBA", SIZE_WH), "PNG"))


def _shapes() -> Iterator[Case]:
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF"}
    for extension, kind in kinds.items():
        longest = 16000 if kind == "WEBP" else 20000
        for size_wh in ((1, 1), (2, 2), (1, longest), (longest, 1), (2, 900)):
            name = f"size-{size_wh[0]}x{size_wh[1]}-{extension}"
            yield Case(name, extension, encoded(picture("RGB", size_wh), kind))


def _truncated(cuts: int = 5) -> Iterator[Case]:
    random = np.random.default_rng(1)
    for name, (extension, content) in encodings().items():
        for number, share in enumerate(np.sort(random.uniform(0.02, 0.99, cuts))):
            kept = content[: int(share * len(content))]
            yield Case(f"truncated-{name}-{number}", extension, kept)


def _flipped(variants: int = 7) -> Iterator[Case]:
    random = np.random.default_rng(2)
    for name, (extension, content) in encodings().items():
        for number in range(variants):
            damaged = bytearray(content)
            # Half of them near the start, where the headers are.
            reach = min(len(damaged), 120) if number % 2 else len(damaged)
            for _ in range(random.integers(1, 12)):
                damaged[random.integers(reach)] ^= 1 << int(random.integers(8))
            yield Case(f"flipped-{name}-{number}", extension, bytes(damaged))


def _overwritten() -> Iterator[Case]:
    random = np.random.default_rng(3)
    for name, (extension, content) in encodings().items():
        for filling in ("zeros", "ones", "noise"):
            length = max(1, len(content) // 10)
            start = int(random.integers(8, len(content) - length))
            patch = {
                "zeros": bytes(length),
                "ones": b"\xff" * length,
                "noise": random.bytes(length),
            }[filling]
            damaged = content[:start] + patch + content[start + length :]
            yield Case(f"overwritten-{name}-{filling}", extension, damaged)


def _wrong_extension() -> Iterator[Case]:
    plain = {name: encodings()[name] for name in ("jpeg", "png", "webp", "gif", "tiff", "bmp")}
    for name, (own, content) in plain.items():
        for extension in EXTENSIONS:
            if extension != own:
                yield Case(f"{name}-called-{extension}", extension, content)
    for extension in ("txt", "mp4", "pdf", "pt", "JPG"):
        yield Case(f"jpeg-called-{extension}", extension, plain["jpeg"][1])


def _no_pictures() -> Iterator[Case]:
    random = np.random.default_rng(4)
    text = "This is a letter and no picture.\n" * 40
    for extension in EXTENSIONS:
        yield Case(f"empty-{extension}", extension, b"")
        yield Case(f"text-{extension}", extension, text.encode())
        yield Case(f"noise-{extension}", extension, random.bytes(3000))
        yield Case(f"zeros-{extension}", extension, bytes(3000))
    for name, (extension, content) in encodings().items():
        yield Case(f"signature-{name}", extension, content[:12])
    yield Case("html", "jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    yield Case("svg", "png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    yield Case("json", "png", b'{"error": "rate limit"}')
    yield Case("zip", "png", b"PK\x05\x06" + bytes(18))
    yield Case("bom", "png", b"\xef\xbb\xbf" + encoded(picture(), "PNG"))


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """A PNG chunk."""
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG file from its parts, possible or not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _damaged_png() -> Iterator[Case]:
    rows = bytes(9 * 3 + 1) * 9
    whole = png(9, 9, data=rows)
    first = chunk(b"IHDR", whole[16:29])
    yield Case("png-width-0", "png", png(0, 9, data=rows))
    yield Case("png-height-0", "png", png(9, 0, data=rows))
    yield Case("png-depth-7", "png", png(9, 9, depth=7, data=rows))
    yield Case("png-colour-5", "png", png(9, 9, colour=5, data=rows))
    yield Case("png-palette-missing", "png", png(9, 9, colour=3, data=bytes(10) * 9))
    yield Case("png-too-little-data", "png", png(9, 9, data=rows[:40]))
    yield Case("png-too-much-data", "png", png(9, 9, data=rows * 9))
    yield Case("png-wrong-checksum", "png", whole[:29] + b"oops" + whole[33:])
    yield Case("png-two-headers", "png", whole[:8] + first + whole[8:])
    yield Case("png-header-late", "png", whole[:8] + whole[33:-12] + first + whole[-12:])
    yield Case("png-without-end", "png", whole[:-12])
    yield Case("png-junk-behind", "png", whole + b"junk" * 50)
    yield Case("png-junk-before", "png", b"junk" + whole)
    yield Case("png-huge-chunk", "png", whole[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(30))


def exif(orientation: bytes) -> bytes:
    """An EXIF block with one entry, whose type, count and value are given: 10 bytes."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12" + orientation + bytes(4)


def _metadata() -> Iterator[Case]:
    def short(value: int) -> bytes:
        return struct.pack(">HIHxx", 3, 1, value)

    random = np.random.default_rng(5)
    blocks = {f"orientation-{value}": exif(short(value)) for value in (*range(10), 255, 65535)}
    blocks |= {
        "orientation-text": exif(struct.pack(">HI4s", 2, 4, b"six\0")),
        "orientation-of-no-type": exif(struct.pack(">HI4s", 99, 1, b"\0\6\0\0")),
        "orientation-fraction-by-0": exif(struct.pack(">HII", 5, 1, 8)),
        "orientation-far-away": exif(struct.pack(">HII", 3, 1000, 0x7FFFFFF0)),
        "count-of-4-billion": exif(struct.pack(">HI4s", 3, 0xFFFFFFFF, b"\0\6\0\0")),
        "loop": exif(short(6))[:-4] + struct.pack(">I", 8),
        "truncated": exif(short(6))[:17],
        "empty": b"Exif\0\0",
        "noise": b"Exif\0\0" + random.bytes(300),
        "noise-after-header": b"Exif\0\0MM\0*\0\0\0\x08" + random.bytes(300),
        "not-exif": b"no such thing",
    }
    for name, block in blocks.items():
        yield Case(f"exif-{name}-jpg", "jpg", encoded(picture(), "JPEG", exif=block))
    for name in ("orientation-6", "orientation-text", "loop", "truncated", "noise"):
        yield Case(f"exif-{name}-png", "png", encoded(picture(), "PNG", exif=blocks[name]))
        yield Case(f"exif-{name}-webp", "webp", encoded(picture(), "WEBP", exif=blocks[name]))

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profiles = {
        "lab": lab,
        "truncated": srgb[:100],
        "noise": random.bytes(500),
        "flipped": bytes(srgb[:60]) + random.bytes(200) + bytes(srgb[260:]),
        "one-byte": b"\0",
    }
    for name, profile in profiles.items():
        for extension, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
            content = encoded(picture(), kind, icc_profile=profile)
            yield Case(f"icc-{name}-{extension}", extension, content)

    words = PngImagePlugin.PngInfo()
    for key in ("weights", "model_path", "Comment", "XML:com.adobe.xmp"):
        words.add_text(key, "https://example.invalid/x.pt ../../etc/passwd {0} %s")
    words.add_itxt("Author", "\u202e🧨" * 30, zip=True)
    yield Case("metadata-hostile-words", "png", encoded(picture(), "PNG", pnginfo=words))
    yield Case("metadata-xmp", "jpg", encoded(picture(), "JPEG", xmp=b"<x:xmpmeta><<<"))
    resolution = encoded(picture(), "JPEG", dpi=(0, 0), comment=b"\xff\xfe\0" * 50)
    yield Case("metadata-dpi-0", "jpg", resolution)


def _bombs() -> Iterator[Case]:
    """Small files that claim or hold enormous pictures."""
    yield Case("bomb-png-header", "png", png(65000, 65000))
    yield Case("bomb-png-2-31", "png", png(2**31 - 1, 2**31 - 1))
    yield Case("bomb-png-real", "png", png(24000, 16000, depth=1, colour=0, data=bytes(48016000)))
    yield Case("bomb-png-below-limit", "png", png(9000, 5000, depth=8, colour=0, data=bytes(9999)))
    whole = png(9, 9, data=bytes(28) * 9)
    bomb = zlib.compress(bytes(80_000_000), 9)
    text, profile = chunk(b"zTXt", b"Comment\0\0" + bomb), chunk(b"iCCP", b"icc\0\0" + bomb)
    yield Case("bomb-png-text", "png", whole[:33] + text + whole[33:])
    yield Case("bomb-png-profile", "png", whole[:33] + profile + whole[33:])
    gif = bytearray(encodings()["gif"][1])
    gif[6:10] = b"\xff\xff\xff\xff"
    yield Case("bomb-gif-canvas", "gif", bytes(gif))
    jpeg = bytearray(encodings()["jpeg"][1])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    yield Case("bomb-jpeg-header", "jpg", bytes(jpeg))
    webp = bytearray(encodings()["webp"][1])
    size = webp.index(b"\x9d\x01\x2a") + 3
    webp[size : size + 4] = b"\xff\x3f\xff\x3f"
    yield Case("bomb-webp-header", "webp", bytes(webp))
    bmp = bytearray(encodings()["bmp"][1])
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    yield Case("bomb-bmp-header", "bmp", bytes(bmp))
    fields = [(256, 90000), (257, 90000), (258, 8), (259, 1), (262, 1), (273, 8), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(4)
    yield Case("bomb-tiff-header", "tif", tiff)


def _names() -> Iterator[Case]:
    """A good picture under names that shells, formats and paths read something into."""
    content = encoded(picture(), "PNG")
    for name in ("-m", "$(touch owned)", "a;touch owned", "{0}%s%n", "..", "ünïcode 🧨", "x" * 200):
        yield Case(f"name-{name}" if name != "-m" else name, "png", content)


if __name__ == "__main__":
    print(len(write(Path(sys.argv[1]))), "cases")  # noqa: T201 - a command line
