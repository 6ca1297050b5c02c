"""Files as people have them: read as another reader does that is told by hand what they are."""

import re

import pytest
from tests.text.awkward import FILES

from pellucid.common.files import is_blank
from pellucid.errors import PellucidError
from pellucid.text.table_reading import Reading
from pellucid.text.text_inputs import from_file


@pytest.mark.parametrize("awkward", FILES, ids=lambda awkward: awkward.name)
def test_a_file_is_read_right_or_refused_in_one_line(awkward, tmp_path):
    path = tmp_path / awkward.name
    path.write_bytes(awkward.content)
    if awkward.peer is None:
        with pytest.raises(PellucidError, match=awkward.refused) as error:
            from_file(path, awkward.column, reading=Reading(**awkward.reading))
        assert "\n" not in str(error.value)
        return
    found = from_file(path, awkward.column, reading=Reading(**awkward.reading))
    wanted = [text for text in awkward.peer(path) if text is not None and not is_blank(text)]
    assert found.texts == wanted
    notes = [note for note in found.notes if not note.startswith("left out")]
    assert len(notes) == bool(awkward.note), notes
    assert all(re.search(awkward.note, note) for note in notes), notes


def test_there_are_enough():
    assert len({awkward.name for awkward in FILES}) == len(FILES) >= 40
