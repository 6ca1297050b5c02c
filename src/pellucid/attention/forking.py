"""What a forked child does without: the threads of its parent, which do not survive a fork.

A child of `os.fork`, of multiprocessing's "fork" or of a DataLoader inherits the pools of OpenMP
and Numba without their threads, and waits for them forever; GNU OpenMP ends the process. Here it
goes on with one thread, and in torch alone.
"""

import os
import sys
import warnings

import torch

_is_child = _had_numba = False


def _enter_child() -> None:
    global _is_child, _had_numba
    _is_child, _had_numba = True, "numba" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_enter_child)


def may_compile() -> bool:
    """Whether Numba can be used: not in a child whose parent used it before the fork."""
    return not _had_numba


def go_alone() -> None:
    """In a forked child with several threads, go on with one, with a RuntimeWarning."""
    if _is_child and (threads := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        warnings.warn(
            f"this process was forked from another, whose {threads} threads it lacks: it goes on "
            "with one; start processes by 'spawn' or 'forkserver' to use more",
            RuntimeWarning,
            stacklevel=3,
        )
