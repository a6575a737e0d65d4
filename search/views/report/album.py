"""The pictures of a page, kept by name so that they can be written as files too."""

from dataclasses import dataclass, field

from search.views.report.markup import Content, Html, picture


@dataclass(slots=True)
class Album:
    """Shows pictures and remembers them.

    Attributes:
        pictures: PNG files by the name of the file, without its ending.
    """

    pictures: dict[str, bytes] = field(default_factory=dict)

    def show(self, name: str, png: bytes, *, words: str, caption: Content = None, class_: str | None = None) -> Html:
        """Keep a picture and return the markup that shows it; see `picture`."""
        self.pictures[name] = png
        return picture(png, words=words, caption=caption, class_=class_)
