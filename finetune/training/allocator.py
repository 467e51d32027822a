"""Make glibc keep freed memory, which more than halves a training step's time on the CPU.

By default glibc returns every large block to the kernel as soon as it is freed and gets
it back page by page, zeroed, at the next layer. Its limits are read once, when the
process starts, so the process has to be started again with them.
"""

from __future__ import annotations

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
TUNABLES = (
    "glibc.malloc.mmap_threshold=4000000000"
    ":glibc.malloc.trim_threshold=40000000000"
    ":glibc.malloc.top_pad=2000000000"
)


def restart_with_kept_memory() -> None:
    """Replace this process by itself with glibc told to keep memory, if that has a point.

    Does nothing on other systems than Linux with glibc, and where the variable is already
    set, by the user or by this function.
    """
    if platform.libc_ver()[0] != "glibc" or VARIABLE in os.environ:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, os.environ | {VARIABLE: TUNABLES})  # noqa: S606 - itself
