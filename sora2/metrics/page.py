"""One HTML page of results: text, figures, playable clips, tables, curves. No script, no network, relative links.

Used by `sora2 evaluate` and by the demo:

    page = Page("Title", subtitle="what this is")
    page.section("Samples", "Generated from held-out captions.")
    page.videos([("a.mp4", "a red ball ..."), ...])
    page.table(["metric", "value"], [["offset", "3 ms"]])
    page.write(folder / "index.html")

Files are linked by their path relative to the page, so the folder can be moved or zipped as a whole.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sora2.metrics.plots import plot_curves

_STYLE = """
:root{--ink:#1b1f24;--soft:#5b6470;--line:#e3e6ea;--panel:#f7f8fa;--accent:#2f5d8a;--paper:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ad;--line:#30363d;--panel:#161b22;
--accent:#7fb2e5;--paper:#0d1117}figure img{background:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 96px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px}h2{font-size:21px;margin:44px 0 8px;padding-top:14px;
border-top:1px solid var(--line)}
p{max-width:78ch;margin:8px 0}.subtitle,figcaption,.note{color:var(--soft);font-size:14px}
nav{margin:18px 0 0;font-size:14px}nav a{color:var(--accent);text-decoration:none;margin-right:16px;white-space:nowrap}
.scroll{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;min-width:50%}
th,td{padding:6px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;border-bottom:2px solid var(--line);vertical-align:bottom}
th:first-child,td:first-child{text-align:left}
td small{display:block;color:var(--soft);font-size:12px;line-height:1.3}
td.text{text-align:left;white-space:normal}
figure{margin:14px 0}figure img{max-width:100%;height:auto;display:block;border-radius:4px}
.grid{display:grid;gap:18px;margin:14px 0}.grid figure{margin:0}
.grid video,.grid img{width:100%;display:block;border-radius:4px;background:#000;image-rendering:auto}
figcaption{margin-top:6px;line-height:1.4}
pre{background:var(--panel);border:1px solid var(--line);border-radius:4px;padding:12px 14px;overflow-x:auto;
font-size:13px;white-space:pre-wrap}
"""


class Page:
    """A page built from top to bottom; every method appends and returns the page."""

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[tuple[str, str]] = []  # (anchor, heading)
        self._parts: list[Any] = []  # html strings, or callables folder -> html for what has links

    def section(self, heading: str, text: str = "") -> Page:
        """Begin a section, with a heading that also stands in the contents line."""
        anchor = f"section-{len(self._sections) + 1}"
        self._sections.append((anchor, heading))
        self._parts.append(f'<h2 id="{anchor}">{html.escape(heading)}</h2>')
        return self.text(text) if text else self

    def text(self, text: str, *, note: bool = False) -> Page:
        """Paragraphs of plain text, separated by blank lines. `note` prints them small."""
        kind = ' class="note"' if note else ""
        for paragraph in text.split("\n\n"):
            self._parts.append(f"<p{kind}>{html.escape(paragraph.strip())}</p>")
        return self

    def code(self, text: str) -> Page:
        """A block of preformatted text, such as the command that made the page."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")
        return self

    def figure(self, path: str | Path, caption: str = "", *, width: int | None = None) -> Page:
        """One picture in its own row; `width` limits it, in pixels."""
        style = f' style="width:{width}px"' if width else ""

        def build(folder: Path) -> str:
            image = f'<img src="{_link(path, folder)}" alt="{html.escape(caption)}"{style} loading="lazy">'
            return f"<figure>{image}{_caption(caption)}</figure>"

        self._parts.append(build)
        return self

    def figures(self, items: Iterable[tuple[str | Path, str]], *, columns: int = 2) -> Page:
        """A grid of pictures with captions."""
        return self._grid(items, columns, '<img src="{}" alt="" loading="lazy">')

    def videos(self, items: Iterable[tuple[str | Path, str]], *, columns: int = 4) -> Page:
        """A grid of playable clips with captions."""
        return self._grid(
            items, columns, '<video src="{}" controls loop playsinline preload="metadata"></video>'
        )

    def audios(self, items: Iterable[tuple[str | Path, str]], *, columns: int = 3) -> Page:
        """A grid of playable sounds with captions."""
        return self._grid(items, columns, '<audio src="{}" controls preload="metadata"></audio>')

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[Any]], *, text_columns: Sequence[int] = (0,)
    ) -> Page:
        """A table; cells are shown by `str`, lines after their first in small print.

        Columns listed in `text_columns` are left-aligned and may wrap.
        """
        text = set(text_columns)

        def cell(tag: str, column: int, value: Any) -> str:
            kind = ' class="text"' if column in text and tag == "td" else ""
            first, *rest = html.escape(str(value)).split("\n")
            below = "".join(f"<small>{line}</small>" for line in rest)
            return f"<{tag}{kind}>{first}{below}</{tag}>"

        head = "".join(cell("th", i, h) for i, h in enumerate(headers))
        body = "".join(f"<tr>{''.join(cell('td', i, v) for i, v in enumerate(row))}</tr>" for row in rows)
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        return self

    def curves(
        self,
        series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        path: str | Path,
        *,
        x_label: str,
        y_label: str,
        caption: str = "",
        log_y: bool = False,
    ) -> Page:
        """Draw named (x, y) curves, such as losses over samples, to the PNG `path` and show it."""
        plot_curves(series, Path(path), x_label=x_label, y_label=y_label, log_y=log_y)
        return self.figure(path, caption)

    def write(self, path: str | Path) -> Path:
        """Write the page. Links are made relative to its folder; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(p if isinstance(p, str) else p(path.parent) for p in self._parts)
        contents = "".join(f'<a href="#{a}">{html.escape(h)}</a>' for a, h in self._sections)
        subtitle = f'<p class="subtitle">{html.escape(self.subtitle)}</p>' if self.subtitle else ""
        document = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n<body><main>"
            f"<h1>{html.escape(self.title)}</h1>{subtitle}<nav>{contents}</nav>\n{body}\n</main></body></html>\n"
        )
        partial = path.with_name(path.name + ".partial")
        partial.write_text(document, encoding="utf-8")
        os.replace(partial, path)
        return path

    def _grid(self, items: Iterable[tuple[str | Path, str]], columns: int, tag: str) -> Page:
        listed = list(items)
        smallest = max(120, 1040 // max(1, columns) - 24)

        def build(folder: Path) -> str:
            cells = "".join(
                f"<figure>{tag.format(_link(p, folder))}{_caption(caption)}</figure>" for p, caption in listed
            )
            template = f"repeat(auto-fill,minmax(min(100%,{smallest}px),1fr))"
            return f'<div class="grid" style="grid-template-columns:{template}">{cells}</div>'

        self._parts.append(build)
        return self


def _link(path: str | Path, folder: Path) -> str:
    relative = os.path.relpath(Path(path).resolve(), folder.resolve())
    return html.escape(quote(Path(relative).as_posix()))


def _caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>" if text else ""
