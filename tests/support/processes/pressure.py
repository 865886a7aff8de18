"""Clients that ask without a pause, by HTTP and by WebSocket, and count what fails. A program of its own.

``pressure.py HOST PORT HTTP_CLIENTS WEBSOCKETS`` asks until its standard input ends, and then prints one JSON object:
``requests``, ``messages``, ``reconnected``, ``pids`` (who answered) and ``failures`` (in words).

A browser repeats a GET on its own, so every second request is a POST: one that is lost stays lost. A WebSocket that
the server closes with 1012 is opened again, and what was said last is said again unless it was heard.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 15.0
BODY = b"x" * 2000


class Pressure:
    """The clients, and what they have counted."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.requests = self.messages = self.reconnected = 0
        self.pids: set[int] = set()
        self.failures: Counter[str] = Counter()
        self.over = False

    async def ask(self) -> None:
        """Send requests over a connection that is kept, and a new one after every fifty."""
        while not self.over:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                for turn in range(50):
                    if self.over:
                        break
                    method, body = ("POST", BODY) if turn % 2 else ("GET", b"")
                    head = f"{method} /who/ HTTP/1.1\r\nHost: {self.authority}\r\nContent-Length: {len(body)}\r\n\r\n"
                    writer.write(head.encode() + body)
                    async with asyncio.timeout(PATIENCE):
                        head = (await reader.readuntil(b"\r\n\r\n")).decode()
                        fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
                        content = await reader.readexactly(int(fields["content-length"]))
                    if head.split()[1] != "200":
                        self.failures[f"{method}: {head.splitlines()[0]}"] += 1
                        break
                    answer = json.loads(content)
                    assert answer["read"] == len(body)
                    self.pids.add(answer["pid"])
                    self.requests += 1
                    if fields.get("connection") == "close":
                        break
                    await asyncio.sleep(0.005)
            except Exception as error:
                self.failures[f"{method}: {error!r}"] += 1
            finally:
                writer.close()

    async def talk(self, name: int) -> None:
        """Say something, wait until it comes back, say something else; open the WebSocket again after a 1012."""
        number = 0
        while not self.over:
            try:
                async with connect(f"ws://{self.authority}/ws/", proxy=None, open_timeout=PATIENCE) as ws:
                    self.pids.add(json.loads(await ws.recv())["pid"])
                    while not self.over:
                        async with asyncio.timeout(PATIENCE):
                            await self.say(ws, f"{name}: {number}")
                        number += 1
                        self.messages += 1
                        await asyncio.sleep(0.02)
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != 1012:
                    self.failures[f"WebSocket: {closed!r}"] += 1
                self.reconnected += 1
            except Exception as error:
                self.failures[f"WebSocket: {error!r}"] += 1

    @staticmethod
    async def say(ws: ClientConnection, text: str) -> None:
        await ws.send(text)
        while json.loads(await ws.recv())["text"] != text:
            pass


async def main(host: str, port: int, http_clients: int, websockets: int) -> None:
    pressure = Pressure(host, port)
    tasks = [asyncio.create_task(pressure.ask()) for _ in range(http_clients)]
    tasks += [asyncio.create_task(pressure.talk(name)) for name in range(websockets)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    pressure.over = True
    await asyncio.gather(*tasks)
    print(
        json.dumps(
            {
                "requests": pressure.requests,
                "messages": pressure.messages,
                "reconnected": pressure.reconnected,
                "pids": sorted(pressure.pids),
                "failures": dict(pressure.failures),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
