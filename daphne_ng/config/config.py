"""`Config`: the names, types and order of all settings, and the rules between them.

The command line, Django's options and ``Server(**kwargs)`` all end in a `Config`. Each field has its flags, help, unit,
default, limits, check and reason in one of the groups beside this module, a module for each heading of ``--help``, so
that ``--help``, the reference page and the checks are made from the same words. A field without flags is a rare limit,
which ``--help`` leaves out.

The groups are data, from which `Config` takes its fields by name: type checkers see each with its type here. A new
setting is described in the group of its heading, and named here.

A timeout or limit of ``0`` (or ``None`` where Daphne has it so) switches that limit off, except for the times that are
granted at an end: their descriptions say ``zero="at once"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from daphne_ng.config.acme import AcmeSettings
from daphne_ng.config.application import ApplicationSettings
from daphne_ng.config.http2 import Http2Settings
from daphne_ng.config.limits import LimitSettings
from daphne_ng.config.processes import ProcessSettings
from daphne_ng.config.proxies import ProxySettings
from daphne_ng.config.responses import ResponseSettings
from daphne_ng.config.setting import Setting
from daphne_ng.config.sockets import SocketSettings
from daphne_ng.config.static import StaticSettings
from daphne_ng.config.timeouts import TimeoutSettings
from daphne_ng.config.tls import TlsSettings
from daphne_ng.config.websocket import WebSocketSettings
from daphne_ng.errors import ConfigurationError

__all__ = ["RULES", "Config", "Rule", "check_alone", "settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of the server, validated. See `settings` for what each means."""

    # processes
    workers: str | int = ProcessSettings.workers
    limit_workers: int = ProcessSettings.limit_workers
    limit_max_requests: int = ProcessSettings.limit_max_requests
    limit_max_requests_jitter: int = ProcessSettings.limit_max_requests_jitter
    limit_worker_memory: int = ProcessSettings.limit_worker_memory
    worker_max_age: float = ProcessSettings.worker_max_age
    worker_start_timeout: float = ProcessSettings.worker_start_timeout
    worker_blocked_warning: float = ProcessSettings.worker_blocked_warning
    worker_timeout: float = ProcessSettings.worker_timeout
    reload: bool = ProcessSettings.reload
    reload_dirs: tuple[str, ...] = ProcessSettings.reload_dirs
    reload_includes: tuple[str, ...] = ProcessSettings.reload_includes
    reload_excludes: tuple[str, ...] = ProcessSettings.reload_excludes
    pid_file: str = ProcessSettings.pid_file
    user: str = ProcessSettings.user
    group: str = ProcessSettings.group
    loop: str = ApplicationSettings.loop
    stock_reactor: bool = ApplicationSettings.stock_reactor
    umask: str = ProcessSettings.umask

    # sockets
    backlog: int = SocketSettings.backlog
    reuse_port: bool = SocketSettings.reuse_port
    tcp_nodelay: bool = SocketSettings.tcp_nodelay
    tcp_keepalive: bool = SocketSettings.tcp_keepalive
    unix_socket_mode: str = SocketSettings.unix_socket_mode
    unix_socket_owner: str = SocketSettings.unix_socket_owner

    # TLS
    ssl_certfile: str = TlsSettings.ssl_certfile
    ssl_keyfile: str = TlsSettings.ssl_keyfile
    ssl_keyfile_password: str = TlsSettings.ssl_keyfile_password
    ssl_cert_dir: str = TlsSettings.ssl_cert_dir
    ssl_ca_certs: str = TlsSettings.ssl_ca_certs
    ssl_cert_reqs: str = TlsSettings.ssl_cert_reqs
    ssl_ciphers: str = TlsSettings.ssl_ciphers
    ssl_min_version: str = TlsSettings.ssl_min_version
    ssl_reload_interval: float = TlsSettings.ssl_reload_interval

    # proxies
    proxy_address_header: str | None = ProxySettings.proxy_address_header
    proxy_port_header: str | None = ProxySettings.proxy_port_header
    proxy_proto_header: str | None = ProxySettings.proxy_proto_header
    forwarded_allow_ips: str = ProxySettings.forwarded_allow_ips
    proxy_forwarded: bool = ProxySettings.proxy_forwarded
    proxy_host: bool = ProxySettings.proxy_host
    proxy_prefix: bool = ProxySettings.proxy_prefix
    root_path_prepend: bool = ProxySettings.root_path_prepend
    proxy_protocol: bool = ProxySettings.proxy_protocol
    proxy_protocol_timeout: float = TimeoutSettings.proxy_protocol_timeout

    # automatic certificates
    acme_directory: str = AcmeSettings.acme_directory
    acme_email: str = AcmeSettings.acme_email
    acme_challenge: str = AcmeSettings.acme_challenge
    acme_http_port: int = AcmeSettings.acme_http_port
    acme_ca_certs: str = AcmeSettings.acme_ca_certs

    # where the application is mounted, and responses
    root_path: str = ApplicationSettings.root_path
    server_name: str = ResponseSettings.server_name
    headers: tuple[tuple[bytes, bytes], ...] = ResponseSettings.headers
    date_header: bool = ResponseSettings.date_header
    http1_early_hints: bool = ResponseSettings.http1_early_hints

    # static files
    static: tuple[str, ...] = StaticSettings.static
    static_index: str = StaticSettings.static_index
    static_not_found: bool = StaticSettings.static_not_found
    static_follow_symlinks: bool = StaticSettings.static_follow_symlinks
    static_immutable: tuple[str, ...] = StaticSettings.static_immutable
    static_max_age: int | None = StaticSettings.static_max_age
    static_max_ranges: int = StaticSettings.static_max_ranges
    static_cache_bytes: int = StaticSettings.static_cache_bytes
    static_cache_file_bytes: int = StaticSettings.static_cache_file_bytes
    static_cache_seconds: float = StaticSettings.static_cache_seconds
    static_threads: int = StaticSettings.static_threads

    # timeouts
    http_timeout: float | None = TimeoutSettings.http_timeout
    head_timeout: float = TimeoutSettings.head_timeout
    body_timeout: float = TimeoutSettings.body_timeout
    keep_alive_timeout: float = TimeoutSettings.keep_alive_timeout
    head_memo_timeout: float = TimeoutSettings.head_memo_timeout
    write_timeout: float = TimeoutSettings.write_timeout
    write_min_rate: float = TimeoutSettings.write_min_rate
    paused_read_timeout: float = TimeoutSettings.paused_read_timeout
    drain_timeout: float = TimeoutSettings.drain_timeout
    drain_pause_timeout: float = TimeoutSettings.drain_pause_timeout
    close_timeout: float = TimeoutSettings.close_timeout
    tls_handshake_timeout: float = TimeoutSettings.tls_handshake_timeout
    application_close_timeout: float = TimeoutSettings.application_close_timeout
    graceful_timeout: float = TimeoutSettings.graceful_timeout
    shutdown_idle_timeout: float = TimeoutSettings.shutdown_idle_timeout
    shutdown_application_timeout: float | None = TimeoutSettings.shutdown_application_timeout
    shutdown_close_timeout: float | None = TimeoutSettings.shutdown_close_timeout

    # limits
    request_line_max_bytes: int = LimitSettings.request_line_max_bytes
    head_max_bytes: int = LimitSettings.head_max_bytes
    head_max_fields: int = LimitSettings.head_max_fields
    body_max_bytes: int = LimitSettings.body_max_bytes
    pipelined_max: int = LimitSettings.pipelined_max
    trailer_max_bytes: int = LimitSettings.trailer_max_bytes
    trailer_max_fields: int = LimitSettings.trailer_max_fields
    chunk_overhead_max_bytes: int = LimitSettings.chunk_overhead_max_bytes
    drain_max_bytes: int = LimitSettings.drain_max_bytes
    limit_connections: int = LimitSettings.limit_connections
    limit_concurrency: int = LimitSettings.limit_concurrency
    client_lines_burst: int = LimitSettings.client_lines_burst
    client_lines_rate: float = LimitSettings.client_lines_rate
    inbox_high_bytes: int = LimitSettings.inbox_high_bytes
    inbox_low_bytes: int = LimitSettings.inbox_low_bytes
    require_host: bool = LimitSettings.require_host

    # the application
    lifespan: str = ApplicationSettings.lifespan
    asgi_threads: int | None = ApplicationSettings.asgi_threads
    file_threads: int = ApplicationSettings.file_threads
    lifespan_startup_timeout: float = TimeoutSettings.lifespan_startup_timeout
    lifespan_shutdown_timeout: float = TimeoutSettings.lifespan_shutdown_timeout

    # WebSocket
    websocket_timeout: float = WebSocketSettings.websocket_timeout
    websocket_connect_timeout: float = WebSocketSettings.websocket_connect_timeout
    websocket_handshake_timeout: float = WebSocketSettings.websocket_handshake_timeout
    websocket_max_message_size: int = WebSocketSettings.websocket_max_message_size
    websocket_max_frame_size: int = WebSocketSettings.websocket_max_frame_size
    websocket_max_fragments: int = WebSocketSettings.websocket_max_fragments
    websocket_control_burst: int = WebSocketSettings.websocket_control_burst
    websocket_control_rate: float = WebSocketSettings.websocket_control_rate
    websocket_compression: bool = WebSocketSettings.websocket_compression
    websocket_compression_window_bits: int = WebSocketSettings.websocket_compression_window_bits
    websocket_compression_level: int = WebSocketSettings.websocket_compression_level
    websocket_compression_memory_level: int = WebSocketSettings.websocket_compression_memory_level
    websocket_compression_min_bytes: int = WebSocketSettings.websocket_compression_min_bytes
    websocket_compression_speedups: bool = WebSocketSettings.websocket_compression_speedups
    ping_interval: float = WebSocketSettings.ping_interval
    ping_timeout: float = WebSocketSettings.ping_timeout

    # HTTP/2
    http2: bool = Http2Settings.http2
    h2c: bool = Http2Settings.h2c
    http2_plain_path: bool = Http2Settings.http2_plain_path
    http2_max_concurrent_streams: int = Http2Settings.http2_max_concurrent_streams
    http2_max_continuation_frames: int = Http2Settings.http2_max_continuation_frames
    http2_reset_burst: int = Http2Settings.http2_reset_burst
    http2_reset_rate: float = Http2Settings.http2_reset_rate
    http2_control_burst: int = Http2Settings.http2_control_burst
    http2_control_rate: float = Http2Settings.http2_control_rate
    http2_stall_timeout: float = Http2Settings.http2_stall_timeout
    http2_ping_interval: float = Http2Settings.http2_ping_interval
    http2_goaway_timeout: float = Http2Settings.http2_goaway_timeout
    http2_max_requests: int = Http2Settings.http2_max_requests
    http2_window_max_bytes: int = Http2Settings.http2_window_max_bytes
    http2_connection_buffer_max_bytes: int = Http2Settings.http2_connection_buffer_max_bytes

    def __post_init__(self) -> None:
        """Check every field by itself, then all of them together.

        Raises:
            ConfigurationError: Names the setting (by its flag where it has one) and the rule.
        """
        for name, known in _SETTINGS.items():
            value = getattr(self, name)
            kept = known.checked(value)
            if kept is not value:
                object.__setattr__(self, name, kept)
        for rule in RULES:
            if rule.broken(self):
                error = ConfigurationError(rule.message.format(self))
                error.settings = rule.fields
                raise error

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)


class Rule(NamedTuple):
    """A rule between fields that are each right by themselves."""

    name: str
    broken: Callable[[Config], bool]
    """Whether a `Config` breaks the rule."""
    message: str
    """The error's message: a format in which ``{0}`` is the `Config`."""
    fields: tuple[str, ...]
    """The fields that it is about."""


RULES = (
    Rule(
        "marks of the inbox",
        lambda config: config.inbox_low_bytes > config.inbox_high_bytes,
        "inbox_low_bytes must not exceed inbox_high_bytes",
        ("inbox_low_bytes", "inbox_high_bytes"),
    ),
    Rule(
        "one process that reloads",
        lambda config: config.reload and config.workers not in ("1", "auto"),
        "--reload is for development, with one worker: leave --workers out",
        ("reload", "workers"),
    ),
    Rule(
        "a key has a certificate",
        lambda config: bool(config.ssl_keyfile) and not config.ssl_certfile,
        "--ssl-keyfile needs --ssl-certfile, the certificate that the key belongs to",
        ("ssl_keyfile", "ssl_certfile"),
    ),
    Rule(
        "client certificates have authorities",
        lambda config: config.ssl_cert_reqs != "none" and not config.ssl_ca_certs,
        "--ssl-cert-reqs {0.ssl_cert_reqs} needs --ssl-ca-certs, the authorities of these certificates",
        ("ssl_cert_reqs", "ssl_ca_certs"),
    ),
    Rule(
        "authorities have client certificates",
        lambda config: bool(config.ssl_ca_certs) and config.ssl_cert_reqs == "none",
        "--ssl-ca-certs needs --ssl-cert-reqs: without it no client is asked for a certificate",
        ("ssl_ca_certs", "ssl_cert_reqs"),
    ),
)

_SETTINGS: dict[str, Setting] = {entry.name: entry.metadata["setting"] for entry in dataclasses.fields(Config)}


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every field's name and description, in the order of the class."""
    yield from _SETTINGS.items()


def check_alone(config: Config) -> None:
    """Check that no field asks for more than one `Server` can do in a process that is not its own.

    Raises:
        ConfigurationError: Names the setting.
    """
    for name, known in _SETTINGS.items():
        if known.process_wide and getattr(config, name) != known.default:
            raise ConfigurationError(
                f"{name}: a Server is one process, and does not see to that; daphne_ng.run() and the command line do"
            )
