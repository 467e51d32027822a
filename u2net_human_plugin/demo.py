"""``python -m u2net_human_plugin demo``: a web page to try the pipeline in (extra ``demo``).

It listens on 127.0.0.1 alone and loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from .cutout import Form, encoded, opened
from .errors import DataError, PluginError, importing, install_command
from .options import Options
from .segmenter import HumanSegmenter

#: "Everyone found" chooses nobody, which is no value of ``persons``.
PERSONS = {"Everyone": None, "The largest": "largest", "The most central": "center"}
FORMS: dict[str, Form] = {"PNG": "png", "WebP": "webp", "Mask": "mask"}
#: A header that keeps the browser from asking anyone else for anything.
POLICY = (
    b"content-security-policy",
    b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'",
)
#: Seconds after which Gradio forgets pictures, and between its looks for such.
FORGET = 3600


def main(given: argparse.Namespace) -> int:
    """Serve the page until interrupted; return the exit status."""
    try:
        page, theme = build(HumanSegmenter())
        print(f"http://127.0.0.1:{given.port} (end it with Ctrl+C)", flush=True)
        page.launch(
            server_name="127.0.0.1",
            server_port=given.port,
            theme=theme,
            quiet=True,
            app_kwargs={"middleware": [(FromHereOnly, (), {})]},
        )
    except (PluginError, OSError) as error:  # OSError: the port is taken
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


class FromHereOnly:
    """Middleware: the browser may load nothing from elsewhere, as Gradio's page would."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), POLICY]
            await send(message)

        await self._app(scope, receive, with_policy)


def cut_out(
    segmenter: HumanSegmenter, file: str, options: Options, form: Form
) -> tuple[Image.Image, Image.Image, Path]:
    """The picture, what is left of it, and the file to download, in a folder of its own.

    Raises:
        DataError: no picture.
    """
    try:
        image = opened(Path(file).read_bytes())
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"this is no picture that can be read ({error}).") from None
    content = encoded(image, segmenter.mask(image, options), form)
    name = f"{Path(file).stem}.{'webp' if form == 'webp' else 'png'}"
    made = Path(tempfile.mkdtemp(prefix="u2net_human_"), name)
    made.write_bytes(content)
    return image.convert("RGB"), opened(content), made


def build(segmenter: HumanSegmenter) -> tuple[Any, Any]:
    """The page, a ``gradio.Blocks``, and its theme.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nobody asked for reports
    with importing("gradio", f"install it with `{install_command('demo')}`."):
        import gradio

    def run(file: str | None, form: str, *values: Any) -> tuple[Any, Any]:
        if file is None:
            raise gradio.Error("Choose a picture first.")
        crop, persons, percent, refine, flip = values
        chosen = {
            "crop": crop,
            "persons": PERSONS[persons],
            "min_person": percent / 100,
            "refine": "on" if refine else "off",
            "flip": "on" if flip else "off",
        }
        try:
            options = segmenter.options.updated(chosen)
            before, after, made = cut_out(segmenter, file, options, FORMS[form])
        except PluginError as error:
            raise gradio.Error(str(error)) from None
        return (before, after), gradio.DownloadButton(value=str(made), interactive=True)

    first = segmenter.options
    # Gradio's own themes load fonts from elsewhere.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    with gradio.Blocks(title="u2net_human_ft", delete_cache=(FORGET, FORGET)) as page:
        gradio.Markdown("## People without their background\nNothing leaves this machine.")
        with gradio.Row():
            with gradio.Column():
                file = gradio.Image(type="filepath", sources=["upload"], label="Picture")
                crop = gradio.Radio(["off", "self", "yolo"], value=first.crop, label="Look closer")
                persons = gradio.Radio(list(PERSONS), value="Everyone", label="Who stays")
                smallest = gradio.Slider(
                    0, 50, value=100 * first.min_person, label="Smallest person, % of the picture"
                )
                refine = gradio.Checkbox(first.refine == "on", label="Fit the edge to the photo's")
                flip = gradio.Checkbox(first.flip == "on", label="Look at the mirror image, too")
                form = gradio.Radio(list(FORMS), value="PNG", label="Format")
                button = gradio.Button("Remove the background", variant="primary")
            with gradio.Column():
                slider = gradio.ImageSlider(label="Before and after", format="png")
                download = gradio.DownloadButton("Download", interactive=False)
        inputs = [file, form, crop, persons, smallest, refine, flip]
        button.click(run, inputs, [slider, download], api_name="cut_out")
    return page, theme
