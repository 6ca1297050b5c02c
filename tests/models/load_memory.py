"""Prints how much memory loading held at once, over the size of the model
or of its file, whichever is larger, for each kind of file.

A process of its own, whose allocator gives freed memory back at once (MALLOC_MMAP_THRESHOLD_).
"""

import gc
import itertools
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import pellucid
from pellucid.models import Config, Decoder

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
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
DTYPES = (torch.float32, torch.bfloat16)


def memory(what: str) -> int:
    """VmRSS, the memory held now, or VmHWM, the most that was held, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return 1024 * int(line.split()[1])


def held(directory: Path, size: int, used: torch.dtype) -> tuple[float, float]:
    """The most that was held while loading, and what is not in the file, over the size."""
    gc.collect()
    PEAK.write_text("5")
    before, own = memory("VmRSS"), memory("RssAnon")
    model = pellucid.load(directory, dtype=used)
    assert next(model.parameters()).dtype == used
    return (memory("VmHWM") - before) / size, (memory("RssAnon") - own) / size


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as name:
        directory, file = Path(name), Path(name, "model.safetensors")
        torch.set_num_threads(1)
        models = {shape: Decoder(config) for shape, config in SHAPES.items()}
        for (shape, model), stored in itertools.product(models.items(), DTYPES):
            model.save(directory, overwrite=True)
            tensors = {key: tensor.to(stored) for key, tensor in load_file(file).items()}
            numbers = sum(tensor.numel() for tensor in tensors.values())
            save_file(tensors, file, metadata={"format": "pt"})
            del tensors
            pellucid.load(directory)  # what is imported late is imported now
            for used in DTYPES:
                key = f"{shape}, {stored} as {used}".replace("torch.", "")
                found[key] = held(directory, numbers * max(used.itemsize, stored.itemsize), used)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
