import io

from rich.console import Console

from search.views.progress import show_progress


def bar_of(*steps, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, _environ={"TERM": "xterm"})
    with show_progress(console, "calling wafers") as step:
        for n, total in steps:
            step(n, total)
    return console.file.getvalue()


def test_a_terminal_sees_how_many_of_how_many_are_done():
    shown = bar_of((40, None), (60, 400), is_terminal=True)

    assert "calling wafers" in shown
    assert "100/400" in shown


def test_elsewhere_nothing_is_said():
    assert bar_of((40, None), (60, 400), is_terminal=False) == ""
