"""Files as people have them, given to the commands as people give them."""

import json


def test_a_file_from_excel(run, refused, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("sep=;\r\ntext;label\r\nCafé crème, bon;x\r\nMüller;y\r\n".encode("cp1252"))
    assert "--encoding windows-1252" in refused("embed", "--file", path)
    status, out, err = run("embed", "--file", path, "--encoding", "windows-1252", "--json")
    assert (status, err) == (0, "")
    assert [item["text"] for item in json.loads(out)["items"]] == ["Café crème, bon", "Müller"]
    assert json.loads(out)["notes"] == []
    assert "--encoding 'windows' is unknown" in refused(
        "embed", "--file", path, "--encoding", "windows"
    )
    assert "looks like 2 separated by semicolon" in refused(
        "similar", "a", path, "--encoding", "windows-1252", "--delimiter", "pipe"
    )


def test_what_is_noticed_is_said_once_and_in_json(run, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\nสวัสดี\n🙂\n', encoding="utf-8")
    status, out, err = run("embed", "--file", path, "--json")
    assert status == 0
    notes = json.loads(out)["notes"]
    assert err == "".join(f"pellucid: {note}\n" for note in notes)
    assert [note.split(",")[0] for note in notes] == [
        f"left out 1 empty line of '{path}': 2",
        "2 lines are JSON",
        "2 texts of 4 mostly of characters or words that the model does not know",
    ]


def test_a_folder(run, tmp_path):
    for name, text in (("a.txt", "a cat\n"), ("b.csv", "text\na soup\n")):
        (tmp_path / name).write_text(text)
    status, out, _ = run("similar", "cats", tmp_path, "--json")
    assert status == 0
    assert [(match["file"], match["line"]) for match in json.loads(out)["matches"]] == [
        (str(tmp_path / "a.txt"), 1),
        (str(tmp_path / "b.csv"), 2),
    ]


def test_a_field_of_an_answer(run, refused, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"message": {"text": "a cat"}, "id": 7}], "next": None}))
    assert "has the columns 'message.text' and 'id'" in refused("embed", "--file", path)
    status, out, _ = run("embed", "--file", path, "--column", "message.text", "--json")
    assert status == 0
    assert [item["text"] for item in json.loads(out)["items"]] == ["a cat"]


def test_a_file_that_is_not_there_is_said_to_be_read_as_a_text(run):
    _, _, err = run("embed", "nofile.csv", "--json")
    assert "'nofile.csv' is read as a text; there is no file of this name" in err
