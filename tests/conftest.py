"""What every test shares: no network, one thread, hypothesis without a clock."""

import gc
import os
import signal
from functools import partial

# Before anything imports transformers, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# As `torch.set_num_threads` below, for all libraries and for processes that tests start: threads of
# OpenMP that wait for cores which others have take several times as long as one.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

from pellucid.training import hardware
from tests.checkpoints import checkpoint  # noqa: F401  a fixture for all
from tests.command_line import refused, run  # noqa: F401  and two more

# Kernels in Triton run as Python where there is no GPU. Triton reads it when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A seed for a GPU that is not there is kept with a formatted stack, which costs a short test more
# than what it tests.
if not torch.accelerator.is_available():
    torch.manual_seed = torch.default_generator.manual_seed

# What a shell starts in the background ignores Ctrl-C, and so would all that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same sums in the same order on every machine, and no fight for cores between workers.
torch.set_num_threads(1)

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True, scope="session")
def _no_waiting():
    """What a machine can do at most is measured in no time: few tests read it, all would wait.

    Nor does a test wait for the disk: its files need not outlive a power cut.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "matrix_rate", partial(hardware.matrix_rate, seconds=0))
        patch.setattr(os, "fsync", os.fstat)
        yield


def pytest_collection_finish():
    """What was imported stays to the end: nobody need look through it again for what is free.

    Nor need anybody look as often as usual, which takes a tenth of the time of tests that build
    models: there is memory for what they leave.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))
