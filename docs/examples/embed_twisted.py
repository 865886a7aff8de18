import urllib.request

from hello import application
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from daphne_ng import Server
from daphne_ng.net import reactor as reactors


async def main(reactor):
    server = Server(application, endpoints=["tcp:0:interface=127.0.0.1"])
    await server.start_on(reactor)
    host, port = server.listening_addresses[0]
    print(await deferToThread(fetch, f"http://{host}:{port}/twisted"))


def fetch(url):
    with urllib.request.urlopen(url) as response:
        return response.read().decode().strip()


reactors.install()  # before anything imports twisted.internet.reactor
react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
