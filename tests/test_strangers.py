"""Files that strangers made: each gives a result or an error of ours, soon."""

import gzip
import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

import pellucid
from pellucid import Recording
from pellucid.attention import masks
from pellucid.common import untrusted
from pellucid.common.wording import plain
from pellucid.errors import FileError, PellucidError
from pellucid.layers.config import Config
from pellucid.lens.head_measures import heads
from pellucid.models import Encoder
from pellucid.readers import open_checkpoint
from pellucid.tasks.embedding import embed
from pellucid.text import text_inputs
from pellucid.text.tokenizer import Tokenizer as Ours

ODD = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        3,
        10**6,
        10**12,
        10**400,
        1.5,
        -0.0,
        float("inf"),
        float("nan"),
        "",
        "a",
        "../x",
        [],
        [[]],
        {},
        {"a": 1},
        {"tensor": "0"},
        {"rule": None},
    ]
)
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "seen.safetensors"
    model = torch.nn.MultiheadAttention(22, 2, batch_first=True)
    tokens = torch.randn(1, 17, 22)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(tokens, tokens, tokens, attn_mask=torch.ones(17, 17).triu(1).bool())
    seen.save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    config = Config(
        kind="encoder",
        vocabulary=7,
        width=12,
        heads=3,
        layers=1,
        hidden=11,
        position="learned",
        positions=13,
        types=2,
        embedding_norm=True,
        activation="gelu",
        norm_eps=1e-12,
    )
    words = {"[UNK]": 0, "a": 1, "b": 2}
    made = Encoder(config)
    made.tokenizer = Ours(Tokenizer(models.WordLevel(words, unk_token="[UNK]")))
    made.save(path)
    return path


def parts_of(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(file, header, numbers):
    told = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(told)) + told + numbers)


def places(tree, path=()):
    """Each place in nested JSON."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, part in pairs:
        yield (*path, name)
        if isinstance(part, dict | list):
            yield from places(part, (*path, name))


def changed(tree, path, value):
    tree = json.loads(json.dumps(tree))
    inner = tree
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return tree


def recording_with(saved, tmp_path, path, value):
    header, numbers = parts_of(saved)
    told = json.loads(header["__metadata__"]["pellucid"])
    header["__metadata__"]["pellucid"] = json.dumps(changed(told, path, value))
    put_together(tmp_path / "x.safetensors", header, numbers)
    return tmp_path / "x.safetensors"


@FEW
@given(data=st.data())
def test_recordings_with_odd_values(saved, tmp_path, data):
    told = json.loads(parts_of(saved)[0]["__metadata__"]["pellucid"])
    path = recording_with(
        saved, tmp_path, data.draw(st.sampled_from(list(places(told)))), data.draw(ODD)
    )
    with AnyAnswer():
        json.dumps(plain(heads(Recording.load(path)).to_dicts()), allow_nan=False)


@FEW
@given(data=st.data())
def test_headers_of_weights_with_odd_values(model, tmp_path, data):
    header, numbers = parts_of(model / "model.safetensors")
    path = data.draw(st.sampled_from(list(places(header))))
    for file in model.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    put_together(tmp_path / "model.safetensors", changed(header, path, data.draw(ODD)), numbers)
    with AnyAnswer():
        pellucid.load(tmp_path)


class AnyAnswer:
    """A result or an error of ours."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        return kind is not None and issubclass(kind, PellucidError)


@FEW
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:1 text of 1 mostly of characters")
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json"]
)
def test_model_directories_with_odd_values(model, tmp_path, name, data):
    for file in model.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(model)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    told = json.loads((model / name).read_bytes())
    path = data.draw(st.sampled_from(list(places(told))))
    (tmp_path / name).write_text(json.dumps(changed(told, path, data.draw(ODD))))
    with AnyAnswer():
        read = pellucid.load(tmp_path)
        embed(read, ["a b"])


@FEW
@given(
    content=st.binary(max_size=200),
    ending=st.sampled_from([".csv", ".json", ".jsonl", ".npy", ".parquet", ".txt.gz", ".tsv"]),
)
def test_tables_of_any_bytes(tmp_path, content, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with AnyAnswer():
        text_inputs.from_file(path)


def test_a_mask_is_asked_once_for_each_of_its_parts():
    asked = []

    class Counted(masks.Band):
        offset = property(lambda self: asked.append(1))

    one = Counted.__new__(Counted)
    mask = one
    for _ in range(25):
        mask = mask & one
    assert mask.offset is None
    assert len(asked) == 26


@pytest.mark.parametrize(("depth", "is_read"), [(50, True), (untrusted.MOST_RULES, False)])
def test_a_mask_of_a_recording_has_a_depth(saved, tmp_path, depth, is_read):
    rule = {"kind": "Band", "left": None, "right": 0, "offset": 0}
    for _ in range(depth):
        rule = {"kind": "Not", "hidden": {"rule": rule}}
    path = recording_with(saved, tmp_path, ("records", 0, "mask"), rule)
    if is_read:
        heads(Recording.load(path))
    else:
        with pytest.raises(FileError, match="a mask of more than 128 rules"):
            Recording.load(path)


def test_a_recording_has_so_many_records(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "MOST_RECORDS", 3)
    told = json.loads(parts_of(saved)[0]["__metadata__"]["pellucid"])
    path = recording_with(saved, tmp_path, ("records",), told["records"] * 4)
    with pytest.raises(FileError, match="4 records, more than the limit of 3"):
        Recording.load(path)


@pytest.mark.parametrize("sizes", [{"hidden_size": 12 * 10**6}, {"num_hidden_layers": 16_000}])
def test_a_model_of_transformers_is_no_larger_than_its_weights(model, tmp_path, sizes):
    for file in model.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((tmp_path / "config.json").read_bytes())
    assert told["model_type"] == "bert"
    del told["pellucid"]  # or it would be one of ours
    (tmp_path / "config.json").write_text(json.dumps(told | sizes))
    with pytest.raises(FileError, match=r"a model with at least .* but its weights are"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("path", ["../elsewhere", "/elsewhere", "a/../../elsewhere"])
def test_modules_stay_inside(model, tmp_path, path):
    for file in model.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((tmp_path / "modules.json").read_bytes())
    (tmp_path / "modules.json").write_text(json.dumps(changed(told, (1, "path"), path)))
    with pytest.raises(
        FileError,
        match=r"modules\.json names a file outside the directory: .*where",
    ):
        pellucid.load(tmp_path)


def test_modules_reach_no_link_that_leads_out(model, tmp_path):
    for file in model.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "config.json").symlink_to("/etc/passwd")
    told = json.loads((tmp_path / "modules.json").read_bytes())
    (tmp_path / "modules.json").write_text(json.dumps(changed(told, (1, "path"), "a/b/c")))
    with pytest.raises(FileError, match=r"its a/b/c/config\.json is a link to /etc/passwd"):
        pellucid.load(tmp_path)


def test_a_pipe_or_device_is_no_config(model, tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(FileError, match="it is not a regular file"):
        pellucid.load(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(FileError, match=r"its config\.json is a link to /dev/zero"):
        pellucid.load(tmp_path)


def test_what_is_packed_and_a_line_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "PACKED_FREE", 2**17)
    monkeypatch.setattr(untrusted, "MOST_JSON_LINE", 1009)
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write(b"a line\n" * 2**17)
    with pytest.raises(FileError, match="unpacks to more than 256 times its size"):
        text_inputs.from_file(tmp_path / "a.txt.gz")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a" * 1009}))
    with pytest.raises(FileError, match=r"line 1 of .* has more than 1,009 characters"):
        text_inputs.from_file(tmp_path / "a.jsonl")
    monkeypatch.setattr(untrusted, "MOST_LINE", 1013)
    (tmp_path / "a.txt").write_text("a" * 1021)
    with pytest.raises(FileError, match=r"line 1 of .* has more than 1,013 characters"):
        text_inputs.from_file(tmp_path / "a.txt")


def test_a_packed_parquet_file_has_a_limit(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["ab" * 2**19 + str(number) for number in range(7)]})
    parquet.write_table(table, path, compression="gzip")
    assert len(text_inputs.from_file(path).texts) == 7
    monkeypatch.setattr(untrusted, "PACKED_FREE", 2**17)
    with pytest.raises(FileError, match="unpacks to more than 256 times its size"):
        text_inputs.from_file(path)


def test_a_tokenizer_that_panics_is_an_error_of_ours():
    broken = Ours(Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")))

    class PanicException(BaseException):
        """As the Rust library raises."""

    class Panics:
        def encode_batch_fast(self, *_, **__):
            raise PanicException("not yet implemented")

    with pytest.raises(FileError, match="the tokenizer cannot read this text"):
        broken.encode(["b"])
    broken.inner = Panics()
    with pytest.raises(FileError, match="not yet implemented"):
        broken.encode(["b"])


def test_an_interruption_is_no_failure():
    with pytest.raises(KeyboardInterrupt), untrusted.guarded("a file"):
        raise KeyboardInterrupt
