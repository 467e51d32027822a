"""Peak memory of a process that makes the mask of a 48-megapixel picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import u2net_human_plugin

#: Bytes a pixel beside the picture itself: its RGB version takes 4, the mask and its
#: making at most 5, as :meth:`HumanSegmenter.mask` promises.
RGB_VERSION, MASK = 4, 5

MEASURE = """
import sys
from pathlib import Path
from light import Light
from PIL import Image
from u2net_human_plugin import HumanSegmenter, Options

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))

segmenter = HumanSegmenter(network=Light(), options=Options(crop=sys.argv[2]))
for size in ((600, 400), (8000, 6000)):
    image = Image.linear_gradient("L").resize((60, 40)).convert(sys.argv[1]).resize(size, 0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    assert segmenter.mask(image).size == size
print((memory("VmHWM") - before) / 48e6)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is reset through Linux' /proc")
@pytest.mark.parametrize(
    ("mode", "crop", "bound"),
    [
        ("RGB", "off", MASK),
        ("RGB", "self", MASK),
        ("RGBA", "off", RGB_VERSION + MASK),
        ("F", "off", RGB_VERSION + MASK),
    ],
)
def test_memory_is_bounded(mode: str, crop: str, bound: int) -> None:
    """5 bytes a pixel for an RGB picture, 9 for any other, also for deep greys."""
    folders = (Path(u2net_human_plugin.__file__).parents[1], Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, mode, crop],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= float(done.stdout) <= bound
