import asyncio

from hello import application

from daphne_ng.server import Server


def log_action(protocol, action, details):
    if (protocol, action) == ("http", "complete"):
        print(details["method"], details["path"], details["status"], f"{details['time_taken']:.3f} s")


async def main():
    async with Server(application, endpoints=["tcp:0:interface=127.0.0.1"], action_logger=log_action) as server:
        reader, writer = await asyncio.open_connection(*server.listening_addresses[0])
        writer.write(b"GET /logged HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()


asyncio.run(main())
