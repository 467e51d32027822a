"""Pictures as they come in files."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from u2net_human_plugin.cutout import opened

TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown turned by 90 degrees


@pytest.mark.parametrize(
    ("exif", "size"),
    [(TURNED.tobytes(), (4, 8)), (b"Exif\0\0no TIFF", (8, 4)), (None, (8, 4))],
    ids=["turned", "broken", "none"],
)
def test_a_picture_is_turned_as_its_exif_says(exif: bytes | None, size: tuple[int, int]) -> None:
    """Where that is broken, it stays as it is stored; it is no reason to refuse it."""
    file = io.BytesIO()
    Image.new("RGB", (8, 4)).save(file, "PNG", **({"exif": exif} if exif else {}))
    assert opened(file.getvalue()).size == size
