"""A recipe and a place → the text of a job, and the command that sends it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from posttrain.errors import RecipeError, SetupError
from posttrain.recipe import Recipe
from posttrain.recipe.beside import files_beside
from posttrain.recipe.code import parts_of
from posttrain.settings.data import PathSource
from posttrain.settings.model import Adapter, ModelConfig, TeacherConfig
from posttrain.train.watch.redaction import shareable

Place = Literal["docker", "slurm", "kubernetes"]
SENT_BY: Mapping[Place, Sequence[str]] = {"docker": ["bash"], "slurm": ["sbatch"], "kubernetes": ["kubectl", "apply", "-f"]}
SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN")
"""Variables of the environment that a job takes over where it is sent; their values are in no file."""
NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
DAYS = re.compile(r"(\d+-)?\d{1,2}:\d{2}:\d{2}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job is asked for, beside its recipe.

    name: of the job. nodes: machines. gpus: of each machine; 0 is a CPU's job. image: of containers. time: Slurm's, as
    DAYS-HH:MM:SS. cpus: of each machine. memory: Kubernetes' quantity. claim: the volume of Kubernetes that has runs and the
    hub's cache. secret: the one of Kubernetes whose keys are variables of the environment. options: more `#SBATCH` lines, or
    words of `docker run`.
    """

    name: str
    nodes: int = 1
    gpus: int
    image: str = "posttrain:gpu"
    time: str = "1-00:00:00"
    cpus: int = 8
    memory: str = "64Gi"
    claim: str = "posttrain"
    secret: str = "posttrain"
    options: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise RecipeError(f"--name {self.name}: small letters, digits and - are expected, a letter first, at most 53.")
        texts = (self.image, self.memory, self.claim, self.secret, *self.options)
        if not all(text and text.isprintable() for text in texts):
            raise RecipeError("launch: an option is empty, or has a line end or another character that does not print.")
        if DAYS.fullmatch(self.time) is None:
            raise RecipeError(f"--time {self.time}: DAYS-HH:MM:SS is expected, or HH:MM:SS.")


def gpus_of(recipe: Recipe) -> int:
    """Of one machine: one for each process, and those of the engine's servers that the run starts."""
    found = 0
    for one in recipe.stages or [recipe]:
        served = one.rollout.vllm if one.rollout is not None and one.rollout.engine == "vllm" else None
        on_their_own = 0
        if served is not None and served.mode == "server" and not served.addresses:
            on_their_own = len([device for device in served.devices if device != "cpu"]) or served.tensor_parallel_size
        found = max(found, one.distributed.processes + on_their_own)
    return found


def rendered(
    place: Place, job: Job, recipe: Recipe, path: Path, arguments: Sequence[str], *, shown: str | None = None
) -> str:
    """The text of the job.

    Args:
        place: where it runs.
        job: what is asked for.
        recipe: as it is read from the file with the arguments.
        path: the recipe's file.
        arguments: of `posttrain run`, after the recipe.
        shown: the name by which a recipe is found that travels with the package.

    Raises:
        RecipeError: the place cannot have what is asked, or a secret would stand in the file.
    """
    if place == "docker" and job.nodes > 1:
        raise RecipeError("launch --on docker: one machine; several are for slurm or kubernetes.")
    if place != "slurm" and (Path(recipe.output_dir).parts[:1] != ("runs",) or ".." in Path(recipe.output_dir).parts):
        raise RecipeError(
            f"launch --on {place}: output_dir: {recipe.output_dir}: the container keeps what is below runs/ alone. "
            "Give --set output_dir=runs/NAME."
        )
    beside = [] if shown is not None else list(files_beside(recipe, path).values())
    if place == "docker" and (outside := _outside(recipe, path)):
        raise RecipeError(
            f"launch --on docker: {', '.join(outside)}: the container reads the folder that the command is given in and "
            "what is below it. Give it from a folder that has all, or mount it, --option=--volume=FROM:TO:ro, and name "
            "it by its whole path there."
        )
    if place == "docker" and path.is_absolute() and beside:
        raise RecipeError(
            f"launch --on docker: {', '.join(beside)}: the container has the recipe's file, and not what lies beside it. "
            "Name the recipe from the folder that has both: the container reads that one."
        )
    above = [] if shown is not None else list(_above(recipe, path))
    local = [*_local_files(recipe.model_dump()), *_models(recipe), *beside, *above]
    if place == "kubernetes" and local:
        raise RecipeError(
            f"launch --on kubernetes: {', '.join(local)}: the pod has no files of this folder. Put them into the claim's hub/"
            " (/hub in the pod) and name them by their whole path, or take a data set of the hub and an installed package."
        )
    values: dict[str, Any] = {
        "job": job,
        "recipe": shown or path.as_posix(),
        "is_file": shown is None,
        "is_absolute": path.is_absolute(),
        "text": path.read_text(encoding="utf-8"),
        "words": shlex.join(arguments),
        "arguments": list(arguments),
        "secrets": SECRETS,
        "processes": max(one.distributed.processes for one in recipe.stages or [recipe]),
    }
    text = _template(place).render(**values)
    if shareable(text) != text:
        raise RecipeError(
            "launch: the recipe or an option has what looks like a secret, or the path of your home folder, and it would "
            "stand in the job's file. Give secrets by variables of the environment, and paths that the job's machine has."
        )
    return text


def _outside(recipe: Recipe, path: Path) -> list[str]:
    """Data, and folders of models, that are named from here or from the recipe's file, and are not below this folder."""
    from_here = [name for name in (*_data(recipe), *_models(recipe)) if not os.path.isabs(name)]
    placed = {name: os.path.abspath(os.path.expanduser(name)) for name in from_here}
    above = _above(recipe, path)
    return [
        name
        for name, whole in {**placed, **above}.items()
        if not Path(whole).is_relative_to(Path.cwd()) or (path.is_absolute() and name in above)
    ]


def _above(recipe: Recipe, path: Path) -> dict[str, str]:
    """Data that were found from the recipe's file, above its folder: by the name that they have from there."""
    here, said = os.path.abspath(path.parent), path.read_text(encoding="utf-8")
    found = [whole for whole in _data(recipe) if os.path.isabs(whole) and os.pardir in Path(whole).parts]
    return {os.path.relpath(whole, here): os.path.abspath(whole) for whole in found if whole not in said}


def _data(recipe: Recipe) -> list[str]:
    of_files = [part.path for part in parts_of(recipe) if isinstance(part, PathSource)]
    return [path for given in of_files for path in ([given] if isinstance(given, str) else given)]


def _models(recipe: Recipe) -> list[str]:
    """Those that are folders here, by no whole path."""
    kinds = (ModelConfig, TeacherConfig, Adapter)
    keys = ("name", "adapter", "continue_from")
    found = [getattr(part, key, None) for part in parts_of(recipe) if isinstance(part, kinds) for key in keys]
    named = [one for one in found if isinstance(one, str)]
    return [name for name in dict.fromkeys(named) if not os.path.isabs(name) and os.path.isdir(name)]


def _local_files(values: Any) -> Iterator[str]:
    """Relative paths of data in a recipe; those of code are whole, or name a module."""
    if isinstance(values, Mapping):
        paths = values.get("path") if "name" not in values else None
        yield from (path for path in ([paths] if isinstance(paths, str) else paths or ()) if not Path(path).is_absolute())
    for one in values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ():
        yield from _local_files(one)


def send(place: Place, text: str) -> tuple[int, str]:
    """Sends the job, and returns the exit code and what was said. Docker runs it here: its code is the run's.

    Raises:
        SetupError: the command is not there, or it fails.
    """
    words = SENT_BY[place]
    needed = "docker" if place == "docker" else words[0]
    if shutil.which(needed) is None:
        raise SetupError(
            f"launch --submit: {needed} is not on this machine. Print the file without --submit, and send it there."
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"job{'.yaml' if place == 'kubernetes' else '.sh'}")
        file.write_text(text, encoding="utf-8")
        done = subprocess.run([*words, str(file)], capture_output=place != "docker", text=True)
    if done.returncode and place != "docker":
        raise SetupError(f"launch --submit: {words[0]} ended with {done.returncode}: {(done.stderr or '').strip()}")
    return done.returncode, (done.stdout or "").strip()


@cache
def _template(place: Place) -> Any:
    import jinja2

    endings = {"docker": "docker.sh", "slurm": "slurm.sh", "kubernetes": "kubernetes.yaml"}
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    found = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    found.filters.update(
        quoted=shlex.quote, indented=lambda text: "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    )
    return found.get_template(f"{endings[place]}.jinja")
