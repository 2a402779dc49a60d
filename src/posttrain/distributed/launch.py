"""Starts the command line again, once for each process of this machine; and ends such a process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import psutil

from posttrain.distributed.signals import SIGNALS
from posttrain.errors import SetupError

MEETING = 900  # seconds in which the launchers of all machines are there


def launch(arguments: Sequence[str], processes: int, *, module: str = "posttrain") -> int:
    """Runs `python -m module` with these arguments in every process, and returns the exit code of the first that failed,
    or 0; one that a signal ended could not say so itself, and has 128 and the signal's number.

    When one fails the others are ended. Signals that ask a run to end are handed on to every process. torchrun's launcher
    does the work; it is called here so that the exit code of a process is not lost. On several machines it is called on
    each, with torchrun's variables: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory() as folder, _silent():
        config = LaunchConfig(
            nproc_per_node=processes,
            **_meeting(),
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle="SIGHUP,SIGQUIT",
        )
        for number in SIGNALS:
            signal.signal(number, _hand_on)
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            if failure.exitcode >= 0:
                return failure.exitcode
            outside = " It comes from outside: most often the machine's memory was full."
            message = f"error: rank {rank} was ended by {failure.signal_name()}."
            print(message + outside * (failure.exitcode == -signal.SIGKILL), file=sys.stderr)
            return 128 - failure.exitcode
        except SignalException as ended:
            return 128 + ended.sigval
    return 0


def nodes() -> int:
    """Machines of the launch, by torchrun's variable."""
    given = os.environ.get("PET_NNODES", "1")
    if not given.isdigit():
        raise SetupError(f"PET_NNODES={given}: a number of machines is expected; torchrun takes a range of them, not this.")
    return int(given)


def _meeting() -> dict[str, Any]:
    """How the launchers of a run find each other: there is one, or they meet where torchrun's variables say."""
    if nodes() == 1:
        here = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost", "run_id": uuid.uuid4().hex}
        return {"min_nodes": 1, "max_nodes": 1, **here}
    address, port = os.environ.get("PET_MASTER_ADDR", "localhost"), os.environ.get("PET_MASTER_PORT", "29500")
    rank = int(os.environ.get("PET_NODE_RANK", "0"))
    there = {"rdzv_backend": "static", "rdzv_endpoint": f"{address}:{port}", "run_id": f"posttrain-{port}"}
    return {"min_nodes": nodes(), "max_nodes": nodes(), **there, "rdzv_configs": {"rank": rank, "timeout": MEETING}}


def leave(ended: BaseException) -> NoReturn:
    """Ends this process as Python would after this exception (`SystemExit` brings the code), but does not take Python down.

    What is registered to be done at exit is done. But gloo's threads drop the tensors of an exchange a moment after it is
    over, and need the interpreter for it; one that asks for it while it is being taken down aborts the process: a run that
    has done all would exit with SIGABRT.
    """
    code = ended.code if isinstance(ended, SystemExit) else 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    if not isinstance(ended, SystemExit):
        sys.excepthook(type(ended), ended, ended.__traceback__)
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _hand_on(number: int, frame: FrameType | None) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The launcher logs every failure; the process that failed has told it better."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
