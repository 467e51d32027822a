"""Make glibc keep freed memory, which more than halves a training step's time on the CPU.

By default glibc returns every large block to the kernel when it is freed, and gets it back page by
page, zeroed, for the next layer.
"""

from __future__ import annotations

import ctypes
import os
import platform

#: Parameters of mallopt(3), by their number in malloc.h, and their values.
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2_000_000_000}


def keep_freed_memory() -> None:
    """Tell this process's allocator to take large blocks from the heap and never to shrink it.

    Does nothing on other systems than Linux with glibc, and where the user has set
    GLIBC_TUNABLES.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _KEPT.items():
        mallopt(parameter, value)
