"""A proxy in front of an OpenAI-compatible server that counts the tokens of every run and keeps its budget.

    POST /RUN/ROLE/v1/...   is forwarded to the server, and counted for the run and the role
    GET  /RUN               tells what was counted for the run

Invariants: tokens are those of the server's `usage`, prompts in full whether or not a part of them was
cached; nothing that costs tokens passes uncounted, so streams and unknown paths are refused; a request that
comes after the budget is spent is refused with status 403, which no client repeats. Requests in flight at
that moment are finished and counted, so that a run may take a little more than its budget.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

_COUNTED = ("chat/completions", "completions")
_TIMEOUT = 600.0
_START_SECONDS = 30.0
"""Seconds to start or to end."""


@dataclass(slots=True)
class Account:
    """What was counted for a run. `tokens` and `requests` are by role; `failed` counts requests that the
    server did not answer well."""

    budget: int | None
    tokens: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    failed: int = 0

    @property
    def spent(self) -> bool:
        return self.budget is not None and self.tokens.total() >= self.budget

    def document(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "budget": self.budget,
            "spent": self.spent,
            "tokens": dict(self.tokens),
            "requests": dict(self.requests),
            "refused": self.refused,
            "failed": self.failed,
        }


class Proxy:
    """The proxy, in a thread of its own on loopback, while it is entered."""

    def __init__(self, upstream: str) -> None:
        """`upstream` is the server's address up to and including /v1."""
        self._upstream = upstream.rstrip("/")
        self._accounts: dict[str, Account] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="counting proxy", daemon=True)
        self._runner: web.AppRunner
        self._address = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, run: str, budget: int | None) -> Account:
        """A new account for a run, in place of an earlier one."""
        account = self._accounts[run] = Account(budget)
        return account

    def account_url(self, run: str) -> str:
        return f"{self._address}/{run}"

    def url(self, run: str, role: str) -> str:
        """The address of an OpenAI-compatible server whose tokens are counted for the run and the role."""
        return f"{self._address}/{run}/{role}/v1"

    async def _start(self) -> None:
        application = web.Application(client_max_size=64 << 20)
        application.cleanup_ctx.append(self._with_session)
        application.router.add_get("/{run}", self._tell)
        application.router.add_get("/{run}/{role}/v1/models", self._models)
        application.router.add_post("/{run}/{role}/v1/{path:.+}", self._forward)
        self._runner = web.AppRunner(application, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._address = f"http://{host}:{port}"

    async def _with_session(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        # Servers close idle connections, and a request that meets such an end would be lost.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            yield

    async def _tell(self, request: web.Request) -> web.Response:
        account = self._accounts.get(request.match_info["run"])
        return _no_run() if account is None else web.json_response(account.document())

    async def _models(self, _: web.Request) -> web.Response:
        async with self._session.get(f"{self._upstream}/models") as answer:
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    async def _forward(self, request: web.Request) -> web.Response:
        account = self._accounts.get(request.match_info["run"])
        path, role = request.match_info["path"], request.match_info["role"]
        if account is None:
            return _no_run()
        if path not in _COUNTED:
            return _error(404, "not_counted", f"only {' and '.join(_COUNTED)} are forwarded")
        body = await request.json()
        if body.get("stream"):
            return _error(400, "not_counted", "a stream is not counted; ask for a whole answer")
        if account.spent:
            account.refused += 1
            message = f"{account.tokens.total()} of {account.budget} tokens are spent"
            return _error(403, "budget_exhausted", message)
        try:
            async with self._session.post(f"{self._upstream}/{path}", json=body) as answer:
                status, content = answer.status, await answer.read()
                tokens = _tokens(await answer.json()) if status == 200 else 0
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            account.failed += 1
            return _error(502, "upstream", f"{type(error).__name__}: {error}")
        account.requests[role] += 1
        account.tokens[role] += tokens
        account.failed += status != 200
        return web.Response(body=content, status=status, content_type="application/json")


def _tokens(answer: dict[str, Any]) -> int:
    """The tokens of an answer. Raises ValueError if the server does not count them."""
    usage = answer.get("usage") or {}
    if "prompt_tokens" not in usage:
        raise ValueError("the server's answer has no usage, by which tokens are counted")
    return int(usage["prompt_tokens"]) + int(usage.get("completion_tokens") or 0)


def _no_run() -> web.Response:
    return _error(404, "no_run", "there is no account of this run")


def _error(status: int, code: str, message: str) -> web.Response:
    error = {"message": message, "type": code, "code": code}
    return web.json_response({"error": error}, status=status)
