import pytest

from search.execution.observers import Observers


class Fake:
    """Remembers what it heard; raises where it is told to."""

    def __init__(self, *, breaks_in=""):
        self.breaks_in = breaks_in
        self.heard = []

    def __enter__(self):
        self._note("begin")
        return self

    def __exit__(self, *_):
        self._note("end")

    def on_event(self, number):
        self._note(number)

    def _note(self, what):
        self.heard.append(what)
        if what == self.breaks_in:
            raise RuntimeError("no colours left")


def test_all_hear_everything_in_the_order_of_the_list():
    first, second = Fake(), Fake()

    with Observers([first, second], on_broken=pytest.fail) as observers:
        observers.on_event(3)
        observers.on_event(4)

    assert first.heard == second.heard == ["begin", 3, 4, "end"]


@pytest.mark.parametrize(
    ("moment", "heard"),
    [("begin", ["begin", "end"]), (3, ["begin", 3, "end"]), ("end", ["begin", 3, 4, "end", "end"])],
)
def test_one_that_breaks_is_named_once_ended_and_the_others_go_on(moment, heard):
    broken, sound, said = Fake(breaks_in=moment), Fake(), []

    with Observers([broken, sound], on_broken=said.append) as observers:
        observers.on_event(3)
        observers.on_event(4)

    assert said == ["WARNING: Fake is out of order (RuntimeError: no colours left)"]
    assert sound.heard == ["begin", 3, 4, "end"]
    assert broken.heard == heard  # ended in any case: it may have something open
