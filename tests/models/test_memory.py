"""Loading holds little more than the model at any moment: weights are used where the file is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MOST = 1.2
"""Times the size of the model, or of its file if that is larger."""
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_little_more_than_the_model_is_held():
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "tests.models.load_memory"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    assert len(found) == 8
    for name, (most, own) in found.items():
        assert most <= MOST, name
        stored, used = name.partition(", ")[2].split(" as ")
        if name.startswith("as it is") and stored == used:
            assert own <= 0.2, f"{name}: weights in their own dtype were copied"
