"""Held-out accuracy of an instruction, by generation: the one evaluator of all contestants.

Invariant: a prompt is asked once for each task and model; its answers are kept in the folder of the runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.peers.job import ANSWERING, CONCURRENCY, first_label
from benchmarks.peers.server import ServerError
from benchmarks.peers.tasks import PeerTask
from benchmarks.repeated import Values
from pmpo_ray.engines.conversation import chat_messages
from pmpo_ray.text import error_line
from pmpo_ray.types import Example

_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The answers to the held-out rows by the rows' ids, and which of them are right."""

    values: Values
    answers: Mapping[str, str | None]

    @property
    def without_label(self) -> float:
        """The share of replies that name no label."""
        return list(self.answers.values()).count(None) / len(self.answers)


class Evaluator:
    """Measures prompts with the model that the server at `url` calls `model`. Its answers are kept in
    `folder`, under the name `weights`: servers may call several models the same."""

    def __init__(self, url: str, model: str, weights: str, folder: Path) -> None:
        self._url = url
        self._model = model
        self._weights = weights
        self._folder = folder

    def measure(self, task: PeerTask, instruction: str, shots: Sequence[Mapping[str, str]] = ()) -> Measured:
        """The accuracy of an instruction with its demonstrations. Raises ServerError if the server fails."""
        key = json.dumps([task.name, self._weights, instruction, list(shots), dict(ANSWERING)])
        file = self._folder / f"{task.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"answers": {}}
        left = [row for row in task.held_out if row.id not in known["answers"]]
        if left:
            demonstrations = [Example(str(n), s["input"], s["target"]) for n, s in enumerate(shots)]
            try:
                replies = asyncio.run(self._replies(instruction, demonstrations, [row.input for row in left]))
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = error_line(error)
                raise ServerError(f"{self._url}: {reason}; the same command continues the runs") from error
            for row, reply in zip(left, replies, strict=True):
                known["answers"][row.id] = first_label(reply, task.labels)
            known |= {"instruction": instruction, "shots": list(shots)}
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        answers = {row.id: known["answers"][row.id] for row in task.held_out}
        return Measured({row.id: float(answers[row.id] == row.target) for row in task.held_out}, answers)

    async def _replies(self, instruction: str, shots: Sequence[Example], inputs: Sequence[str]) -> list[str]:
        limit = asyncio.Semaphore(CONCURRENCY)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        # As in the proxy: a server may end a connection in the moment in which it is used again.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, raise_for_status=True
        ) as session:

            async def reply(text: str) -> str:
                messages = chat_messages("system", instruction, shots, text)
                body = {"model": self._model, "messages": messages, **ANSWERING}
                async with limit, session.post(f"{self._url}/chat/completions", json=body) as answer:
                    return str((await answer.json())["choices"][0]["message"]["content"] or "")

            return list(await asyncio.gather(*map(reply, inputs)))
