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

busy = sys.argv[1] == "busy"
torch.manual_seed(1)
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

def loop(stop):
    while not stop.is_set():
        compute()

for threads in map(int, sys.argv[2:]):
    torch.set_num_threads(threads)
    expected, stop = compute(), threading.Event()
    other = threading.Thread(target=loop, args=[stop])
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
        assert os.waitpid(child, 0)[1] == 0, threads
    stop.set()
    if busy:
        other.join()
"""


@pytest.mark.parametrize(
    ("state", "threads"), [("busy", "1 2"), pytest.param("idle", "2", marks=pytest.mark.slow)]
)
def test_a_forked_child_computes_what_its_parent_does(state, threads):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, state, *threads.split()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
