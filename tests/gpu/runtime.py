"""The CUDA runtime without a device (`runtime.c`), compiled once for a virtual environment, and put before the real one.

A CUDA build of torch then believes in an H100: autocast's lists, the kernel that attention takes, `device.type == "cuda"` and
the threads of autograd are those of one. Nothing of torch is imported here: the library must be there before it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

SOURCE = Path(__file__).with_name("runtime.c")
LIBRARY, DRIVER = "libcudart_none.so", "libcuda.so.1"


def believe() -> None:
    """Starts this process again with the runtime before torch's, if it has not got it.

    Ends with a sentence where torch is not a build for CUDA, or there is no C compiler.
    """
    if LIBRARY in os.environ.get("LD_PRELOAD", ""):
        return
    folder = compiled()
    os.environ |= {"LD_PRELOAD": str(folder / LIBRARY), "LD_LIBRARY_PATH": str(folder)}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    module = sys.modules["__main__"].__spec__
    program = [sys.argv[0]] if module is None else ["-m", module.name]
    os.execv(sys.executable, [sys.executable, *program, *sys.argv[1:]])


def compiled() -> Path:
    """The folder of both libraries, within the virtual environment, where nobody else writes."""
    packages = _packages()
    folder = Path(sys.prefix) / "gpu-rehearsal" / sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if (folder / DRIVER).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    driver = folder / "driver.c"
    driver.write_text(_driver(packages))
    include = [*packages.glob("nvidia/*/include"), packages / "triton" / "backends" / "nvidia" / "include"]
    compiler = ["cc", "-shared", "-fPIC", "-w", "-O1", *(f"-I{path}" for path in include)]
    try:
        subprocess.run([*compiler, str(SOURCE), "-o", str(folder / LIBRARY)], check=True)
        subprocess.run([*compiler, f"-Wl,-soname,{DRIVER}", str(driver), "-o", str(folder / DRIVER)], check=True)
    except FileNotFoundError:
        sys.exit("The rehearsal compiles a small library: install a C compiler (cc) and binutils (nm).")
    return folder


def _packages() -> Path:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        sys.exit("torch is not installed here: take `make gpu-rehearsal`, which makes an environment of its own.")
    packages = Path(found.origin).parents[1]
    if not (packages / "torch" / "lib" / "libtorch_cuda.so").exists():
        sys.exit(
            "torch is a build for the CPU here. The rehearsal needs the default build of Linux, for CUDA (5.6 GB with its "
            "libraries). pip prefers a +cpu wheel in a folder of wheels: remove the environment, and make it anew with "
            "PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= and an index that has the default build."
        )
    return packages


def _driver(packages: Path) -> str:
    """A driver of which every call fails, but for one: autograd asks whether the device is in use."""
    library = packages / "torch" / "lib" / "libcaffe2_nvrtc.so"
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    names = [line.split()[-1].split("@")[0] for line in listed.stdout.splitlines() if line.split()[-1].startswith("cu")]
    used = "cuDevicePrimaryCtxGetState"
    calls = [f"int {name}(void) {{ return 100; }}" for name in names if name != used]
    return "\n".join([*calls, f"int {used}(int d, unsigned *f, int *a) {{ *f = 0; *a = 1; return 0; }}"]) + "\n"


if __name__ == "__main__":
    print(compiled())
