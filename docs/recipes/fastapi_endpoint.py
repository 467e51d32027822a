"""An HTTP endpoint of one's own: a photo in, its cut-out out.

pip install "u2net-human-plugin[rembg]" fastapi python-multipart uvicorn
uvicorn fastapi_endpoint:app
curl -F file=@in.jpg "http://127.0.0.1:8000/cutout?persons=largest" -o out.png
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Response, UploadFile
from PIL import Image, UnidentifiedImageError

from u2net_human_plugin import HumanSegmenter
from u2net_human_plugin.cutout import Form, encoded, opened
from u2net_human_plugin.errors import PluginError

LARGEST_FILE = 20 * 1024 * 1024  # bytes
Image.MAX_IMAGE_PIXELS = 50_000_000  # Pillow refuses twice as many

app = FastAPI()
segmenter = HumanSegmenter()  # one for all requests: it is safe to share between threads


@app.post("/cutout")
def cutout(
    file: UploadFile, form: Form = "png", persons: str | None = None, crop: str | None = None
) -> Response:
    """No ``async``: FastAPI runs this in a thread, and other requests go on meanwhile."""
    content = file.file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise HTTPException(413, f"More than {LARGEST_FILE} bytes.")
    try:
        options = segmenter.options.updated({"persons": persons, "crop": crop})
        image = opened(content)
        made = encoded(image, segmenter.mask(image, options), form)
    except (PluginError, UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise HTTPException(422, str(error)) from None
    return Response(made, media_type="image/webp" if form == "webp" else "image/png")


@app.get("/health")
def health() -> dict[str, str]:
    """For a load balancer: the network is loaded before the first request comes."""
    return {"status": "ok"}
