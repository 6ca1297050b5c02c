"""Layers and rollout, as the page asks for them, against the library's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pellucid
from pellucid import lens
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.recording import Recording
from pellucid.viewer.api import Api
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.requests import Numbers
from tests.viewer import recordings

ITEMS, TOKENS, HEADS, WIDTH, LAYERS = 2, 41, 3, 12, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def batch(causal: bool) -> Recording:
    torch.manual_seed(7)
    model = torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 17, batch_first=True) for _ in range(LAYERS)
    ).eval()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS) if causal else None
    with torch.no_grad(), pellucid.watch(model) as seen:
        x = 3 * torch.randn(ITEMS, TOKENS, WIDTH)
        for layer in model:
            x = layer(x, mask, is_causal=causal)
    return seen


@pytest.fixture(scope="module", params=[False, True], ids=["both ways", "causal"])
def seen(request: pytest.FixtureRequest) -> Recording:
    return batch(request.param)


def asker(*seen: Recording) -> Callable[[str], Tensor]:
    api = Api(Catalogue(*(Volume(one, "a text") for one in seen)))

    def ask(path: str) -> Tensor:
        found = api.ask(path, {}).find()
        assert isinstance(found, Numbers)
        return found.values

    return ask


def test_a_layer_is_the_mean_of_its_heads(seen: Recording) -> None:
    ask = asker(seen)
    for layer, record in enumerate(seen.latest()):
        for item in range(ITEMS):
            mean = record.weights[item].mean(0)
            torch.testing.assert_close(ask(f"layer-row/{layer}/{item}/37"), mean[37], **CLOSE)
            torch.testing.assert_close(ask(f"layer-column/{layer}/{item}/5"), mean[:, 5], **CLOSE)
            torch.testing.assert_close(ask(f"layer-row/{layer}/{item}/11"), mean[11], **CLOSE)


@pytest.mark.parametrize("token", [0, 13, TOKENS - 1])
def test_rollout_is_the_library_s_up_to_each_layer(seen: Recording, token: int) -> None:
    ask = asker(seen)
    records = seen.latest()
    for layer in range(LAYERS):
        whole = lens.rollout(records[: layer + 1])
        for item in range(ITEMS):
            row, column = (
                ask(f"rollout-{way}/{layer}/{item}/{token}") for way in ("row", "column")
            )
            torch.testing.assert_close(row, whole[item, token], **CLOSE)
            torch.testing.assert_close(column, whole[item, :, token], **CLOSE)


def test_rollout_stays_within_its_recording_and_stack() -> None:
    both, other = recordings.both(), batch(causal=True)
    ask = asker(other, both)
    layers = Catalogue(Volume(other, ""), Volume(both, "")).layers
    for stack in ("encoder", "decoder"):
        numbers = [
            number
            for number, one in enumerate(layers)
            if one.name.startswith(stack) and not one.is_cross
        ]
        assert len(numbers) == recordings.LAYERS
        whole = lens.rollout(both, layers=f"{stack}.*")[0]
        torch.testing.assert_close(ask(f"rollout-row/{numbers[-1]}/0/17"), whole[17], **CLOSE)
        torch.testing.assert_close(ask(f"rollout-column/{numbers[-1]}/0/2"), whole[:, 2], **CLOSE)


def test_layers_of_attention_across() -> None:
    both = recordings.both()
    ask, records = asker(both), both.latest()
    layer = next(i for i, record in enumerate(records) if record.is_cross)
    mean = records[layer].weights[0].mean(0)
    assert mean.shape == (recordings.TARGET, recordings.SOURCE)
    torch.testing.assert_close(ask(f"layer-row/{layer}/0/18"), mean[18], **CLOSE)
    torch.testing.assert_close(ask(f"layer-column/{layer}/0/22"), mean[:, 22], **CLOSE)
    with pytest.raises(OutOfRangeError, match="no token 19; there are 19"):
        ask(f"layer-row/{layer}/0/19")
    with pytest.raises(OutOfRangeError, match="no token 23; there are 23"):
        ask(f"layer-column/{layer}/0/23")
    with pytest.raises(ArgumentError, match="self-attention"):
        ask(f"rollout-row/{layer}/0/3")


def test_a_module_that_all_layers_share_has_no_rollout() -> None:
    torch.manual_seed(3)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 17, batch_first=True).eval()
    with torch.no_grad(), pellucid.watch(layer) as seen:
        layer(layer(torch.randn(1, TOKENS, WIDTH)))
    with pytest.raises(ArgumentError, match="several times in a row"):
        asker(seen)("rollout-row/0/0/3")


@pytest.mark.parametrize("name", ["layer-row", "layer-column", "rollout-row", "rollout-column"])
def test_what_there_is_not(name: str) -> None:
    ask = asker(batch(causal=False))
    for place in ("3/0/0", "0/2/0", f"0/0/{TOKENS}"):
        with pytest.raises(OutOfRangeError):
            ask(f"{name}/{place}")
