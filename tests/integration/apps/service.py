"""Tells what the processes that it starts are told of the service, and blocks or takes its time on demand."""

import asyncio
import json
import subprocess
import sys
import time

SCRIPT = "import json, os; print(json.dumps(dict(os.environ)))"


def environment_of_child() -> dict:
    return json.loads(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout)


AT_IMPORT = environment_of_child()


async def application(scope, receive, send):
    assert scope["type"] == "http"
    _, what, seconds = f"{scope['path']}/0".split("/")[:3]
    if what == "block":
        time.sleep(float(seconds))
    elif what == "slow":
        await asyncio.sleep(float(seconds))
    body = json.dumps([AT_IMPORT, environment_of_child()]).encode() if what == "children" else b"done"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
