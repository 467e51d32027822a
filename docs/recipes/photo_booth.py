"""A photo booth: every few seconds a picture, with the people in it before another background.

    pip install "u2net-human-plugin[rembg]" opencv-python-headless
    python photo_booth.py 0 beach.jpg pictures

0 is the first camera; a video file works as well. It ends with the video, or with Ctrl+C.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image, ImageOps

from u2net_human_plugin import HumanSegmenter


def frames(source: str, every: float) -> Iterator[Image.Image]:
    """A frame each ``every`` seconds: of the clock for a camera, of its own time for a video."""
    is_camera = source.isdecimal()
    video = cv2.VideoCapture(int(source) if is_camera else source)
    if not video.isOpened():
        raise SystemExit(f"{source}: no such camera or video.")
    due = 0.0
    while True:
        there, frame = video.read()  # also those between, or a camera would show what is past
        if not there:
            return
        now = time.monotonic() if is_camera else video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if now >= due:
            due = now + every
            yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def main() -> None:
    """Take pictures until the source ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a camera's number or a video file")
    parser.add_argument("background", type=Path, help="a picture")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--every", type=float, default=5, help="seconds (default: 5)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    # Passers-by in the back are not in the picture.
    segmenter = HumanSegmenter(min_person=0.02)
    with Image.open(given.background) as background:
        background = ImageOps.exif_transpose(background).convert("RGB")
    for number, frame in enumerate(frames(given.source, given.every)):
        picture = ImageOps.fit(background, frame.size)
        picture.paste(frame, mask=segmenter.mask(frame))
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{number:04}.jpg"
        picture.save(given.folder / name, quality=92)
        print(given.folder / name, flush=True)


if __name__ == "__main__":
    main()
