"""What a forked child computes, in processes of their own: a hang or a crash ends no test run."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SCRIPT = """
import os, sys, threading, warnings
import torch
import pellucid
from pellucid.attention import attention
from pellucid.models import Config, Decoder

threads, busy = int(sys.argv[1]), sys.argv[2] == "busy"
torch.manual_seed(1)
torch.set_num_threads(threads)
shape = Config(kind="decoder", vocabulary=37, width=64, heads=2, layers=2, hidden=96)
model = Decoder(shape).eval()
query, key, value = (torch.randn(3, 1031, 16) for _ in range(3))

@torch.no_grad()
def compute():
    cache, ids = model.cache(1, 20), torch.tensor([[2, 3, 5]])
    rows = [model(ids, cache=cache, last=True), model(ids[:, :1], cache=cache, last=True)]
    context, weights = attention(query, key, value)
    results = (*rows, context, weights.received())
    return torch.cat([x.flatten() for x in results])

expected, stop = compute(), threading.Event()

def loop():
    while not stop.is_set():
        compute()

other = threading.Thread(target=loop)
if busy:
    other.start()
for _ in range(3):
    child = os.fork()
    if not child:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = (compute() - expected).abs().max().item()
        said = [str(w.message) for w in caught if "forked" in str(w.message)]
        alone = torch.get_num_threads() == 1
        os._exit(0 if error < 1e-4 and alone and len(said) == (threads > 1) else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
"""


@pytest.mark.parametrize(
    ("threads", "state"),
    [(1, "busy"), pytest.param(2, "idle", marks=pytest.mark.slow), (2, "busy")],
)
def test_a_forked_child_computes_what_its_parent_does(threads, state):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads), state],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
