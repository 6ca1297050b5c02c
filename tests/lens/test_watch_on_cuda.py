"""Watching models on CUDA, on pretended tensors: see tests/attention/pretend_cuda.py."""

import pytest
import torch
import transformers
from tests.attention.pretend_cuda import cuda, model_on_cuda, on_cuda

import pellucid
from pellucid.attention import triton_statistics

SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_watch_sees_there_what_it_sees_here(monkeypatch, family, implementation) -> None:
    monkeypatch.setattr(triton_statistics, "is_best", lambda scores, top: False)
    options = {"num_key_value_heads": 3} if family == "llama" else {}
    config = transformers.AutoConfig.for_model(family, **SIZES, **options)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()
    ids, real = torch.randint(0, 61, (2, 19)), torch.ones(2, 19, dtype=torch.int64)
    real[1, 13:] = 0
    with torch.no_grad(), pellucid.watch(model) as here:
        model(input_ids=ids, attention_mask=real)
    with cuda((9, 0), monkeypatch), torch.no_grad():
        model_on_cuda(model)
        with pellucid.watch(model) as there:
            model(input_ids=on_cuda(ids), attention_mask=on_cuda(real))
        assert len(there.records) == len(here.records) == 2
        for record, wanted in zip(there.records, here.records, strict=True):
            assert record.weights.device.type == "cuda"
            assert str(record.weights.mask) == str(wanted.weights.mask)
            assert there.proof[record.name].rows > 0
            assert not there.proof[record.name].reason
            found = record.weights.dense().cpu(), record.weights.statistics(3).entropy.cpu()
            truth = wanted.weights.dense(), wanted.weights.statistics(3).entropy
            for ours, known in zip(found, truth, strict=True):
                assert (ours - known).abs().max() < 1e-5
            assert record.weights.kernel == "efficient"
