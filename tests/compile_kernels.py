"""Compile the Triton kernels as their launchers do, also for GPUs that are not present, and report spills.

Run in a separate process, without TRITON_INTERPRET:  python tests/compile_kernels.py
Prints registers and spilled bytes per kernel and target; exits with 1 if a kernel spills.
"""

import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

MODULES = ["secondeye.splat.kernel", "secondeye.warp.kernel"]  # each defines CONFIGURATIONS
TARGETS = [GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)]


class Compiled(NamedTuple):
    registers: int  # per thread
    spilled_bytes: int  # per thread
    assembly: str  # PTX or AMD's


def compile_kernel(
    configuration: Any,  # secondeye.imaging.backends.Configuration
    target: GPUTarget,
) -> Compiled:
    """Compile for a target that need not be present. torch aligns its allocations to 16 bytes."""
    kernel, types, constants, options = configuration
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    assembly = triton.compile(source, target=target, options=options).asm
    if target.backend == "cuda":
        return _measure_ptx(assembly["ptx"], target.arch)
    return _measure_amdgcn(assembly["amdgcn"])


def _measure_ptx(ptx: str, capability: int) -> Compiled:
    """Run Triton's ptxas, which reports on stderr."""
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    suffix = "a" if capability >= 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [str(ptxas), "-v", f"--gpu-name=sm_{capability}{suffix}", str(path), "-o", f"{path}.cubin"]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    spilled = _single_int(r"(\d+) bytes spill stores", report)
    return Compiled(_single_int(r"Used (\d+) registers", report), spilled, ptx)


def _measure_amdgcn(assembly: str) -> Compiled:
    spilled = sum(_single_int(rf"\.{kind}_spill_count:\s+(\d+)", assembly) for kind in ("vgpr", "sgpr"))
    return Compiled(_single_int(r"\.vgpr_count:\s+(\d+)", assembly), 4 * spilled, assembly)


def _single_int(pattern: str, report: str) -> int:
    (found,) = re.findall(pattern, report)
    return int(found)


def main() -> int:
    spills = False
    for module in MODULES:
        for configuration in import_module(module).CONFIGURATIONS:
            images = "uint8" if "*u8" in configuration.types.values() else "float32"
            name = f"{module}.{configuration.kernel.__name__}"
            for target in TARGETS:
                compiled = compile_kernel(configuration, target)
                counts = f"{compiled.registers:4} registers {compiled.spilled_bytes:5} B spilled"
                print(f"{name:44} {images:8} {target.backend} {target.arch!s:7} {counts}")
                spills |= compiled.spilled_bytes > 0
    return 1 if spills else 0


if __name__ == "__main__":
    sys.exit(main())
