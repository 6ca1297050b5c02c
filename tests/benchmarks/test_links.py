"""Each section of the benchmark of links, on few of them."""

import pytest

from benchmarks import links


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, size in {"TOKENS": 67, "LONG": 131, "LINKS": 211, "AT_ONCE": 23}.items():
        monkeypatch.setattr(links, name, size)
    links.record.cache_clear()
    yield
    links.record.cache_clear()


def test_contexts_are_those_of_rows_computed_again() -> None:
    rows = list(links.error())
    assert [row.verdict for row in rows] == ["pass", "pass"]
    assert all(row.value > 0 for row in rows)


def test_all_links_are_ranked() -> None:
    settings = [row.setting for row in links.ranking()]
    assert len(settings) == 4
    assert settings[-1].endswith("by a direction, n = 131")
