"""Which rows are held out: texts drawn at random, with the same share of each label."""

from collections import Counter
from heapq import heappop, heappush

from pellucid.text.equal_texts import fingerprint
from pellucid.training.corpus.dataset_cache import HELD_OUT

MOST_HELD_OUT_ROWS = 2000
POOL = 4 * MOST_HELD_OUT_ROWS
"""Texts from which those of each label are drawn; more are not held in memory."""
LEAST_TEXTS = 10
"""The least number of different texts, since some are held out."""


class Draw:
    """Draws different texts at random from a stream: those with the smallest keyed hashes.

    Only the smallest hashes are stored.
    """

    def __init__(self, seed: int) -> None:
        self.key = str(seed).encode()
        self.rows: Counter[str] = Counter()
        """The rows of each label."""
        self.pool: dict[int, tuple[int, str]] = {}
        """The rows of each text, and its first label in the alphabet."""
        self.largest_first: list[int] = []  # negated, since heapq is a min-heap

    def number(self, text: str) -> int:
        """The hash of a text, which equal texts share."""
        return fingerprint(text, self.key)

    def add(self, text: str, label: str = "") -> None:
        number = self.number(text)
        self.rows[label] += 1
        if number in self.pool:
            count, other = self.pool[number]
            self.pool[number] = count + 1, min(label, other)
        elif len(self.pool) < POOL or number < -self.largest_first[0]:
            self.pool[number] = 1, label
            heappush(self.largest_first, -number)
            if len(self.pool) > POOL:
                del self.pool[-heappop(self.largest_first)]

    @property
    def different(self) -> int:
        """The number of different texts, at most `POOL`."""
        return len(self.pool)

    def chosen(self, *, stratified: bool = True) -> frozenset[int]:
        """The hashes of the drawn texts: of each label as many rows as its share, if stratified."""
        total = self.rows.total()
        most = min(max(1, round(HELD_OUT * total)), MOST_HELD_OUT_ROWS)
        left = self._quotas(most) if stratified else {"": most}
        # Of each label, something stays to be learnt.
        stays = Counter(self.rows) if stratified else Counter({"": total})
        taken = set()
        for number in sorted(self.pool):
            count, label = self.pool[number]
            stratum = label if stratified else ""
            if count <= left[stratum] and count < stays[stratum]:
                taken.add(number)
                left[stratum] -= count
                stays[stratum] -= count
        return frozenset(taken or [min(self.pool, key=lambda number: self.pool[number][0])])

    def _quotas(self, most: int) -> dict[str, int]:
        """Rows to draw of each label: its share, rounded so that they sum to `most`."""
        total = self.rows.total()
        quotas = {label: most * rows // total for label, rows in self.rows.items()}
        first: dict[str, int] = {}
        for number in sorted(self.pool):
            first.setdefault(self.pool[number][1], number)
        last = 2**64
        order = sorted(  # the largest remainder first, then by lot
            quotas, key=lambda label: (-(most * self.rows[label] % total), first.get(label, last))
        )
        for label in order[: most - sum(quotas.values())]:
            quotas[label] += 1
        return quotas
