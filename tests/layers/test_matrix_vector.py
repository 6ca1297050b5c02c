"""The compiled matrix products leave the rest of torch unchanged."""

import os
import subprocess
import sys

import pytest

COUNTS = """
import torch
torch.set_num_threads(1)
torch.get_num_threads()
from pellucid.layers.matrix_vector import cores
with cores() as parts:
    print(parts, torch.get_num_threads())
print(torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads():
    """Numba sets OpenMP's number of threads when it starts; torch would keep spinning three."""
    pytest.importorskip("numba")
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    ran = subprocess.run(
        [sys.executable, "-c", COUNTS], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["1", "1", "1"]
