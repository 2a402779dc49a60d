"""What of this machine a training would stumble over: findings, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

GB = 10**9
ROOM, SHARED = 20 * GB, GB  # of a disk, for a few checkpoints; of /dev/shm, for processes that talk through it
DEADLINE = 180.0  # seconds for a package to be imported in a process of its own
REACHED = 5.0  # seconds in which the hub answers
DRIFT = 120.0  # seconds that the clock may be off
CHILDREN = {"vllm": "import vllm", "deepspeed": "import deepspeed"}
"""Optional packages that may be installed and broken, and how that shows."""

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. note: a person may want to change it; bad: trainings fail or are much slower."""

    level: Level
    what: str
    found: str
    advice: str = ""


def findings(*, train: bool, deep: bool) -> Iterator[Finding]:
    """All, as they are found.

    Args:
        train: three steps of training are made, in a folder that is deleted.
        deep: optional packages are imported, each in a process of its own, and the hub is asked.
    """
    looks: list[Callable[[], Iterator[Finding]]] = [_versions, _devices, _memory, _threads, _disk]
    looks += [_imports, _hub] if deep else []
    looks += [_training] if train else []
    for look in looks:
        yield from look()


def as_json(found: list[Finding]) -> dict[str, Any]:
    """For programs."""
    return {"findings": [asdict(one) for one in found], "bad": sum(one.level == "bad" for one in found)}


def _versions() -> Iterator[Finding]:
    yield Finding("good", "python", f"{platform.python_version()}, {platform.platform(terse=True)}")
    from packaging.requirements import Requirement

    good = list[str]()
    for text in requires("posttrain") or ():
        wanted = Requirement(text)
        extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            if not extra:
                yield Finding("bad", wanted.name, "not installed", f"pip install '{wanted.name}{wanted.specifier}'")
            continue
        if wanted.specifier.contains(there, prereleases=True):
            good += [] if extra else [f"{wanted.name} {there}"]
        elif not extra or wanted.name in CHILDREN:
            advice = f"It is used with {wanted.specifier}: pip install '{wanted.name}{wanted.specifier}'"
            yield Finding("bad", wanted.name, there, advice)
    yield Finding("good", "packages", ", ".join(good))


def _devices() -> Iterator[Finding]:
    import torch

    from posttrain.model.layers import products

    files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not torch.cuda.is_available():
        by = "oneDNN" if products.here() else "torch's own choice"
        processor = f"{os.cpu_count()} processors, {torch.backends.cpu.get_cpu_capability()}"
        yield Finding("good", "device", f"CPU, {processor}, products of float32 by {by}")
        if files:
            build = "is a build without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
            yield Finding("bad", "GPUs", f"{files}, which torch does not see", f"torch {torch.__version__} {build}.")
        return
    for i in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(i)
        name, bf16 = torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i) >= (8, 0)
        found = f"{name}, {free / GB:.0f} of {whole / GB:.0f} GB free"
        if free < 0.9 * whole:
            yield Finding("note", f"GPU {i}", found, "Others use it: nvidia-smi says who.")
        else:
            yield Finding("good", f"GPU {i}", found)
        if not bf16:
            yield Finding("note", f"GPU {i}", "has no bfloat16", "Set model.compute: float32.")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    yield Finding("good", "memory", f"{memory.available / GB:.0f} of {memory.total / GB:.0f} GB available")
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").total
        advice = "Several processes and vLLM talk through it: docker run --ipc=host, or --shm-size=8g."
        if size < SHARED:
            yield Finding("bad", "/dev/shm", f"{size / 10**6:.0f} MB", advice)


def _threads() -> Iterator[Finding]:
    import torch

    given, here = os.environ.get("OMP_NUM_THREADS"), len(os.sched_getaffinity(0))
    found = f"{torch.get_num_threads()} of torch, {here} processors, OMP_NUM_THREADS {given or 'not set'}"
    if torch.get_num_threads() > here:
        yield Finding("bad", "threads", found, f"More threads than processors wait for each other: OMP_NUM_THREADS={here}.")
    else:
        yield Finding("good", "threads", found)


def _disk() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for what, path in (("this folder", Path.cwd()), ("the hub's cache", Path(HF_HUB_CACHE))):
        there = next(one for one in (path, *path.parents) if one.is_dir())
        free = shutil.disk_usage(there).free
        found = f"{path}: {free / GB:.0f} GB free"
        if not os.access(there, os.W_OK):
            yield Finding("bad", what, f"{path}: cannot be written", "Take another folder, or another owner.")
        elif free < ROOM:
            yield Finding("note", what, found, "A checkpoint has two to four times the size of the model.")
        else:
            yield Finding("good", what, found)


def _imports() -> Iterator[Finding]:
    for name, code in CHILDREN.items():
        if find_spec(name) is None:
            yield Finding("good", name, "not installed", f"Where it is wanted: pip install 'posttrain[{name}]'")
            continue
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            yield Finding("bad", name, f"is not imported within {DEADLINE:.0f} s", "Its files may lie on a slow disk.")
            continue
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode:
            yield Finding("bad", name, f"cannot be imported: {last}", f"pip install --force-reinstall 'posttrain[{name}]'")
        else:
            yield Finding("good", name, "can be imported")


def _hub() -> Iterator[Finding]:
    import httpx
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    login = "logged in" if get_token() else "not logged in"
    if is_offline_mode():
        yield Finding("note", "hub", f"HF_HUB_OFFLINE is set, {login}", "Models and data are taken from the cache only.")
        return
    try:
        answer = httpx.head(ENDPOINT, timeout=REACHED, follow_redirects=True)
    except (httpx.HTTPError, OSError) as error:
        advice = "Models and data must be folders of this machine, or in the cache; HF_HUB_OFFLINE=1 saves the waiting."
        yield Finding("note", "hub", f"{ENDPOINT} does not answer ({type(error).__name__}), {login}", advice)
        return
    yield Finding("good", "hub", f"{ENDPOINT} answers, {login}")
    if "date" in answer.headers:
        off = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
        if abs(off) > DRIFT:
            yield Finding("bad", "clock", f"{off:+.0f} s off", "Certificates and logins fail: set the clock (NTP).")


def _training() -> Iterator[Finding]:
    from posttrain.errors import PosttrainError
    from posttrain.execution.runner import run
    from posttrain.recipe import load_recipe
    from posttrain.recipe.by_name import SHIPPED

    with tempfile.TemporaryDirectory(prefix="posttrain-doctor-") as folder:
        changes = ["training.max_steps=3", "training.rows_per_step=8", "data.train.rows=64", "stages=[]", "data.eval={}"]
        began = time.monotonic()
        try:
            recipe = load_recipe(SHIPPED / "quickstart.yaml", [*changes, "algorithm.name=sft", f"output_dir={folder}/run"])
            result = run(recipe)
        except PosttrainError as error:
            yield Finding("bad", "three steps of training", str(error))
            return
        seconds, loss = time.monotonic() - began, result.metrics["loss"]
        yield Finding("good", "three steps of training", f"{seconds:.1f} s with saving, loss {loss:.3f} at the last")
