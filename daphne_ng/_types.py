"""The type names that every layer shares. No imports beyond ``typing`` when it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from asgiref.typing import ASGI2Application

__all__ = ["ASGIApplication", "AnyApplication", "Field", "Fields", "Headers", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

AnyApplication: TypeAlias = "Callable[..., Awaitable[object]] | ASGI2Application"
"""What users may give for an application. Frameworks type scopes and callables each its own way, and a parameter's type
must fit exactly, so none is said; the shape is checked at the start."""

Headers = Sequence[Iterable[bytes]]
"""Field lines in order, as an application sends them. The bridge has made a list of whatever iterable held them, and
nothing more is known: ASGI wants a ``(name, value)`` pair of bytes for each, in any kind of sequence."""

Field = tuple[bytes, bytes]
"""A field line whose parts are known to be bytes: ``(name, value)``."""

Fields = Sequence[Field]
"""Field lines in order, as they were checked: those that a client sent, or that we made."""
