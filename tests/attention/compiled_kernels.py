"""Compiles the kernels for GPUs that need not be there: python -m tests.attention.compiled_kernels.

Prints a line of figures for each: its shared memory in bytes, its registers and those spilled.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pellucid.attention import triton_statistics
from pellucid.attention.triton_statistics import kernels

TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
POINTERS = {
    "begins": "*i32",
    "ends": "*i32",
    "plan": "*i32",
    "indices_out": "*i32",
    "offsets": "*i64",
    "scale": "fp32",
    "softcap": "fp32",
}


def compile_one(name: str, capability: int, dim: int, dtype: torch.dtype, option: str) -> object:
    kernel = getattr(kernels, name)
    tile = triton_statistics.tile_of(dim, dtype, option == "bias")
    constants = {
        "DIM": dim,
        "WIDTH": max(16, 1 << (dim - 1).bit_length()),
        "BIAS": option == "bias",
        "SOFTCAP": option == "softcap",
        "PRECISION": "ieee",
    }
    if name == "pooled":
        constants |= {"ROWS": tile.read, "COLS": tile.read, "MEAN": True}
    elif name == "received":
        constants |= {"COLS": tile.resident, "ROWS": tile.read}
    else:
        constants |= {"ROWS": tile.resident, "COLS": tile.read, "TOP": 3, "SLOTS": 4}
        constants |= {"ENTROPY": True, "DISTANCE": True, "PEAK": True}
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in ("query", "key", "bias"):
            signature[argument] = TYPES[dtype]
        elif argument == "lse" or (argument.endswith("out") and argument not in POINTERS):
            signature[argument] = "*fp32"
        else:
            signature[argument] = POINTERS.get(argument, "i32")
    # As at run time: strides and pointers that 16 divides, and a last stride of 1.
    dims = {a: 1 for a in kernel.arg_names if a.endswith("stride_dim")}
    for argument in dims:
        signature[argument] = "constexpr"
    source = ASTSource(
        kernel,
        signature,
        constexprs={(kernel.arg_names.index(n),): v for n, v in (constants | dims).items()},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, a in enumerate(kernel.arg_names)
            if signature[a].startswith("*") or a.endswith(("_stride", "_head", "_item"))
        },
    )
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def registers(cubin: bytes, capability: int) -> str:
    """What ptxas says of it, where cuobjdump is at hand."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return ""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout + said.stderr)
    return f", {found[1]} registers, {found[2]} bytes of stack" if found else ""


def main() -> None:
    for case in sys.argv[1:]:
        name, capability, dim, dtype, option = case.split(",")
        one = compile_one(name, int(capability), int(dim), getattr(torch, dtype), option)
        used = registers(one.asm["cubin"], int(capability))
        print(f"{case}: {one.metadata.shared} bytes shared{used}")


if __name__ == "__main__":
    main()
