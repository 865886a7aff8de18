import asyncio

from hello import application

from daphne_ng import Server


async def main():
    server = Server(application, endpoints=["tcp:0:interface=127.0.0.1"])
    asyncio.get_running_loop().call_later(0.2, server.stop)
    await server.serve()  # until stop()
    print("served, and stopped")


asyncio.run(main())
