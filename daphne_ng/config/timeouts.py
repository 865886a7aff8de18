"""The settings of time: how long clients and the application may take."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["TimeoutSettings"]


class TimeoutSettings(SettingGroup, heading="Timeouts"):
    """The time that clients and the application may take; see `daphne_ng.config.config` for 0 and None."""

    proxy_protocol_timeout = setting(
        5.0,
        "time for the header of the PROXY protocol to arrive",
        unit="seconds",
        minimum=0,
        why="A proxy sends it with the connection's first packet.",
    )
    http_timeout: float | None = setting(
        None,
        "time for the application to answer: 503 if nothing was sent, an aborted connection otherwise",
        flags=("-t", "--http-timeout"),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Off, as in Daphne: streams and long polls are ordinary uses.",
    )
    head_timeout = setting(
        20.0,
        "time for a request head to arrive whole; further bytes do not extend it",
        flags=("--head-timeout",),
        unit="seconds",
        minimum=0,
        why="Long enough for a phone on a bad network, short enough to starve slowloris.",
    )
    body_timeout = setting(
        60.0,
        "longest pause between two parts of a request body",
        flags=("--body-timeout",),
        unit="seconds",
        minimum=0,
        why="The read timeout that nginx and Apache use.",
    )
    keep_alive_timeout = setting(
        75.0,
        "time that an idle connection is kept",
        flags=("--keep-alive-timeout",),
        unit="seconds",
        minimum=0,
        why="Longer than the 60 s of nginx and of cloud balancers: the proxy closes first, and no request is lost.",
    )
    head_memo_timeout = setting(
        5.0,
        "longest time that a connection over HTTP/1.1 keeps the header fields of its last request, so that the same "
        "fields are not parsed again with the next one; 0 to parse each",
        unit="seconds",
        minimum=0,
        why="Clients that gain by it send requests all the time. An idle connection should not hold 1 or 2 KiB for one "
        "that may never come.",
    )
    write_timeout = setting(
        60.0,
        "longest time in which a client may take less of a response than --write-min-rate asks for, in its middle as "
        "at its end; 0 for any length",
        flags=("--write-timeout",),
        unit="seconds",
        minimum=0,
        why="nginx's send_timeout.",
    )
    write_min_rate = setting(
        240.0,
        "least that a client must take while something is left for it, on average over --write-timeout; 0 for one byte "
        "in that time",
        flags=("--write-min-rate",),
        unit="bytes per second",
        minimum=0,
        why="What Kestrel and IIS ask for. A modem was ten times as fast; without a floor a byte a minute would hold a "
        "connection for ever.",
    )
    paused_read_timeout = setting(
        300.0,
        "longest time that an application may leave a request body unread while reading is paused",
        unit="seconds",
        minimum=0,
        why="While reading is paused nobody can see that the client has left, so the pause is bounded.",
    )
    drain_timeout = setting(
        30.0,
        "longest time to read and discard what a client still sends after an answer that ends the connection",
        unit="seconds",
        minimum=0,
        why="Many clients look for the answer when they have sent everything; closing earlier makes the kernel answer "
        "with a reset that can destroy it. nginx's lingering_time.",
        zero="at once",
    )
    drain_pause_timeout = setting(
        5.0,
        "longest pause in that: a client that sends nothing for so long has read its answer, or will not",
        unit="seconds",
        minimum=0,
        why="nginx's lingering_timeout.",
        zero="at once",
    )
    close_timeout = setting(
        5.0,
        "time for the client's part in an ending: to answer a Close frame or a close_notify; and, when the server "
        "stops, to take what is left for it",
        unit="seconds",
        minimum=0,
        why="A few round trips on a bad network. A client that is still taking bytes has --write-timeout instead.",
        zero="at once",
    )
    tls_handshake_timeout = setting(
        10.0,
        "time for a TLS handshake",
        unit="seconds",
        minimum=0,
    )
    application_close_timeout = setting(
        10,
        "time that an application has to end after its client left, before it is cancelled",
        flags=("--application-close-timeout",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
        zero="at once",
    )
    graceful_timeout = setting(
        30.0,
        "time that running requests have to end when the server stops, before they are cancelled",
        flags=("--graceful-timeout",),
        unit="seconds",
        minimum=0,
        why="The grace period that container platforms use.",
        zero="at once",
    )
    shutdown_idle_timeout = setting(
        2.0,
        "time that an idle HTTP/1.1 connection has for one more request when the server stops; never longer than "
        "graceful_timeout",
        unit="seconds",
        minimum=0,
        why="A proxy may be sending a request just now. It is served, and told that it was the last.",
        zero="at once",
    )
    shutdown_application_timeout: float | None = setting(
        None,
        "time that applications have to end when the server stops, once they are cancelled; None for "
        "application_close_timeout",
        unit="seconds",
        minimum=0,
        why="The development server and the servers of tests end sooner, and have the usual patience until then.",
        kind="float",
        zero="at once",
    )
    shutdown_close_timeout: float | None = setting(
        None,
        "time that connections and ports have to close when the server stops; None for close_timeout",
        unit="seconds",
        minimum=0,
        why="As for shutdown_application_timeout.",
        kind="float",
        zero="at once",
    )
    lifespan_startup_timeout = setting(
        60.0,
        "time for the application's lifespan startup",
        flags=("--lifespan-startup-timeout",),
        unit="seconds",
        minimum=0,
    )
    lifespan_shutdown_timeout = setting(
        30.0,
        "time for the application's lifespan shutdown",
        flags=("--lifespan-shutdown-timeout",),
        unit="seconds",
        minimum=0,
    )
