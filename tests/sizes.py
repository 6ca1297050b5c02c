"""Sizes of tiny models, a different one for each thing that could be mixed up."""

LAYERS, VOCABULARY, BATCH, WINDOW = 2, 101, 2, 5
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 37,
    "max_position_embeddings": 53,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"hidden_size": 33, "num_attention_heads": 3}
GROUPED = {"hidden_size": 66, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 33,
    "n_layer": LAYERS,
    "n_head": 3,
    "n_positions": 53,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
