"""Products by tiles with each set of instructions that this processor has, and with fewer."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from llvmlite import binding

AVX2 = ("avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
SETS = {
    "x86-64": ((), 8),
    "haswell": (AVX2, 8),
    "skylake-avx512": (AVX512, 16),
    "icelake-server": ((*AVX512, "avx512vnni"), 16),
}
"""By the name that LLVM has for a processor: what it has, and how many float32 it multiplies."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in ("haswell", "icelake-server") else [pytest.mark.slow]
        )
        for name in SETS
    ],
)
def test_products_with_each_set_of_instructions(name, tmp_path):
    features, lanes = SETS[name]
    own = binding.get_host_cpu_features()
    if not own.get("sse2") or not all(own.get(feature) for feature in features):
        pytest.skip(f"this processor is no {name}")
    told = {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in features),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "tests.layers.instruction_sets"]
    ran = subprocess.run(command, env=os.environ | told, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert max(found["errors"]) <= 1
    assert found["lanes"] == lanes
    assert not found["has_amx"]
    has = found["instructions"]
    assert ("zmm" in has) == ("avx512f" in features)
    assert ("vpmaddubsw" in has) == ("avx2" in features)
    assert ("vpdpwssd" in has) == ("avx512vnni" in features)
