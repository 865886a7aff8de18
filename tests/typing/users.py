"""Code as users write it, for mypy alone: with --strict, every kind of application passes, and what is none does not.

An ignored error that is none fails the check as well (``warn_unused_ignores``).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, assert_type

from asgiref.typing import (
    ASGI2Application,
    ASGI3Application,
    ASGIApplication,
    ASGIReceiveCallable,
    ASGISendCallable,
    Scope,
)
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.types import ASGIApp

import daphne_ng
from daphne_ng import Config, Server, run, stopping
from daphne_ng.stopping import StopNotice


async def of_asgiref(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


async def of_anything(scope: Any, receive: Any, send: Any) -> None: ...


async def of_dicts(scope: dict[str, Any], receive: Any, send: Any) -> None: ...


class Instance:
    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


class Old:
    def __init__(self, scope: Scope) -> None: ...

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


def names(one: ASGIApplication, two: ASGI2Application, three: ASGI3Application, four: ASGIApp) -> None:
    run(one, host="127.0.0.1", port=8000, log_level="info")
    run(two)
    run(three, config=Config(workers=2, reload=False))
    run(four)
    Server(one, ["tcp:0"])
    asyncio.run(Server(four, endpoints=["tcp:0"], config=Config(keep_alive_timeout=5)).serve())


def objects() -> None:
    run(of_asgiref)
    run(of_anything)
    run(of_dicts)
    run(Instance())
    run(Old)
    run(Starlette())
    run(FastAPI())
    run(HTTPEndpoint)
    run(get_asgi_application())
    run(ProtocolTypeRouter({"http": get_asgi_application()}))
    daphne_ng.run("main:app", reload=True, unix_socket="/run/s")
    assert_type(daphne_ng.Server(Instance(), ["tcp:0"]).exit_code, int)


def settings() -> None:
    config = Config(close_timeout=2, http_timeout=None, headers=((b"x", b"y"),), workers=4)
    assert_type(config.close_timeout, float)
    assert_type(config.http_timeout, float | None)
    assert_type(config.headers, tuple[tuple[bytes, bytes], ...])
    assert_type(config.replace(root_path="/x"), Config)
    Config(body_max_bytes="x")  # type: ignore[arg-type]
    Config(body_max_size=5)  # type: ignore[call-arg]
    Config(5)  # type: ignore[call-arg]
    config.close_timeout = 3  # type: ignore[misc]


async def notices(items: AsyncIterator[bytes], request: Request) -> None:
    assert_type(stopping.is_supported(), bool)
    assert_type(stopping.is_stopping(), bool)
    assert_type(await stopping.wait_stopping(), bool)
    assert_type(await stopping.wait_stopping(timeout=1), bool)
    assert_type(stopping.wait_stopping_in_thread(0.5), bool)
    assert_type(stopping.until_stopping(items), AsyncGenerator[bytes, None])
    async for item in stopping.until_stopping(items):
        assert_type(item, bytes)
    key: str = stopping.STATE_KEY
    assert_type(getattr(request.state, key), Any)
    notice: StopNotice = request.state.server_stopping
    assert_type(await notice, bool)
    assert_type(await notice.wait(timeout=None), bool)
    assert_type(notice.wait_in_thread(1.0), bool)
    assert_type(notice.until(items), AsyncGenerator[bytes, None])
    stopping.is_stopping(1)  # type: ignore[call-arg]
    stopping.until_stopping([b""])  # type: ignore[arg-type]
    stopping.STATE_KEY = "x"  # type: ignore[misc]
    await stopping.wait_stopping("1")  # type: ignore[arg-type]


def what_is_none() -> None:
    run(None)  # type: ignore[arg-type]
    run(5)  # type: ignore[arg-type]
    run(of_anything, port="8000")  # type: ignore[arg-type]
    Server("main:app", ["tcp:0"])  # type: ignore[arg-type]
    Server(None, ["tcp:0"])  # type: ignore[arg-type]
    daphne_ng.Servre  # type: ignore[attr-defined]  # noqa: B018
