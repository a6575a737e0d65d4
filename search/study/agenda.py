"""What is tried next: interrupted trials, then those that broke, the first points, and what the sampler proposes."""

from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any

from search.space.space import Config
from search.study.proposer import Proposal, Proposer
from search.study.rows import FAILED, RUNNING, TrialRecord

# Where a configuration comes from that the sampler did not propose, see `TrialRecord.origin`.
Origin = Mapping[str, int | str]


class Agenda:
    """What a study has still to try, in this order.

    Args:
        proposer: Makes trials of points, and proposes when nothing else is left.
        records: All trials so far.
        first: Points to try before any proposal, by name; those that a trial came from are left out.
        untold: Trials whose end is still to be told; they are not taken up here.
    """

    def __init__(
        self,
        proposer: Proposer,
        records: Collection[TrialRecord],
        *,
        first: Iterable[tuple[int | str, Config]],
        untold: Container[int],
    ) -> None:
        self._proposer = proposer
        self._tried = {record.origin.get("first") for record in records}
        self._first: deque[tuple[int | str, Config]] = deque()
        self.add(first)
        self._paused = deque(record.number for record in records if record.status == RUNNING)
        self._broken: deque[TrialRecord] = deque()
        retried = {record.origin.get("retry_of") for record in records}
        for record in records:
            if record.status == FAILED and record.number not in retried and record.number not in untold:
                self.retry(record)

    @property
    def paused(self) -> list[int]:
        """Numbers of the interrupted trials, the next first."""
        return list(self._paused)

    def add(self, points: Iterable[tuple[int | str, Config]]) -> None:
        """Put points behind the first ones, by name, unless a trial came from them already."""
        self._first.extend((name, point) for name, point in points if name not in self._tried)

    def pause(self, number: int) -> None:
        """Put an interrupted trial behind those that are interrupted already."""
        self._paused.append(number)

    def resume(self, key: Callable[[int], Any] | None = None) -> int | None:
        """Take out the interrupted trial whose turn it is: the first, or the one with the smallest key."""
        if not self._paused:
            return None
        number = min(self._paused, key=key) if key else self._paused[0]
        self._paused.remove(number)
        return number

    def retry(self, record: TrialRecord) -> None:
        """Try the configuration of a broken trial once more, unless it was the second time."""
        if "retry_of" not in record.origin:
            self._broken.append(record)

    def propose(self) -> tuple[Proposal, Origin] | None:
        """Return the next new trial and where it comes from; None if all has been tried, or is forbidden."""
        if self._broken:
            record = self._broken.popleft()
            return self._proposer.describe(record.config), {"retry_of": record.number}
        while self._first:
            name, point = self._first.popleft()
            if proposal := self._proposer.propose(point):
                return proposal, {"first": name}
        proposal = self._proposer.propose()
        return None if proposal is None else (proposal, {})
