"""Tiny multilingual translators with transformers' tokenizers for them, made on the spot."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from transformers.tokenization_utils_base import generate_merges

from pellucid.text import language_codes
from tests.translators import ENGLISH, SPANISH

TEXTS = ["The boat went away on the water.", "Nobody knew", "¿Qué pasa? ¡Nada!", "zwölf 漢字 a b"]
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
CODES = {
    "NllbTokenizer": language_codes.NLLB,
    "MBartTokenizer": language_codes.MBART,
    "MBart50Tokenizer": language_codes.MBART_50,
}
CONFIGS = {
    "NllbTokenizer": "M2M100Config",
    "M2M100Tokenizer": "M2M100Config",
    "MBartTokenizer": "MBartConfig",
    "MBart50Tokenizer": "MBartConfig",
}


def pieces(kind: str, **marks: int) -> bytes:
    """A SentencePiece model, "bpe" or "unigram", that changes no character but spaces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((ENGLISH + SPANISH).splitlines()),
        model_writer=model,
        vocab_size=190,
        hard_vocab_limit=False,
        minloglevel=2,
        model_type=kind,
        normalization_rule_name="identity",
        **marks,
    )
    return model.getvalue()


def tokenizer(name: str, directory: Path) -> Any:
    """transformers' tokenizer of a class, with the files of fairseq in the directory."""
    content = pieces("bpe" if name in ("NllbTokenizer", "M2M100Tokenizer") else "unigram")
    file = directory / "sentencepiece.bpe.model"
    file.write_bytes(content)
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokens = [model.id_to_piece(number) for number in range(3, model.get_piece_size())]
    kind = getattr(transformers, name)
    if name == "M2M100Tokenizer":
        vocabulary = {token: number for number, token in enumerate([*MARKS, *tokens])}
        (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        return kind(str(directory / "vocab.json"), str(file))
    scores = [(token, 0.0) for token in MARKS]
    scores += [(token, model.get_score(number + 3)) for number, token in enumerate(tokens)]
    scores += [(token, 0.0) for token in (*CODES[name], "<mask>")]
    if name != "NllbTokenizer":
        return kind(vocab=scores)
    merges = generate_merges({token: number for number, token in enumerate(tokens)})
    return kind(vocab={token: number for number, (token, _) in enumerate(scores)}, merges=merges)


def model(name: str, theirs: Any, start: int | None) -> Any:
    """A random model of a tokenizer's family, whose texts end now and then."""
    torch.manual_seed(7)
    config = getattr(transformers, CONFIGS[name])(
        vocab_size=len(theirs) + 110,  # that of M2M-100 does not count languages
        d_model=34,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        max_position_embeddings=61,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=start,
    )
    made = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made
