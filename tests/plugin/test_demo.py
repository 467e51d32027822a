"""`python -m u2net_human_plugin demo`, in a real browser."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra demo")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system's: playwright's own would be a download."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(installed_python, clean_environment, tmp_path_factory):
    """The demo, running as a user starts it."""
    tmp_path = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [installed_python, "-m", "u2net_human_plugin", "demo", "--port", str(port)]
    # Without a network: whatever the demo asked for elsewhere would fail here, too.
    environment = {
        **clean_environment,
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
    }
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def test_demo(browser, address, astronaut, tmp_path):
    """A dropped picture is shown before and after, and the cut-out can be downloaded."""
    astronaut.save(tmp_path / "someone.jpg")
    page = browser.new_page()
    asked, refused = set(), set()
    page.on("request", lambda request: asked.add(request.url))
    page.on("requestfailed", lambda r: refused.add(r.url) if "csp" in r.failure else None)
    page.goto(address)
    page.locator("input[type=file]").first.set_input_files(tmp_path / "someone.jpg")
    page.get_by_label("The largest").check()
    page.get_by_role("button", name="Remove the background").click()
    link = page.locator("a[download]", has_text="Download").or_(
        page.get_by_role("button", name="Download", exact=True)
    )
    playwright.expect(page.locator(".slider-wrap img").first).to_be_visible(timeout=120_000)
    playwright.expect(link.last).to_be_enabled(timeout=120_000)
    with page.expect_download(timeout=60_000) as download:
        link.last.click()
    page.screenshot(path=tmp_path / "demo.png", full_page=True)
    assert download.value.suggested_filename == "someone.png"
    with Image.open(io.BytesIO(download.value.path().read_bytes())) as cutout:
        alpha = cutout.getchannel("A")
    assert alpha.size == astronaut.size
    assert alpha.getpixel((225, 120)) > 200, "the face"
    assert alpha.getpixel((440, 60)) < 50, "the wall"
    here = (address, "blob:", "data:")
    elsewhere = [url for url in asked - refused if not url.startswith(here)]
    assert not elsewhere, "asked for something outside this machine"


def test_no_picture(browser, address):
    """Without a picture there is a message on the page, not a page that hangs."""
    page = browser.new_page()
    page.goto(address)
    page.get_by_role("button", name="Remove the background").click()
    playwright.expect(page.get_by_text("Choose a picture first.")).to_be_visible(timeout=60_000)
