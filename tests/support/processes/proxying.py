"""Real proxies before a server, each on a port of its own."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes.serving import HOST, free_port, require_program, wait_for

__all__ = ["proxy"]

NGINX = """
daemon off; pid {directory}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0; {temporary}
    upstream up {{ server {host}:{backend}; keepalive 8; }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://up;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_next_upstream off;
            {more}
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 0
    http-reuse always
frontend front
    bind {host}:{port}
    default_backend back
backend back
    {more}
    server one {host}:{backend} pool-max-conn 8
"""
CADDY = """
{{
    admin off
    auto_https off
}}
http://{host}:{port} {{
    reverse_proxy {host}:{backend} {{
        lb_retries 0
        transport http {{
            keepalive 60s
            keepalive_idle_conns_per_host 8
        }}
    }}
}}
"""
APACHE = """
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
ErrorLog /dev/stderr
LogLevel error
Listen {host}:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
ProxyPass / http://{host}:{backend}/ keepalive=On max=8 enablereuse=On retry=0
"""


@contextlib.contextmanager
def proxy(name: str, directory: Path, backend: int, more: str = "") -> Iterator[int]:
    """Run a proxy that keeps its connections to the server, and give its port.

    Args:
        name: nginx, haproxy, caddy or apache2.
        directory: Where its files go.
        backend: The port of the server.
        more: Directives besides, of nginx and haproxy.
    """
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    text, file, command = {
        "nginx": (NGINX, "nginx.conf", ["nginx", "-p", str(directory), "-c"]),
        "haproxy": (HAPROXY, "haproxy.cfg", ["haproxy", "-db", "-f"]),
        "caddy": (CADDY, "Caddyfile", ["caddy", "run", "--adapter", "caddyfile", "--config"]),
        "apache2": (APACHE, "apache.conf", ["apache2", "-DFOREGROUND", "-f"]),
    }[name]
    require_program(command[0])
    port = free_port()
    configuration = text.format(
        directory=directory,
        temporary=" ".join(f"{kind}_temp_path {directory / kind};" for kind in kinds),
        modules="/usr/lib/apache2/modules",
        host=HOST,
        port=port,
        backend=backend,
        more=more,
    )
    (directory / file).write_text(configuration, encoding="utf-8")
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen([*command, str(directory / file)], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (directory / "proxy.log").read_text(errors="replace")
        with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=5)) as one:
            one.request("GET", "/all")
            return one.getresponse().status == 200
        return False

    try:
        wait_for(answers, f"{name} to answer")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
