import asyncio

from hello import application

from daphne_ng import Config, Server


async def main():
    config = Config(keep_alive_timeout=30, limit_concurrency=100)
    server = Server(application, endpoints=["tcp:0:interface=127.0.0.1"], config=config)
    async with server:
        host, port = server.listening_addresses[0]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /asyncio HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = await reader.read()
        writer.close()
        print(response.decode().splitlines()[-1])


asyncio.run(main())
