"""Loading holds little more than the model at any moment: weights are used where the file is."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pellucid
from pellucid.models import Config, Decoder

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MOST = 1.2
"""Times the size of the model in memory."""
SIZES = {"kind": "decoder", "vocabulary": 2003, "width": 704, "heads": 11, "layers": 4}
SHAPES = {
    "as it is": Config(
        **SIZES,
        hidden=1873,
        norm="rms",
        norm_first=True,
        gated=True,
        bias=False,
        activation="silu",
        position="rotary",
        tied=False,
    ),
    "transposed": Config(
        **SIZES, hidden=2803, norm_first=True, activation="gelu_tanh", position="learned"
    ),
}
pytestmark = pytest.mark.skipif(not PEAK.exists(), reason="only Linux tells")


def memory(what):
    """VmRSS, the memory held now, or VmHWM, the most that was held, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", [torch.float32, torch.bfloat16])
def test_little_more_than_the_model_is_held(name, stored, used, tmp_path):
    Decoder(SHAPES[name]).save(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {key: tensor.to(stored) for key, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    size = sum(tensor.numel() for tensor in tensors.values()) * used.itemsize
    assert size > 30e6
    del tensors
    PEAK.write_text("5")
    before = memory("VmRSS")
    model = pellucid.load(tmp_path, dtype=used)
    held = memory("VmHWM") - before
    assert held <= MOST * size
    assert next(model.parameters()).dtype == used


def test_weights_in_their_own_dtype_are_not_copied(tmp_path):
    Decoder(SHAPES["as it is"]).save(tmp_path)
    before = memory("RssAnon")
    model = pellucid.load(tmp_path)
    held = memory("RssAnon") - before
    assert held <= 0.2 * (tmp_path / "model.safetensors").stat().st_size
    assert model.config.layers == 4
