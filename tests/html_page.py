"""An HTML page as a test looks at it: its elements, that nothing is fetched for it, that it can be read out."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: tuple[str, ...] = ()


@dataclass
class Page(HTMLParser):
    """What a browser would find: elements in their order, each with all text in it."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[Element] = []
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {k: v or "" for k, v in attrs}, inside=tuple(e.tag for e in self.open))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]

    def texts(self, tag: str) -> list[str]:
        return [" ".join(element.text.split()) for element in self.all(tag)]

    def table(self, beginning: str) -> list[list[str]]:
        """The rows of the table whose caption begins so."""
        [start] = [
            i for i, e in enumerate(self.elements) if e.tag == "caption" and e.text.strip().startswith(beginning)
        ]
        rows: list[list[str]] = []
        for element in self.elements[start:]:
            if element.tag == "table":
                break
            if element.tag == "tr":
                rows.append([])
            elif element.tag in ("th", "td"):
                rows[-1].append(" ".join(element.text.split()))
        return rows

    @property
    def text(self) -> str:
        return " ".join(self.all("body")[0].text.split())


def check_is_whole_in_itself(source: str, *, links: tuple[str, ...] = ()) -> Page:
    """Nothing is fetched and nothing is run. links: where else it may lead somebody who follows them."""
    page = Page(source)
    for element in page.elements:
        for name in ("src", "href", "xlink:href", "data", "poster", "srcset", "action"):
            value = element.attributes.get(name, "#")
            if element.tag == "a" and value in links:
                continue
            assert value.startswith(("data:image/png;base64,", "#")), (element.tag, name, value)
            if value.startswith("#") and len(value) > 1:
                assert value[1:] in {e.attributes.get("id") for e in page.elements}
        assert [name for name in element.attributes if name.startswith("on")] == []
    assert page.all("script", "link", "iframe", "object", "embed", "base", "foreignobject") == []
    tags = re.findall(r"<style.*?</style>|<[a-z][^>]*>", source, re.DOTALL)  # not what a log says of an address
    assert re.findall(r"@import|url\((?!#)|https?:", "".join(tags)) == []
    return page


def check_can_be_read_out(page: Page) -> None:
    """By what WCAG asks of headings, landmarks, tables and images."""
    assert page.all("html")[0].attributes["lang"] == "en"
    levels = [HEADINGS.index(element.tag) for element in page.all(*HEADINGS)]
    assert levels[0] == 0
    assert levels.count(0) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {len(page.all(tag)) for tag in ("header", "main", "footer", "nav")} == {1}
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(element.attributes["scope"] in ("row", "col") for element in page.all("th"))
    assert all(element.attributes["alt"] for element in page.all("img"))
    for element in page.all("svg"):
        assert element.attributes["role"] == "img"
        assert {element.attributes[f"aria-{name}"] for name in ("labelledby", "describedby")} <= set(ids)
    for element in page.elements:
        if "tabindex" in element.attributes:
            assert element.attributes["aria-label"]
