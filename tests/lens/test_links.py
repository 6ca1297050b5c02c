"""The strongest links: whole words, nothing that fills every list, true weights."""

import torch
from tests.lens.given import IDS, Tokenizer, pointing, some, watched

from pellucid.lens.head_measures import heads
from pellucid.lens.links import links


def test_links_are_the_weights_of_two_different_words():
    n = 13
    query, key = 3 * some(1, 5, n, 7, seed=1), some(1, 5, n, 7, seed=2)
    seen = watched(IDS, query, key, Tokenizer())
    weights = seen.latest()[0].weights.dense()[0]
    found = links(seen, heads(seen), 7)
    assert found
    assert [link.weight for link in found] == sorted((x.weight for x in found), reverse=True)
    assert len({(link.query, link.key) for link in found}) == len(found)
    for link in found:
        assert link.weight == weights[link.head, link.query_position, link.key_position].item()
        assert link.query_position != link.key_position
        assert link.key_position != 0
        assert {link.query, link.key} <= {"the", "cat", "sat", "on", "mat"}
    assert len(links(seen, heads(seen), 2)) == 2
    assert links(seen, heads(seen), 0) == []


def test_heads_that_look_at_a_neighbour_are_told_by_their_role():
    previous, far = [max(0, i - 1) for i in range(13)], [6] * 13
    query, key = pointing([previous, far], 13)
    seen = watched(IDS, query, key, Tokenizer())
    found = links(seen, heads(seen))
    assert {link.head for link in found} == {1}
    assert {link.key for link in found} == {"mat"}


def test_parts_of_a_word_are_no_link():
    ids = torch.tensor([[0, 2, 8, 5, 6, 7]])  # [CLS] cat ##s on mat [SEP]
    query, key = pointing([[0, 2, 1, 5, 2, 3]], 6)  # cat and ##s look at each other, mat at ##s
    seen = watched(ids, query, key, Tokenizer())
    found = links(seen, heads(seen))
    assert [(link.query, link.key, link.key_position) for link in found if link.weight > 0.5] == [
        ("mat", "cats", 2)
    ]


def test_without_a_spelling_every_token_is_its_number():
    query, key = 3 * some(1, 2, 13, 7, seed=1), some(1, 2, 13, 7, seed=2)
    seen = watched(IDS, query, key)
    assert all(link.key.isdecimal() for link in links(seen, heads(seen)))
    seen = watched(IDS[:, :5], query, key)  # nothing is known of the tokens
    assert links(seen, heads(seen)) == []
