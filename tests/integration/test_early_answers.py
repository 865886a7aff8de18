"""Answers that are complete before their requests are, behind real proxies and before real clients.

A proxy keeps its connections to the server, and the next request on one of them is somebody else's. So uploads that are
refused early run beside innocent requests, and not one of those may fail.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.proxying import proxy
from tests.support.processes.serving import HOST, require_program, serve

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

INNOCENT = 1000
"""How many requests must not fail, for each proxy."""
THREADS = 4
ANSWER = b"answered early"

# What a refused upload looks like: the path, which says how the application answers; the size; and whether in chunks.
UPLOADS = [
    (path, size, chunked)
    for size in (50_000, 300_000, 2_000_000)
    for path in ("/403", "/413", "/302", "/raise", "/part")
    for chunked in (False, True)
]


def upload(port: int, path: str, size: int, chunked: bool) -> str:
    """Upload, on a connection of its own as a browser would, and return what came of it."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    with contextlib.closing(connection):
        body: Any = (b"x" * 10_000 for _ in range(size // 10_000)) if chunked else b"x" * size
        with contextlib.suppress(ConnectionError):
            # A proxy may end the connection of a client that it has answered; the answer is what counts.
            connection.request("POST", path, body, encode_chunked=chunked)
        try:
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        expected = {"/302": 302, "/413": 413, "/raise": 500}.get(path, 403)
        if response.status == expected and (said == ANSWER or path == "/raise"):
            return "answered"
        return str(response.status)


def run(port: int, uploads: Callable[[int], str]) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """Have some threads upload, each with innocent requests in between. Returns what came of both."""
    innocent: collections.Counter[str] = collections.Counter()
    early: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=30)
        for turn in range(INNOCENT // THREADS):
            result = uploads(number + turn * THREADS) if turn % 4 == 0 else ""
            try:
                connection.request("POST", "/all", b"innocent")
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
                connection.close()
            with lock:
                innocent[outcome] += 1
                if result:
                    early[result] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return innocent, early


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy", "apache2"])
def test_no_innocent_request_fails_behind(name: str, tmp_path: Path) -> None:
    with serve("early:application", tmp_path) as server:
        server.expect("Exception inside application: on purpose", "RuntimeError: on purpose")
        with proxy(name, tmp_path, server.port) as port:
            innocent, early = run(port, lambda number: upload(port, *UPLOADS[number % len(UPLOADS)]))
    assert innocent == {"200": INNOCENT}, (tmp_path / "proxy.log").read_text(errors="replace")[-2000:]
    # A proxy that finds its own connection closed while it still sends may answer for itself. Most of them do not.
    assert early["answered"] >= 0.9 * early.total(), early


NODE = """
import http from 'node:http';
const [base, turns, sizes] = [process.argv[2], +process.argv[3], process.argv.slice(4)];
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
const post = (path, body) => new Promise((resolve, reject) => {
  const options = {method: 'POST', agent, headers: {'content-length': body.length}};
  const request = http.request(base + path, options, response => {
    let text = '';
    response.on('data', part => text += part);
    response.on('end', () => resolve([response.statusCode, text]));
    response.on('error', reject);
  });
  request.on('error', reject);
  request.end(body);
});
const seen = [];
for (let turn = 0; turn < turns * sizes.length; turn++) {
  for (const [path, body] of [['/403', Buffer.alloc(+sizes[turn % sizes.length])], ['/all', Buffer.from('innocent')]])
    seen.push(await post(path, body).then(([status, text]) => `${status} ${text}`, error => String(error)));
}
console.log(JSON.stringify(seen));
process.exit(0);
"""
GO = """
package main

import ("bytes"; "encoding/json"; "fmt"; "io"; "net/http"; "os"; "strconv")

func post(url string, body []byte) string {
	response, err := http.Post(url, "text/plain", bytes.NewReader(body))
	if err != nil { return err.Error() }
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil { return err.Error() }
	return fmt.Sprintf("%d %s", response.StatusCode, text)
}

func main() {
	turns, _ := strconv.Atoi(os.Args[2])
	seen, sizes := []string{}, os.Args[3:]
	for turn := 0; turn < turns*len(sizes); turn++ {
		size, _ := strconv.Atoi(sizes[turn%len(sizes)])
		seen = append(seen, post(os.Args[1]+"/403", make([]byte, size)), post(os.Args[1]+"/all", []byte("innocent")))
	}
	text, _ := json.Marshal(seen)
	fmt.Println(string(text))
}
"""
JAVA = """
import java.net.Socket;
import java.net.URI;
import java.net.http.*;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;

public class Early {
    static HttpClient client;

    static class Trust extends X509ExtendedTrustManager {
        public void checkClientTrusted(X509Certificate[] chain, String type) {}
        public void checkServerTrusted(X509Certificate[] chain, String type) {}
        public void checkClientTrusted(X509Certificate[] chain, String type, Socket socket) {}
        public void checkServerTrusted(X509Certificate[] chain, String type, Socket socket) {}
        public void checkClientTrusted(X509Certificate[] chain, String type, SSLEngine engine) {}
        public void checkServerTrusted(X509Certificate[] chain, String type, SSLEngine engine) {}
        public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    }

    static String post(String url, byte[] body) {
        try {
            var request = HttpRequest.newBuilder(URI.create(url)).POST(HttpRequest.BodyPublishers.ofByteArray(body));
            var response = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
            return response.statusCode() + " " + response.body();
        } catch (Exception error) {
            return error.toString();
        }
    }

    public static void main(String[] given) throws Exception {
        var context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {new Trust()}, null);
        client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).sslContext(context).build();
        var seen = new StringBuilder();
        for (int turn = 0; turn < Integer.parseInt(given[1]) * (given.length - 2); turn++) {
            String early = post(given[0] + "/403", new byte[Integer.parseInt(given[2 + turn % (given.length - 2)])]);
            String next = post(given[0] + "/all", "innocent".getBytes());
            seen.append(turn == 0 ? "" : ",").append('"' + early + "\\",\\"" + next + '"');
        }
        System.out.println("[" + seen + "]");
        System.exit(0);
    }
}
"""


def clients(name: str, directory: Path) -> list[str]:
    """Return the command that runs a client, up to its arguments."""
    file, text, command = {
        "node": ("early.mjs", NODE, ["node"]),
        "go": ("early.go", GO, ["go", "build", "-o", "early"]),
        "java": ("Early.java", JAVA, ["java"]),
    }[name]
    require_program(command[0])
    path = directory / file
    path.write_text(text, encoding="utf-8")
    if name != "go":
        return [*command, str(path)]
    environment = {"GOCACHE": str(directory / "cache"), "GOPATH": str(directory / "go"), "PATH": "/usr/bin:/bin"}
    subprocess.run([*command, str(path)], check=True, cwd=directory, env=environment)
    return [str(directory / "early")]


# Java over TLS: it is the one whose pool does not look at a close_notify.
@pytest.mark.parametrize(("name", "tls"), [("node", False), ("go", False), ("java", True)])
def test_a_client_gets_the_early_answer_and_its_next_request_is_served(
    name: str, tls: bool, tmp_path: Path, pem: Path
) -> None:
    command = clients(name, tmp_path)
    with contextlib.ExitStack() as stack:
        if tls:
            listen = ("-e", f"ssl:0:interface={HOST}:privateKey={pem}:certKey={pem}")
            server = stack.enter_context(serve("early:application", tmp_path, listen=listen))
            url = f"https://localhost:{server.port}"
        else:
            server = stack.enter_context(serve("early:application", tmp_path))
            url = server.url
        arguments = [url, "10", "50000", "300000", "2000000"]
        run = subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=120)
    assert json.loads(run.stdout) == [f"403 {ANSWER.decode()}", "200 8"] * 30
