"""torch.export of our own decoders gives what they give."""

from copy import deepcopy

import pytest
import torch

from pellucid.models import Config, Decoder

SIZES = {"vocabulary": 101, "width": 60, "layers": 2, "heads": 6, "hidden": 37}
KINDS = {
    "as it is": {},
    "grouped and rotary": {"kv_heads": 3, "position": "rotary", "norm": "rms"},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize(
    ("kind", "strict"),
    [
        pytest.param(kind, strict, marks=[pytest.mark.slow] if strict and i else [])
        for i, kind in enumerate(KINDS)
        for strict in (False, True)
    ],
)
def test_a_decoder_is_exported(kind, strict):
    torch.manual_seed(5)
    model = Decoder(Config(kind="decoder", **SIZES, **KINDS[kind])).eval()
    ids = torch.randint(101, (2, 7))
    exported = torch.export.export(model, (ids,), strict=strict).module()
    other = ids.flip(0, 1)
    with torch.no_grad():
        exact = deepcopy(model).double()(other)
        found, plain = exported(other), model(other)
    error, of_plain = ((x - exact).abs().max() for x in (found, plain))
    assert error <= 2 * of_plain + 8 * torch.finfo(torch.float32).eps * exact.abs().max()
