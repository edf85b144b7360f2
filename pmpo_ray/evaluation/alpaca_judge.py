"""The judge of AlpacaEval: the package's prompts, sent to a model at an OpenAI-compatible endpoint.

Invariants: the key goes to the endpoint alone; a text of an output never ends the message that quotes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import EndpointConfig, ReplicaConfig
from pmpo_ray.engines.openai.client import Endpoint
from pmpo_ray.errors import EngineError
from pmpo_ray.text import shortened

_REPLY_CHARACTERS = 80
_TURN, _END = "\ue0f0turn\ue0f0", "\ue0f0end\ue0f0"
"""Replacements for ChatML's marks in templates: outputs of models may contain the real ones."""


def without_chat_marks(template: str) -> str:
    """A template with ChatML's marks replaced by marks that no output contains, as `Judge` expects it."""
    return template.replace("<|im_start|>", _TURN).replace("<|im_end|>", _END)


class Judge:
    """The model that receives the package's prompts. `last` describes its last reply, and `refusal` is the
    error of the last prompt that it did not accept, empty if it accepted all."""

    def __init__(self, settings: EndpointConfig, runner: asyncio.Runner) -> None:
        # Error messages name the endpoint by its role.
        self._endpoint = Endpoint("judge", ReplicaConfig(endpoint=settings))
        self._runner = runner
        self.where = self._endpoint.where
        self.model = ""
        self.last = "it received no prompt"
        self.refusal = ""

    def find(self, model: str) -> None:
        """Select `model`. Raises ModelError if the server has no model of that name."""
        self.model = self._runner.run(self._endpoint.find_model(model, named=True)).name

    def complete(self, prompts: Sequence[str], **fields: Any) -> dict[str, list[Any]]:
        """The replies in the form that the package's parsers expect: the texts, and the texts with their
        log-probabilities. `fields` are the parameters of the published annotator, including its model."""
        parameters = {"top_p": 1.0, **fields, **self._endpoint.parameters, "model_name": None}
        fields = {name: value for name, value in parameters.items() if value is not None}
        replies = self._runner.run(gather_or_cancel(self._reply(prompt, fields) for prompt in prompts))
        return {"completions": [reply["text"] for reply in replies], "completions_all": replies}

    def close(self) -> None:
        """Close the connections to the endpoint."""
        self._runner.run(self._close())

    async def _close(self) -> None:
        self._endpoint.close()
        # Requests that were cancelled because another one failed may still be running.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _reply(self, prompt: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        messages: Any = _turns(prompt)
        try:
            async with self._endpoint.request() as client:
                # In the body, because the client may not know a user's parameters.
                completion: Any = await client.chat.completions.create(
                    model=self.model, messages=messages, extra_body=dict(fields)
                )
        except EngineError as error:
            # One pair that the judge does not accept, such as one too long for it, is undecided.
            self.last = self.refusal = str(error)
            return {"text": "", "logprobs": None}
        # For an answer that is not JSON the client returns its text; for missing fields, None.
        if isinstance(completion, str) or not completion.choices:
            raise self._endpoint.not_compatible("without any choice")
        text = completion.choices[0].message.content or ""
        logprobs = _first_token(completion.choices[0])
        self.last = f"its last reply is {shortened(text, _REPLY_CHARACTERS)!r}"
        if fields.get("logprobs") and logprobs is None:
            self.last += ", without log-probabilities, which method 'plain' does not need"
        return {"text": text, "logprobs": logprobs}


def _turns(prompt: str) -> list[dict[str, str]]:
    """The messages of a completed template."""
    turns = (turn.partition("\n") for turn in prompt.split(_TURN)[1:])
    return [{"role": role.strip(), "content": text.partition(_END)[0].strip()} for role, _, text in turns]


def _first_token(choice: Any) -> dict[str, Any] | None:
    """The log-probabilities of a reply's first token, in the form that the package's parser expects."""
    content = choice.logprobs.content if choice.logprobs is not None else None
    return {"content": [content[0].model_dump()]} if content else None
