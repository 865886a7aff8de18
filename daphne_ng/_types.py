"""The type names that every layer shares. No imports beyond ``typing`` when it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from asgiref.typing import ASGI2Application

__all__ = ["ASGIApplication", "AnyApplication", "Headers", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

AnyApplication: TypeAlias = "Callable[..., Awaitable[object]] | ASGI2Application"
"""What users may give for an application. Frameworks type scopes and callables each its own way, and a parameter's type
must fit exactly, so none is said; the shape is checked at the start."""

Headers = Iterable[tuple[bytes, bytes]]
"""Field lines in order, as ASGI gives them: ``(name, value)`` pairs of bytes."""
