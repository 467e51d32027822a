"""A U²-Net fine-tuned on people, inside rembg and transparent-background.

Installing the package is enough for both hosts. The names here are for code::

    from u2net_human_plugin import HumanSegmenter
    HumanSegmenter().mask(image)  # a Pillow "L" image of the image's size

This module is imported whenever an interpreter of the environment starts, so the names
are looked up when they are used: until then nothing else is imported, not even typing
(for which mypy takes a TYPE_CHECKING of one's own) or __future__ (a real module).
"""

__version__ = "0.1.0"
__all__ = ["HumanSegmenter", "Options", "__version__", "register"]

_PLACES = {"HumanSegmenter": "segmenter", "Options": "options", "register": "hosts"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .hosts import register
    from .options import Options
    from .segmenter import HumanSegmenter


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
