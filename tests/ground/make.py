"""`make real-models`: installs the pinned packages outside of the repository and makes plain folders of what they ship.

A folder is made beside its place and renamed when it is whole. What is there, of the same pins, is left as it is.
REAL_MODELS_MORE=1 makes the folders of Llama and Gemma too: whoever asks for them accepts the terms of their makers.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ground.catalogue import CATALOGUE, STAMP, Made, root


def stamp(made: Made) -> dict[str, Any]:
    """What a folder is made of: packages, the libraries that convert, and the code that does."""
    code = (Path(__file__).parent / "convert.py").read_bytes()
    libraries = {name: version(name) for name in ("transformers", "tokenizers", "trl")}
    return {"packages": list(made.packages), "libraries": libraries, "code": hashlib.sha256(code).hexdigest()}


def missing(made: Made) -> list[str]:
    """The folders that are not there, or were made of something else. A folder that was not made here is never replaced."""
    wanted: list[str] = []
    for name in made.folders:
        place = root() / name
        if not place.exists():
            wanted.append(name)
        elif not (place / STAMP).is_file():
            sys.exit(f"{place} was not made by `make real-models`; move it away, or name another folder")
        elif json.loads((place / STAMP).read_text()) != stamp(made):
            wanted.append(name)
    return wanted


def install(packages: tuple[str, ...], site: Path) -> None:
    """The packages alone, without what they ask for, into a folder of their own."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *packages]
    subprocess.run(pip, check=True)


def make(made: Made, names: list[str], site: Path, folder: Path) -> None:
    """Makes the folders, looks at the ids of their tokens, and puts each at its place."""
    from ground import convert  # torch, and what has just been installed

    for name in names:
        convert.make(name, site, folder / name)
        convert.check_ids(folder / name, made.ids)
        (folder / name / STAMP).write_text(json.dumps(stamp(made), indent=1) + "\n")
        shutil.rmtree(root() / name, ignore_errors=True)
        (folder / name).rename(root() / name)


def main() -> None:
    """Makes what is missing."""
    wanted = [made for made in CATALOGUE if not made.more or os.environ.get("REAL_MODELS_MORE") == "1"]
    root().mkdir(parents=True, exist_ok=True)
    with (root() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        todo = [(made, names) for made in wanted if (names := missing(made))]
        if todo:
            with tempfile.TemporaryDirectory(prefix=".making-", dir=root()) as making:
                site = Path(making) / "site"
                install(tuple({package: None for made, _ in todo for package in made.packages}), site)
                sys.path.append(str(site))
                importlib.invalidate_caches()
                for made, names in todo:
                    started = time.monotonic()
                    make(made, names, site, Path(making))
                    print(f"made {', '.join(names)} in {time.monotonic() - started:.0f} s", flush=True)
    print(f"POSTTRAIN_REAL_MODELS={root()}")


if __name__ == "__main__":
    main()
