"""What every page of ours must obey, without a browser: it parses, refers to what is there, and loads nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "input", "img", "br", "hr", "link"}
CLOSED = {"path", "use", "rect", "circle"}  # in SVG
TEXT = {"style", "script"}
REFERRING = ("aria-labelledby", "aria-describedby", "for", "data-for")


@dataclass
class Page(HTMLParser):
    """The elements of a page, in order: tag and attributes."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open_: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open_.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open_, f"</{tag}> closes nothing"
        assert self.open_.pop() == tag, f"</{tag}> closes something else, at {self.getpos()}"

    def handle_data(self, data):
        if self.open_ and self.open_[-1] in TEXT:
            self.code[self.open_[-1]] = data
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(html):
    """The page, once it obeys."""
    assert html.isprintable() or {c for c in html if not c.isprintable()} <= {"\n"}
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open_, f"never closed: {page.open_}"
    _refers_to_what_is_there(page, html)
    _loads_nothing(page, html)
    _is_semantic(page)
    return page


def _refers_to_what_is_there(page, html):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "ids are not unique"
    asked = [name for _, a in page.elements for key in REFERRING if key in a for name in a[key].split()]
    asked += [a[k][1:] for _, a in page.elements for k in ("href", "xlink:href") if a.get(k, "").startswith("#")]
    asked += re.findall(r"url\(#([^)]*)\)", html)
    assert asked
    assert set(asked) <= set(ids)


def _loads_nothing(page, html):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert attributes.get(key, "#").startswith(("#", "data:image/png;base64,")), (tag, key)
        assert not [key for key in attributes if key.startswith("on")], attributes
        assert "javascript:" not in str(attributes)
    assert len(page.all("script")) == 1
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def _is_semantic(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.all("svg"))
    assert all(head.get("scope") in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert len(page.all("label")) == len(page.all("input")) + len(page.all("select"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1
