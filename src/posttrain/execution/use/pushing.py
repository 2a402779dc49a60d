"""A model that is sent to the hub: what would go, and the sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of the client that the installed version has
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from posttrain.errors import RecipeError, SetupError
from posttrain.execution.use.chosen import Chosen
from posttrain.train.watch.redaction import shareable

SENT = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.md",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.py",
    "LICENSE*",
)
"""Files of a model and its tokenizer."""
KEPT_BACK = ("manifest.json", "loop_*.json", "trainer_state.json", "ahead-*", "collection*", "note.json", "merge.json", ".*")
"""Of a checkpoint, what is for going on with training; of what was merged of which folders; and hidden files."""


@dataclass(frozen=True)
class Parcel:
    """What would be sent. files: path in the repository, and bytes."""

    folder: Path
    repository: str
    files: Sequence[tuple[str, int]]

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(size for _, size in self.files)


def packed(chosen: Chosen, repository: str) -> Parcel:
    """What would be sent of a model.

    Raises:
        RecipeError: it is no folder of this machine, the repository's name is none, or a file's text has a secret in it.
    """
    folder = Path(chosen.place)
    if not folder.is_dir():
        raise RecipeError(f"push: {chosen.place} is no folder of this machine; a model of the hub is there already.")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RecipeError(f"push: {str(error).splitlines()[0]}") from None
    if "/" not in repository:
        raise RecipeError(f"push: {repository} has no owner; OWNER/NAME is expected.")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_sent(path)]
    for path in paths:
        if path.suffix != ".safetensors" and shareable(text := path.read_text(errors="replace")) != text:
            raise RecipeError(
                f"push: {path} has what looks like a secret, or the path of your home folder, in it. Take it out, then push."
            )
    return Parcel(folder, repository, [(str(path.relative_to(folder)), path.stat().st_size) for path in paths])


def _is_sent(path: Path) -> bool:
    return any(map(path.match, SENT)) and not any(map(path.match, KEPT_BACK))


def send(parcel: Parcel, *, public: bool) -> str:
    """Makes the repository where it is not there, sends the files in one commit, and returns its address.

    Raises:
        SetupError: nobody is logged in, the hub cannot be reached, or it refuses.
    """
    if get_token() is None:
        raise SetupError("push: nobody is logged in to the hub. Run hf auth login, or set HF_TOKEN.")
    hub = HfApi()
    try:
        address = hub.create_repo(parcel.repository, private=not public, exist_ok=True)
        hub.upload_folder(
            repo_id=parcel.repository,
            folder_path=parcel.folder,
            allow_patterns=[name for name, _ in parcel.files],
            commit_message="Model trained with posttrain",
        )
    except OfflineModeIsEnabled:
        raise SetupError("push: HF_HUB_OFFLINE is set: nothing was sent. Unset it where the hub can be reached.") from None
    except HfHubHTTPError as error:
        raise SetupError(f"push: the hub refuses: {shareable(str(error).splitlines()[0])}") from error
    except (HTTPError, OSError) as error:
        raise SetupError(f"push: the hub cannot be reached: {shareable(str(error)) or type(error).__name__}") from error
    return str(address)
