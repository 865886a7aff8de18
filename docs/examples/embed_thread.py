import urllib.request

from hello import application

from daphne_ng import Server

with Server(application, endpoints=["tcp:0:interface=127.0.0.1"]).run_in_thread() as server:
    host, port = server.listening_addresses[0]
    with urllib.request.urlopen(f"http://{host}:{port}/thread") as response:
        print(response.read().decode().strip())
