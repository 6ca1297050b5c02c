"""The number of threads follows what other programs leave."""

from itertools import count

from pellucid.layers.thread_count import FIRST_TRIAL, MOST_PATIENCE, ThreadCount


def chosen(times, calls, threads=None):
    """The threads of each call; `times` gives the seconds of a call and its threads."""
    threads = threads or ThreadCount()
    found = []
    for call in range(calls):
        found.append(threads.choose(2))
        threads.note(times(call, found[-1]))
    return found


def test_alone_all_threads_are_used():
    found = chosen(lambda _, threads: 1.1 / threads, 1009)
    assert found.count(1) == 1
    assert found[FIRST_TRIAL - 1] == 1


def test_an_accident_changes_nothing():
    accidents = {7: 40.0, 101: 40.0, 211: 40.0}
    found = chosen(lambda call, threads: accidents.get(call, 1 / threads), 307)
    assert found.count(1) == 1


def test_beside_another_program_hardly_any_call_uses_all():
    found = chosen(lambda _, threads: 20.0 if threads == 2 else 1.0, 2003)
    assert found.count(2) < 25
    took = sum(20.0 if threads == 2 else 1.0 for threads in found)
    assert took < 1.3 * len(found)


def test_when_the_other_ends_all_are_used_again():
    end = 1000
    found = chosen(lambda call, threads: 20.0 if threads == 2 and call < end else 1 / threads, 2003)
    back = next(call for call in count(end) if found[call] == 2)
    assert back - end <= MOST_PATIENCE
    assert found[back:].count(1) == 0


def test_where_fewer_are_slower_too_all_are_used():
    """As when all the cores are taken for a while."""
    found = chosen(lambda call, threads: (10.0 if 50 < call < 300 else 1.0) / threads, 401)
    assert found.count(1) < 20
