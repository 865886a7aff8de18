import daphne_ng


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"this application does not serve {scope['type']}")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello!\n"})


if __name__ == "__main__":
    daphne_ng.run(application, host="127.0.0.1", port=8000, keep_alive_timeout=30)
