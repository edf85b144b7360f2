"""The server that all contestants share: vLLM on this machine's processors, or one that runs already.

Invariant: a server that was started here listens on loopback alone, and ends with the `with` block, with all
processes of its own and no other one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pmpo_ray.engines.hf.devices import choose_dtype
from pmpo_ray.errors import PmpoError

_START_SECONDS = 600.0
_END_SECONDS = 60.0
_CONTEXT = 8192
_CACHE_GB = 2


class ServerError(PmpoError):
    """The server does not start, or does not answer."""


def served_model(url: str) -> str:
    """The name of the only model of a server. Raises ServerError if it does not answer or has several."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=30) as answer:  # noqa: S310 - the user's server
            names = [str(model["id"]) for model in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{url}: no OpenAI-compatible server answers ({error}); start one there") from error
    if len(names) != 1:
        raise ServerError(f"{url}: serves {len(names)} models; it has to serve the one of --model alone")
    return names[0]


@contextmanager
def vllm_server(model: str, log: Path) -> Iterator[str]:
    """The address of a vLLM server with `model` (a folder or a name on the hub). Raises ServerError."""
    port = _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(model, port),
            env={**os.environ, **_environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group, so that the engine's process ends with it and nothing else does.
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _wait(process, url, log)
        yield url
    finally:
        end_group(process)


def _command(model: str, port: int) -> list[str]:
    dtype = str(choose_dtype("auto", "cpu")).removeprefix("torch.")
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--max-model-len", str(_CONTEXT)),
        *("--enforce-eager", "--block-size", "32", "--disable-uvicorn-access-log"),
        # Or else it would sample as the model's files say where a request says nothing.
        *("--generation-config", "vllm"),
    ]


def _environment() -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GB),
        # It would leave one core unused, and on two cores that is half of the machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        # Its waiting threads must not take the cores from a contestant that scores in its own process.
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            served_model(url)
            return
        except ServerError:
            time.sleep(0.5)
    raise ServerError(f"vLLM did not start; {log} says why (make install VLLM=1 installs it)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, and what is left of the group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
