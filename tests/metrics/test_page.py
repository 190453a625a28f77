import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from sora2.metrics.page import Page


class Links(HTMLParser):
    """Sources of a page, and a check that tags close."""

    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name == "src"]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(path):
    links = Links()
    links.feed(path.read_text())
    assert not links.open
    return links.sources


def test_a_page_keeps_its_links_when_its_folder_moves(tmp_path):
    folder = tmp_path / "run"
    (folder / "clips").mkdir(parents=True)
    for name in ("a ball & 50%.mp4", "sheet.png"):
        (folder / "clips" / name).write_bytes(b"x")
    page = Page("Demo", subtitle="two clips")
    page.section("Samples", "First.\n\nSecond.")
    page.videos([(folder / "clips" / "a ball & 50%.mp4", "a <red> ball")])
    page.figure(folder / "clips" / "sheet.png", "sheet", width=300)
    page.figures([(folder / "clips" / "sheet.png", "")], columns=3)
    page.curves(
        {"video": ([0, 1, 2], [3.0, 2.0, 1.0]), "audio": ([0, 1, 2], [2.0, 1.5, 1.0])},
        folder / "loss.png",
        x_label="samples",
        y_label="loss",
        log_y=True,
    )
    page.section("Numbers").table(["metric", "value"], [["offset", 3.2], ["<script>", None]])
    page.code("sora2 evaluate --out 'x y'")
    written = page.write(folder / "index.html")
    shutil.move(folder, tmp_path / "elsewhere")
    written = tmp_path / "elsewhere" / "index.html"
    sources = read(written)
    assert len(sources) == 4
    for source in sources:
        assert not Path(source).is_absolute() and "://" not in source
        assert (written.parent / unquote(source)).exists()
    text = written.read_text()
    assert "<script>" not in text and "a &lt;red&gt; ball" in text and "Second." in text
    assert not list(written.parent.glob("*.partial"))
