"""Tiny encoder-decoders that translate, trained on the spot with their tokenizers.

Marian has learnt a few sentences by heart, in seconds; T5 has learnt nothing.
"""

import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
import torch
import transformers

ENGLISH = """The sun came up over the hill and the birds began to sing.
A child ran down to the river with a small boat of paper.
The boat went away on the water, and the child laughed.
In the evening the mother lit a lamp and put bread on the table.
Nobody knew where the wind had carried the little boat.
"Tomorrow we will build another one," said the father.
The moon was white, the night was long, and all the house slept.
"""
SPANISH = """El sol salió sobre la colina y los pájaros empezaron a cantar.
Un niño bajó corriendo al río con un pequeño barco de papel.
El barco se fue por el agua, y el niño se rió.
Por la tarde la madre encendió una lámpara y puso pan en la mesa.
Nadie sabía adónde había llevado el viento el pequeño barco.
«Mañana haremos otro», dijo el padre.
La luna era blanca, la noche era larga, y toda la casa dormía.
"""
PREFIX = "translate English to Spanish: "
"""What T5 is told by."""
POSITIONS, STEPS = 61, 100


def _pieces(text: str, size: int, **marks: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        bos_id=-1,
        **marks,
    )
    return model.getvalue()


def marian(directory: Path) -> Path:
    """English to Spanish, as transformers writes it; it learns once, whoever asks for it."""
    for name, content in _learnt().items():
        (directory / name).write_bytes(content)
    return directory


@cache
def _learnt() -> dict[str, bytes]:
    with TemporaryDirectory() as name:
        directory = Path(name)
        _learn(directory)
        return {file.name: file.read_bytes() for file in directory.iterdir()}


def _learn(directory: Path) -> None:
    tokens = {"</s>": 0, "<unk>": 1, ">>spa<<": 2}
    readers = {}
    for name, text, size in (("source", ENGLISH, 160), ("target", SPANISH, 150)):
        content = _pieces(text, size)
        (directory / f"{name}.spm").write_bytes(content)
        readers[name] = sentencepiece.SentencePieceProcessor(model_proto=content)
        for number in range(readers[name].get_piece_size()):
            tokens.setdefault(readers[name].id_to_piece(number), len(tokens))
    tokens["<pad>"] = padding = len(tokens)
    (directory / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")

    torch.manual_seed(7)
    config = transformers.MarianConfig(
        vocab_size=len(tokens),
        d_model=42,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=83,
        decoder_ffn_dim=83,
        max_position_embeddings=POSITIONS,
        pad_token_id=padding,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=padding,
        scale_embedding=True,
        activation_function="swish",
        dropout=0.0,
    )
    model = transformers.MarianMTModel(config)
    batch = {}
    for name, text, key in (("source", ENGLISH, "input_ids"), ("target", SPANISH, "labels")):
        rows = [
            torch.tensor(
                [*(tokens[piece] for piece in readers[name].encode(line, out_type=str)), 0]
            )
            for line in text.splitlines()
        ]
        batch[key] = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=padding if name == "source" else -100
        )
    seen = batch["input_ids"] != padding
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in range(STEPS):
        loss = model(**batch, attention_mask=seen).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.final_logits_bias[0, padding] = 2.0  # in Marian's checkpoints too padding is not unlikely
    model.generation_config.update(
        num_beams=4, bad_words_ids=[[padding]], renormalize_logits=True, max_length=POSITIONS
    )
    model.save_pretrained(directory)


def t5(directory: Path) -> Path:
    """One whose texts begin with padding; it has large matrices and says a little of everything."""
    content = _pieces(ENGLISH + SPANISH + PREFIX, 150, pad_id=0, eos_id=1, unk_id=2)
    (directory / "spiece.model").write_bytes(content)
    size = sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()
    config = transformers.T5Config(
        vocab_size=size + 100,  # marks that its tokenizer adds
        d_model=33,
        d_kv=7,
        d_ff=37,
        num_layers=2,
        num_heads=3,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    torch.manual_seed(7)
    model = transformers.T5ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            scale = 0.5 if "shared" in name else 2 / parameter.shape[-1] ** 0.5
            parameter.data = scale * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return directory
