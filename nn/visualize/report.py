"""A report: pictures, tables and text in one HTML file that needs nothing else, opened from a disk or sent by mail."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from minigrad.errors import DataError
from minigrad.nn.serialize import PathLike, check_writable, write_atomically

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --text: #1b1b1b; --faint: #55595e; --line: #d5d8dc; --link: #0b57d0; --raised: #f4f5f7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181b; --text: #ececec; --faint: #b3b8be; --line: #3b4046; --link: #9cc2ff; --raised: #202327;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1.6rem 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .4rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
a { color: var(--link); }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--ground); z-index: 2; }
nav { position: sticky; top: 0; z-index: 1; background: var(--ground); border-bottom: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; max-width: 62rem; margin: 0 auto; padding: .5rem 1.25rem;
  list-style: none; }
section { scroll-margin-top: 3.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .6rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .4rem 0 1rem; }
figcaption { color: var(--faint); font-size: .92rem; max-width: 46rem; margin-top: .3rem; }
.zoom { display: block; max-width: 100%; padding: 0; border: 1px solid var(--line); border-radius: 6px;
  background: #ffffff; overflow: hidden; cursor: zoom-in; }
.zoom img { display: block; max-width: 100%; height: auto; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding: .2rem 0; }
th, td { border: 1px solid var(--line); padding: .2rem .6rem; text-align: right; }
th { background: var(--raised); }
summary { cursor: pointer; color: var(--link); }
dialog { border: 1px solid var(--line); border-radius: 8px; background: var(--ground); color: var(--text);
  max-width: 96vw; max-height: 96vh; padding: 1rem; }
dialog::backdrop { background: rgb(0 0 0 / .7); }
dialog img { display: block; max-width: 100%; max-height: calc(96vh - 8rem); width: 64rem; object-fit: contain;
  background: #ffffff; }
dialog p { margin: .5rem 0; }
dialog button { font: inherit; padding: .3rem .9rem; margin-right: .5rem; color: var(--text); background: var(--raised);
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
footer { color: var(--faint); font-size: .9rem; margin-top: 3rem; padding-bottom: 2rem; }
@media print { nav, dialog { display: none; } }
"""

SCRIPT = """
const dialog = document.querySelector("dialog");
const buttons = [...document.querySelectorAll(".zoom")];
let shown = 0;
function show(index) {
  shown = (index + buttons.length) % buttons.length;
  const image = buttons[shown].querySelector("img");
  const large = dialog.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  dialog.querySelector("p").textContent = `${shown + 1} of ${buttons.length}: ${buttons[shown].dataset.title}`;
  if (!dialog.open) dialog.showModal();
}
buttons.forEach((button, index) => button.addEventListener("click", () => show(index)));
document.getElementById("previous").addEventListener("click", () => show(shown - 1));
document.getElementById("next").addEventListener("click", () => show(shown + 1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => buttons[shown].focus());
"""

# What the page may load: its own pictures, style and script, and nothing from anywhere else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading for each column; the first column names the rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Attributes:
        name: what the file is called, without its suffix.
        title: one line.
        alt: what it shows, for those who cannot see it.
        caption: how to read it.
        png: its bytes.
        table: the same in numbers, where there are some.
    """

    name: str
    title: str
    alt: str
    caption: str
    png: bytes = field(repr=False)
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """A part of the report, with an entry in its navigation."""

    title: str
    text: str
    pictures: Sequence[Picture]


def page(title: str, facts: Mapping[str, str], sections: Sequence[Section], made_by: str) -> str:
    """The report as HTML.

    Args:
        title: of the page.
        facts: what is known about the network, in order.
        sections: the parts.
        made_by: the command that made it.

    >>> "<h2>Filters</h2>" in page("LeNet", {"parameters": "61,706"}, [Section("Filters", "", [])], "by hand")
    True
    """
    links = "".join(f'<li><a href="#part{i}">{escape(part.title)}</a></li>' for i, part in enumerate(sections))
    known = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    parts = "\n".join(_section(i, part) for i, part in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the pictures</a>
<header>
<h1>{escape(title)}</h1>
<dl>{known}</dl>
</header>
<nav aria-label="Parts of this report"><ul>{links}</ul></nav>
<main id="content" tabindex="-1">
{parts}
</main>
<footer><p>Made by <code>{escape(made_by)}</code></p></footer>
<dialog aria-label="Enlarged picture">
<img src="data:," alt="">
<p aria-live="polite"></p>
<button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button>
<button type="button" id="close" autofocus>Close</button>
</dialog>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(number: int, part: Section) -> str:
    text = f"<p>{escape(part.text)}</p>" if part.text else ""
    pictures = "\n".join(map(_picture, part.pictures))
    return f'<section id="part{number}">\n<h2>{escape(part.title)}</h2>\n{text}\n{pictures}\n</section>'


def _picture(picture: Picture) -> str:
    width, height = size_of(picture.png)
    title, data = escape(picture.title), base64.b64encode(picture.png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" width="{width}" height="{height}">'
    button = f'<button type="button" class="zoom" aria-haspopup="dialog" data-title="{title}">{image}</button>'
    return (
        f"<h3>{title}</h3>\n<figure>{button}<figcaption>{escape(picture.caption)}</figcaption></figure>"
        f"{_table(picture.table)}"
    )


def _table(table: Table | None) -> str:
    if table is None:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(value)}</td>" for value in values)}</tr>'
        for name, *values in table.rows
    )
    return (
        f"\n<details><summary>{escape(table.caption)}</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        "</details>"
    )


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, which its first chunk tells."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def write_report(
    folder: PathLike, title: str, facts: Mapping[str, str], sections: Sequence[Section], made_by: str
) -> list[Path]:
    """Write each picture as a PNG file, and ``report.html`` with all of them.

    Args:
        folder: where to; made if need be. Files of these names are replaced.
        title: of the report; this and the rest as for :func:`page`.
        facts: what is known about the network.
        sections: the parts.
        made_by: the command that made it.

    Returns:
        The files, the report last.

    Raises:
        DataError: if a file cannot be written.
    """
    place = made(folder)
    files = {f"{picture.name}.png": picture.png for part in sections for picture in part.pictures}
    files["report.html"] = page(title, facts, sections, made_by).encode()
    for name, content in files.items():
        write_atomically(place / name, content)
    return [place / name for name in files]


def made(folder: PathLike) -> Path:
    """A folder that is there from now on.

    Raises:
        DataError: if it cannot be made.
    """
    check_writable(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError.of(str(folder), "a folder to write into", error.strerror) from error
    return Path(folder)
