"""What a person sees of many heads."""

from io import StringIO

from rich.console import Console

from pellucid.commands.printing import heads
from pellucid.lens.head_table import HeadRow, HeadTable


def test_a_large_model_is_shown_by_its_clearest_heads():
    facts = dict.fromkeys(("entropy", "distance", "first", "itself", "next", "duplicates"), 0.1)
    facts |= dict.fromkeys(("induction", "punctuation", "special"), 0.0)
    rows = [
        HeadRow(
            layer=layer, head=head, name=f"h.{layer}.attn", previous=head / 31,
            role="previous token" if head > 20 else "", **facts,
        )
        for layer in range(5) for head in range(32)
    ]  # fmt: skip
    written = StringIO()
    heads.show_map(HeadTable(rows), Console(file=written, width=80))
    heads.show_table(HeadTable(rows), Console(file=written, width=80))
    told = written.getvalue()
    assert "The clearest heads of each role" in told
    assert "5 of 160 heads" in told
    assert told.split("Shares of")[0].count("100%") == 5
    assert max(map(len, told.splitlines())) <= 80
