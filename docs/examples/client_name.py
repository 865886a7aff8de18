from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def whoami(request):
    tls = request.scope["extensions"].get("tls") or {}
    if tls.get("client_cert_error"):
        return PlainTextResponse(f"Your certificate is refused: {tls['client_cert_error']}.\n", 403)
    if not tls.get("client_cert_name"):
        return PlainTextResponse("You show no certificate.\n", 401)
    return PlainTextResponse(f"You are {tls['client_cert_name']}.\n")


application = Starlette(routes=[Route("/", whoami)])
