"""The report of ``minigrad visualize``: as text, and in a real browser where one is installed."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pytest

from minigrad.nn.visualize.report import Picture, Section, Table, page, size_of

VOID = {"meta", "link", "img", "br", "hr", "input"}


def picture(name, red, table=None):
    """A picture of one colour, 40 by 30."""
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("RGB", (40, 30), (red, 80, 120)).save(buffer, "PNG")
    return Picture(
        name, f"Title <of> {name}", f"what {name} shows & means", f'how to "read" {name}', buffer.getvalue(), table
    )


@pytest.fixture
def html():
    table = Table("numbers & more", ("class", "a<b", "c"), [("cat", "1", "2"), ("dog", "3", "4")])
    sections = [
        Section("First & foremost", "What <this> is.", [picture("one", 10), picture("two", 200, table)]),
        Section("Second", "", [picture("three", 100)]),
    ]
    return page("A <net>", {"parameters": "61,706", "file": "a&b.safetensors"}, sections, "minigrad visualize a&b")


class Reader(HTMLParser):
    """Elements in order, with their text; complains of any that is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2].append(data)

    def all(self, *tags):
        return [(attrs, "".join(text).strip()) for tag, attrs, text in self.elements if tag in tags]


def test_the_report_is_well_formed_and_says_everything_in_text_too(html):
    reader = Reader(html)
    ids = [attrs["id"] for _, attrs, _ in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs, _ in reader.all("a"):
        assert attrs["href"][0] == "#" and attrs["href"][1:] in ids
    levels = [int(tag[1]) for tag, _, _ in reader.elements if re.fullmatch("h[1-6]", tag)]
    assert levels == [1, 2, 3, 3, 2, 3]
    alts = [attrs["alt"] for attrs, _ in reader.all("img")]
    assert alts == ["what one shows & means", "what two shows & means", "what three shows & means", ""]
    assert [(a["width"], a["height"]) for a, _ in reader.all("img")[:3]] == [("40", "30")] * 3
    assert [text for _, text in reader.all("h3")] == ["Title <of> one", "Title <of> two", "Title <of> three"]
    assert [text for _, text in reader.all("td")] == ["1", "2", "3", "4"]
    assert [(a["scope"], text) for a, text in reader.all("th")][1:4] == [("col", "a<b"), ("col", "c"), ("row", "cat")]
    assert reader.all("html")[0][0]["lang"] == "en" and reader.all("title")[0][1] == "A <net>"
    assert {tag for tag, _, _ in reader.elements} >= {"header", "nav", "main", "footer", "dialog"}


def test_nothing_is_loaded_from_anywhere(html):
    for _, attrs, _ in Reader(html).elements:
        for name in ("src", "href"):
            assert attrs.get(name, "#")[0] == "#" or attrs[name].startswith("data:")
    assert "url(" not in html and "http:" not in html and "https:" not in html and "@import" not in html


def test_the_size_of_a_png_file():
    assert size_of(picture("one", 0).png) == (40, 30)


def contrast(page, selector):
    """The contrast of an element's text with the ground of the page, as WCAG defines it."""
    found = page.value(f"""[getComputedStyle(document.querySelector({selector!r})).color,
                            getComputedStyle(document.body).backgroundColor]""")
    levels = []
    for color in found:
        channels = np.array([int(c) for c in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        levels.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


@pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed")
def test_the_report_in_a_browser(html, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    with browser.Page(tmp_path / "profile") as page:
        page.open(path)
        assert page.value("document.title") == "A <net>"
        sizes = page.value("[...document.querySelectorAll('.zoom img')].map(i => [i.naturalWidth, i.naturalHeight])")
        assert sizes == [[40, 30]] * 3

        page.press("Tab")  # the first thing that the keyboard reaches
        assert page.value("document.activeElement.className") == "skip"
        page.press("Enter")
        assert page.value("document.activeElement.id") == "content"
        page.click("nav li:last-child a")
        assert page.value("location.hash") == "#part1"

        page.click(".zoom")
        assert page.value("document.querySelector('dialog').open")
        assert page.value("document.querySelector('dialog p').textContent") == "1 of 3: Title <of> one"
        assert page.value("document.querySelector('dialog img').alt") == "what one shows & means"
        page.press("ArrowRight")
        page.press("ArrowRight")
        assert page.value("document.querySelector('dialog p').textContent") == "3 of 3: Title <of> three"
        page.click("#next")
        page.press("ArrowLeft")
        assert page.value("document.querySelector('dialog img').src == document.querySelectorAll('.zoom img')[2].src")
        enlarged = page.photograph()
        page.press("Escape")
        page.until("!document.querySelector('dialog').open")
        page.until("document.activeElement.dataset.title == 'Title <of> three'")

        page.value("document.querySelectorAll('.zoom')[1].focus()")
        page.press("Enter")
        assert page.value("document.querySelector('dialog p').textContent") == "2 of 3: Title <of> two"
        page.click("#close")
        page.until("document.activeElement.dataset.title == 'Title <of> two'")
        page.click("summary")
        assert page.value("document.querySelector('details').open")
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        for dark in (False, True):
            page.open(path, dark=dark)
            for selector in ("p", "dt", "figcaption", "nav a", "footer"):
                assert contrast(page, selector) >= 4.5  # WCAG 2.2, level AA
        image = pytest.importorskip("PIL.Image")
        day, night = (image.open(io.BytesIO(png)).convert("L") for png in (enlarged, page.photograph()))
        assert day.size == night.size == (1100, 800)
        assert night.resize((1, 1)).getpixel((0, 0)) < 80
        page.open(path, width=320)
        assert page.value("document.documentElement.scrollWidth <= innerWidth")  # no sideways scrolling on a phone

        requests = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
        assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
        wrong = [e for e in page.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert wrong == []
