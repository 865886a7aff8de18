from django.http import HttpResponse, StreamingHttpResponse

from daphne_ng import stopping

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Echo</title>
<input id="line" placeholder="Say something" autofocus>
<pre id="heard"></pre>
<script>
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/`);
  socket.onmessage = event => { heard.textContent += event.data + "\\n"; };
  line.onchange = () => { socket.send(line.value); line.value = ""; };
</script>
"""


def page(request):
    return HttpResponse(PAGE)


async def ticks(request):
    async def numbers():
        for number in range(10):
            yield f"data: {number}\n\n"
            if await stopping.wait_stopping(timeout=1):
                break

    return StreamingHttpResponse(numbers(), content_type="text/event-stream")
