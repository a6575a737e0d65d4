"""A confusion matrix as a table of wafers and shares."""

from collections.abc import Sequence

from search.views.report.markup import Html, tag

_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # Okabe & Ito 2008: told apart with any colour vision


def confusion_table(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Html:
    """Lay out counts of wafers and their % of the actual label; rows are actual, columns called."""
    head = tag("tr", tag("th", "actual \\ called"), *(tag("th", tag("span", name)) for name in classes))
    rows = []
    for k, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        cells = [_cell(n, sum(counts), is_right=j == k) for j, n in enumerate(counts)]
        rows.append(tag("tr", tag("th", name), *cells))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion")


def _cell(n: int, total: int, *, is_right: bool) -> Html:
    if not n:
        return tag("td", "·", class_="none")
    share = n / total
    red, green, blue = _RIGHT if is_right else _WRONG
    shade = 0.10 + (0.35 if is_right else 0.6) * share
    style = f"background:rgba({red},{green},{blue},{shade:.2f})"
    return tag("td", f"{n:,}", tag("small", f"{100 * share:.1f}" if share < 0.9995 else "100"), style=style)
