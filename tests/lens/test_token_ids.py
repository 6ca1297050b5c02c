"""Which tokens a record is about: those that its own forward pass has read, or none."""

import pytest
import torch
import transformers
from tests.lens.families import LAYERS, VOCABULARY, build, some_ids
from torch import nn

import pellucid

TOKENS, WIDTH = 7, 33
SIZES = {
    "hidden_size": WIDTH,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "num_hidden_layers": LAYERS,
}
PAIR = ["t5", "marian", "bart"]


def watch(model, *calls, **options):
    with torch.no_grad(), pellucid.watch(model, **options) as seen:
        for call in calls:
            call(model)
    return seen


def ids_of(record):
    """What queries and keys are called."""
    return tuple(None if x is None else x.tolist() for x in (record.query_ids, record.key_ids))


def assert_ids(records, query, key=None):
    key = query if key is None else key
    for record in records:
        assert ids_of(record) == (query.tolist(), key.tolist()), record.name


def assert_no_ids(records):
    for record in records:
        assert ids_of(record) == (None, None), record.name


# One stack.


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama, grouped heads"])
@pytest.mark.parametrize("order", ["ids first", "embeddings first"])
def test_a_pass_over_embeddings_has_no_ids(name, order):
    """However many there are, and whatever was read before."""
    model, ids = build(name, None), some_ids(TOKENS)
    calls = [
        lambda model: model(ids),
        lambda model: model(inputs_embeds=torch.randn(2, TOKENS, WIDTH if name != ROPED else 66)),
    ]
    seen = watch(model, *calls[:: 1 if order == "ids first" else -1]).records
    read, given = (seen[:LAYERS], seen[LAYERS:])[:: 1 if order == "ids first" else -1]
    assert_ids(read, ids)
    assert_no_ids(given)


ROPED = "llama, grouped heads"


@pytest.mark.parametrize("name", ["bert", "gpt2", ROPED])
def test_embeddings_that_somebody_has_looked_up_before(name):
    """In a call of their own: whose they are is known to nobody."""
    model, ids = build(name, None), some_ids(TOKENS)

    def call(model):
        model(inputs_embeds=model.get_input_embeddings()(ids))

    assert_no_ids(watch(model, call).records)


@pytest.mark.parametrize("name", ["bert", "gpt2", ROPED])
def test_each_pass_has_its_own_text(name):
    """Also where texts are as long as one another."""
    model = build(name, None)
    texts = [some_ids(TOKENS), some_ids(TOKENS).flip(-1), some_ids(5)]
    seen = watch(model, *[lambda model, ids=ids: model(ids) for ids in texts])
    for number, ids in enumerate(texts):
        assert_ids(seen.records[LAYERS * number : LAYERS * (number + 1)], ids)


def test_a_generation_is_labelled_to_the_end():
    model, ids = build(ROPED, None, generating=True), some_ids(TOKENS)
    with torch.no_grad(), pellucid.watch(model) as seen:
        out = model.generate(ids, max_new_tokens=5, eos_token_id=None, pad_token_id=0)
    assert_ids(seen.records, out[:, :-1])


def test_a_generation_from_embeddings():
    """What is written after is labelled by nobody either: its keys are not all known."""
    model = build(ROPED, None, generating=True)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model.generate(
            inputs_embeds=torch.randn(2, TOKENS, 66),
            max_new_tokens=3,
            eos_token_id=None,
            pad_token_id=0,
        )
    for record in seen.records:
        assert record.key_ids is None


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_functional_call(name):
    """Its embedding is another tensor in the same place."""
    model, ids = build(name, None), some_ids(TOKENS)
    others = {place: value + 0.1 for place, value in model.state_dict().items()}
    seen = watch(model, lambda model: torch.func.functional_call(model, others, (ids,)))
    assert_ids(seen.records, ids)


@pytest.mark.parametrize("name", ["bert", ROPED])
def test_a_wrapper_that_loops(name):
    """A module around the model, which calls it for each of several texts."""

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build(name, None)

        def forward(self, texts):
            return [self.inner(ids).last_hidden_state for ids in texts]

    texts = [some_ids(TOKENS), some_ids(TOKENS).flip(0), some_ids(5)]
    seen = watch(Wrapper(), lambda model: model(texts)).records
    for number, ids in enumerate(texts):
        assert_ids(seen[LAYERS * number : LAYERS * (number + 1)], ids)


def test_a_wrapper_that_gives_ids_and_then_embeddings():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build("bert", None)

        def forward(self, ids, x):
            return self.inner(ids).last_hidden_state + self.inner(inputs_embeds=x).last_hidden_state

    ids = some_ids(TOKENS)
    seen = watch(Wrapper(), lambda model: model(ids, torch.randn(2, TOKENS, WIDTH))).records
    assert_ids(seen[:LAYERS], ids)
    assert_no_ids(seen[LAYERS:])


# Models of students.


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + (q @ k.mT / WIDTH**0.5).softmax(-1) @ v


class Student(nn.Module):
    """`x` is the ids, and then their vectors."""

    def __init__(self, name="tok_emb", places=True):
        super().__init__()
        self.add_module(name, nn.Embedding(VOCABULARY, WIDTH))
        self.name = name
        self.positions = nn.Embedding(TOKENS, WIDTH) if places else None
        self.blocks = nn.Sequential(Head(), Head())

    def forward(self, x):
        at = torch.arange(x.shape[1])
        x = getattr(self, self.name)(x)
        if self.positions is not None:
            x = x + self.positions(at)
        return self.blocks(x)


@pytest.mark.parametrize("name", ["tok_emb", "embed", "embedding", "wte"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_student_that_rebinds_x(name, batch):
    model, ids = Student(name), some_ids(TOKENS, batch)
    seen = watch(model, lambda model: model(ids))
    assert seen.names == ["blocks.0", "blocks.1"]
    assert_ids(seen.records, ids)


def test_positions_are_no_tokens():
    """(1, n) of them, as GPT-2 makes them, and looked up before the words."""

    class First(Student):
        def forward(self, x):
            at = self.positions(torch.arange(x.shape[1])[None])
            return self.blocks(self.tok_emb(x) + at)

    model, ids = First(), some_ids(TOKENS, 1)
    assert_ids(watch(model, lambda model: model(ids)).records, ids)


def test_words_that_are_embedded_outside():
    """The watched part reads vectors alone."""
    model, ids = Student(), some_ids(TOKENS)
    assert_no_ids(watch(model.blocks, lambda _: model(ids)).records)


# Two stacks.


class Two(nn.Module):
    """Two encoders of their own, one after another or in turn."""

    def __init__(self, shared=False):
        super().__init__()
        self.left, self.right = Student(), Student()
        if shared:
            self.right.tok_emb = self.left.tok_emb

    def forward(self, one, other):
        return self.left(one).mean(), self.right(other).mean()


@pytest.mark.parametrize("shared", [True, False])
def test_two_encoders(shared):
    """As long as each other: each has its own text."""
    one, other = some_ids(TOKENS), some_ids(TOKENS).flip(-1)
    seen = watch(Two(shared), lambda model: model(one, other))
    assert_ids([record for record in seen.records if record.name.startswith("left")], one)
    assert_ids([record for record in seen.records if record.name.startswith("right")], other)


def test_two_encoders_that_embed_first():
    """Both texts are looked up before either attends."""

    class Early(Two):
        def forward(self, one, other):
            x, y = self.left.tok_emb(one), self.right.tok_emb(other)
            return self.left.blocks(x), self.right.blocks(y)

    one, other = some_ids(TOKENS), some_ids(TOKENS).flip(-1)
    seen = watch(Early(), lambda model: model(one, other))
    for record in seen.records:
        right = one if record.name.startswith("left") else other
        assert ids_of(record) in ((right.tolist(),) * 2, (None, None))


class Patches(nn.Module):
    """A tower that reads pictures: no ids at all."""

    def __init__(self):
        super().__init__()
        self.project, self.positions = nn.Linear(5, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.Sequential(Head(), Head())

    def forward(self, pixels):
        return self.blocks(self.project(pixels) + self.positions(torch.arange(TOKENS)[None]))


@pytest.mark.parametrize("order", ["text first", "picture first"])
def test_a_picture_with_as_many_patches_as_tokens(order):
    """As CLIP's two towers."""

    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.vision = Student(), Patches()

        def forward(self, ids, pixels):
            calls = [lambda: self.text(ids), lambda: self.vision(pixels)]
            return [call() for call in calls[:: 1 if order == "text first" else -1]]

    ids = some_ids(TOKENS)
    seen = watch(Clip(), lambda model: model(ids, torch.randn(2, TOKENS, 5)))
    assert_ids([record for record in seen.records if record.name.startswith("text")], ids)
    assert_no_ids([record for record in seen.records if record.name.startswith("vision")])


def test_clip_of_transformers():
    config = transformers.CLIPConfig(
        text_config={"vocab_size": VOCABULARY, "max_position_embeddings": 17, **SIZES},
        vision_config={"image_size": 10, "patch_size": 5, "num_channels": 2, **SIZES},
        projection_dim=11,
    )
    model, ids = transformers.CLIPModel(config).eval(), some_ids(5)
    pixels = torch.randn(2, 2, 10, 10)  # 4 patches and a class: as many as tokens
    seen = watch(model, lambda model: model(ids, pixels))
    assert {record.shape[-1] for record in seen.records} == {5}
    assert_ids([record for record in seen.records if record.name.startswith("text")], ids)
    assert_no_ids([record for record in seen.records if record.name.startswith("vision")])


def llava():
    torch.manual_seed(23)
    text = {**SIZES, "vocab_size": VOCABULARY, "hidden_size": 36, "num_key_value_heads": 3}
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**text),
        vision_config=transformers.CLIPVisionConfig(
            image_size=10, patch_size=5, num_channels=2, **SIZES
        ),
        image_token_id=IMAGE,
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    return transformers.LlavaForConditionalGeneration(config).eval()


IMAGE = 59


def test_llava():
    """Ids are read before the picture is, and do not belong to its patches."""
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE]])
    seen = watch(llava(), lambda model: model(ids, pixel_values=torch.randn(1, 2, 10, 10)))
    assert {record.shape[-1] for record in seen.records} == {5}
    vision = [record for record in seen.records if "vision" in record.name]
    assert len(vision) == LAYERS
    assert_no_ids(vision)
    assert_ids([record for record in seen.records if "language" in record.name], ids)


def test_placeholders_of_a_picture_are_no_duplicates():
    """Many positions of one id, each with another patch."""
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 7, 11]])
    seen = watch(llava(), lambda model: model(ids, pixel_values=torch.randn(1, 2, 10, 10)))
    assert seen.placeholder_ids == {IMAGE}
    rows = pellucid.lens.heads(seen.of_layers("*language*"))
    assert rows
    for row in rows:
        assert not row.duplicates > 0


def test_placeholders_are_saved(tmp_path):
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 7, 11]])
    seen = watch(llava(), lambda model: model(ids, pixel_values=torch.randn(1, 2, 10, 10)))
    seen.save(tmp_path / "x.safetensors")
    assert pellucid.Recording.load(tmp_path / "x.safetensors").placeholder_ids == {IMAGE}


def test_frames_of_sound_have_no_words():
    """Whisper: as many frames as tokens."""
    model = transformers.WhisperModel(
        transformers.WhisperConfig(
            vocab_size=VOCABULARY,
            d_model=30,
            encoder_layers=LAYERS,
            decoder_layers=LAYERS,
            encoder_attention_heads=3,
            decoder_attention_heads=3,
            encoder_ffn_dim=37,
            decoder_ffn_dim=41,
            num_mel_bins=5,
            max_source_positions=TOKENS,
            max_target_positions=17,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    ).eval()
    ids = some_ids(TOKENS)
    calls = [lambda model: model(torch.randn(2, 5, 2 * TOKENS), decoder_input_ids=ids)] * 2
    for record in watch(model, *calls).records:
        if record.name.startswith("encoder"):
            assert ids_of(record) == (None, None)
        elif record.is_cross:
            assert ids_of(record) == (ids.tolist(), None)
        else:
            assert ids_of(record) == (ids.tolist(),) * 2


# Encoder and decoder.


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("alike", [True, False])
def test_both_texts(name, alike):
    """Also where they are as long as each other."""
    model, ids = build(name, None), some_ids(11)
    target = some_ids(11).flip(-1) if alike else some_ids(TOKENS)
    for record in watch(model, lambda model: model(ids, decoder_input_ids=target)).records:
        if record.name.startswith("encoder"):
            assert ids_of(record) == (ids.tolist(),) * 2
        else:
            key = ids if record.is_cross else target
            assert ids_of(record) == (target.tolist(), key.tolist())


@pytest.mark.parametrize("name", PAIR)
def test_encoder_outputs_that_are_given(name):
    """Of a pass before, or of another text of the same length: its words are not known."""
    model, ids, other, target = build(name, None), some_ids(11), some_ids(11).flip(-1), some_ids(5)
    with torch.no_grad():
        memory = model.get_encoder()(other)
    calls = [
        lambda model: model(ids, decoder_input_ids=target),
        lambda model: model(encoder_outputs=memory, decoder_input_ids=target),
    ]
    records = watch(model, *calls).records[3 * LAYERS :]
    assert len(records) == 2 * LAYERS
    for record in records:
        assert ids_of(record)[0] == target.tolist()
        assert ids_of(record)[1] == (None if record.is_cross else target.tolist())


@pytest.mark.parametrize("name", PAIR)
def test_an_encoder_that_is_called_for_itself_in_between(name):
    model, ids, other, target = build(name, None), some_ids(11), some_ids(11).flip(-1), some_ids(5)

    def call(model):
        memory = model.get_encoder()(ids)
        model.get_encoder()(other)
        model(encoder_outputs=memory, decoder_input_ids=target)

    for record in watch(model, call).records[2 * LAYERS :]:
        assert ids_of(record)[1] in (
            (None, ids.tolist()) if record.is_cross else (target.tolist(),)
        )


@pytest.mark.parametrize("name", PAIR)
def test_a_translation_is_labelled_on_both_sides(name):
    model, ids = build(name, None, generating=True), some_ids(11)
    with torch.no_grad(), pellucid.watch(model) as seen:
        out = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert len(seen.records) == 3 * LAYERS
    for record in seen.records:
        if "encoder." in record.name.replace("model.", "")[:8]:
            assert ids_of(record) == (ids.tolist(),) * 2
        else:
            key = ids if record.is_cross else out[:, :-1]
            assert ids_of(record) == (out[:, :-1].tolist(), key.tolist())


@pytest.mark.parametrize("name", PAIR)
def test_two_translations_one_after_another(name):
    """Of the same length: no source's words are the other's."""
    model, texts = build(name, None, generating=True), [some_ids(11), some_ids(11).flip(-1)]
    with torch.no_grad(), pellucid.watch(model) as seen:
        for ids in texts:
            model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)
    cross = [record for record in seen.records if record.is_cross]
    assert len(cross) == 2 * LAYERS
    for number, record in enumerate(cross):
        assert ids_of(record)[1] == texts[number // LAYERS].tolist()
