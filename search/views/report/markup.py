"""HTML in which no word can become markup: what is not Html is escaped where it is put in."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

_VOID = ("br", "hr", "img", "meta")


class Html(str):
    """Finished markup, as opposed to words."""


Content = str | int | Html | None


def tag(name: str, /, *content: Content, **attributes: str | None) -> Html:
    """Make an element.

    Args:
        name: Of the element.
        content: Markup as it is, anything else escaped; None is nothing.
        attributes: By name, a trailing underscore left out and others written as hyphens; None leaves one out.

    Example:
        >>> tag("p", "a < b ", tag("b", 1), class_="note")
        '<p class="note">a &lt; b <b>1</b></p>'
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{words}>" if name in _VOID else f"<{name}{words}>{join(*content)}</{name}>")


def join(*content: Content) -> Html:
    """Put pieces one after the other, words escaped."""
    return Html(
        "".join(piece if isinstance(piece, Html) else escape(str(piece)) for piece in content if piece is not None)
    )


def section(title: str, *content: Content, id_: str) -> Html:
    """Make a chapter."""
    return tag("section", tag("h2", title), *content, id_=id_)


def paragraph(*content: Content, class_: str | None = None) -> Html:
    """Make a paragraph."""
    return tag("p", *content, class_=class_)


def listing(items: Iterable[Content], class_: str | None = None) -> Html:
    """Make a list; nothing without items."""
    made = [tag("li", item) for item in items]
    return tag("ul", *made, class_=class_) if made else Html("")


def table(
    header: Sequence[Content], rows: Iterable[Sequence[Content]], *, words: Iterable[int] = (0,), class_: str = ""
) -> Html:
    """Make a table that scrolls by itself where it is too wide.

    Args:
        header: Of each column.
        rows: Cells; a cell that is finished `td` markup is taken as it is.
        words: Columns that hold words, and may be broken into lines.
        class_: Further classes of the table.
    """
    wordy = set(words)

    def cell(column: int, content: Content, kind: str) -> Html:
        if isinstance(content, Html) and content.startswith("<td"):
            return content
        return tag(kind, content, class_="words" if column in wordy else None)

    head = tag("tr", *(cell(i, content, "th") for i, content in enumerate(header)))
    body = [tag("tr", *(cell(i, content, "td") for i, content in enumerate(row))) for row in rows]
    return scrolling(tag("table", tag("thead", head), tag("tbody", *body), class_=class_ or None))


def scrolling(*content: Content) -> Html:
    """Wrap what may be wider than the screen."""
    return tag("div", *content, class_="scroll", tabindex="0")


def picture(png: bytes, *, words: str, caption: Content = None, class_: str | None = None) -> Html:
    """Show a picture within the page.

    Args:
        png: The file.
        words: What it shows, for those who do not see it.
        caption: Below it.
        class_: Of the figure.
    """
    data = base64.b64encode(png).decode()
    image = tag("img", src=f"data:image/png;base64,{data}", alt=words)
    return tag("figure", image, tag("figcaption", caption) if caption is not None else None, class_=class_)


def fold(title: str, *content: Content) -> Html:
    """Make a part that is folded until asked for; the style opens it on paper."""
    return tag("details", tag("summary", title), *content)
