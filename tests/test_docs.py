"""The site of docs/: it builds without a warning, and what it shows runs."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("material", reason="needs the extra docs")

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = CHECKOUT / "docs" / "pages"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.loads, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loads.append(values.get("href") or "")
        elif tag in ("script", "img") and values.get("src"):
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as docs/mkdocs.yml says: a broken link or anchor ends it."""
    folder = tmp_path_factory.mktemp("site")
    build = ["-m", "mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml"]
    done = subprocess.run(
        [sys.executable, *build, "--site-dir", folder],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages(site):
    """Every page is there, links to files that exist, and loads nothing from elsewhere."""
    for source in PAGES.glob("*.md"):
        built = site / f"{source.stem}.html"
        page = Page(built.read_text("utf-8"))
        assert not [address for address in page.loads if "//" in address], source.name
        for link in page.links:
            target = link.partition("#")[0]
            if target and "//" not in target:
                assert (built.parent / target).exists(), f"{source.name}: {link}"


def test_recipes_are_shown_whole(site):
    """What the site shows is the file that is tested."""
    page = (site / "recipes.html").read_text("utf-8")
    shown = re.sub(r"<[^>]+>", "", page)
    for file in CHECKOUT.joinpath("docs", "recipes").iterdir():
        if file.is_file():
            last = file.read_text("utf-8").strip().splitlines()[-1]
            unescaped = shown.replace("&quot;", '"').replace("&#39;", "'").replace("&amp;", "&")
            assert last.strip() in unescaped, file.name


def test_commands_exist():
    """Every command of ours that a page shows is one that the package has."""
    import u2net_human_plugin.__main__ as ours

    text = "\n".join(file.read_text("utf-8") for file in PAGES.glob("*.md"))
    shown = set(re.findall(r"python -m u2net_human_plugin (\w+)", text))
    assert {"batch", "demo", "doctor"} <= shown
    for command in shown:
        with pytest.raises(SystemExit) as ended:
            ours.main([command, "--help"])
        assert ended.value.code == 0, command


def test_options_of_batch_exist(capsys):
    """Every option that the page on `batch` names is in its help, and the other way round."""
    import u2net_human_plugin.__main__ as ours

    with pytest.raises(SystemExit):
        ours.main(["batch", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = PAGES.joinpath("batch.md").read_text("utf-8")
    page = re.sub("^python -m finetune .*", "", page, flags=re.MULTILINE)  # another command's
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", page)) == known
