"""The process of a vLLM server: started on the loopback, and ended with the run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.distributed.signals import end_with_parent

LOG_LINES = 15  # of its output, quoted where it fails
ENDS_WITHIN = 10.0  # seconds for it to end by itself
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}  # where nobody says otherwise


class ServerProcess:
    """`vllm serve` as a child, which the kernel ends when the trainer is killed.

    Args:
        arguments: vLLM's own, by name.
        log: the file for its output.
        environment: variables that it has beside those of this process.
    """

    def __init__(self, arguments: Mapping[str, Any], log: Path, environment: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._log = f"http://127.0.0.1:{port}", log
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
        for name, value in arguments.items():
            flag = name.replace("_", "-")
            command += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={**ENVIRONMENT, **os.environ, "VLLM_SERVER_DEV_MODE": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
            )

    @property
    def pid(self) -> int:
        """Also the number of its group."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit status, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # a connection breaks a moment before its process is gone
        return self._process.returncode

    def last_words(self) -> str:
        """The end of its output, as a part of an error."""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:] if self._log.is_file() else []
        return "Its last words:\n" + "\n".join(lines) if lines else ""

    def close(self) -> None:
        """Ends it and all processes of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)  # a stopped one cannot end
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
