"""The settings of WebSocket (RFC 6455, RFC 7692)."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["WebSocketSettings"]


class WebSocketSettings(SettingGroup, heading="WebSocket"):
    """Messages, frames, compression and keepalive of WebSockets."""

    websocket_timeout = setting(
        86400,
        "longest life of a WebSocket; 0 or negative for no limit",
        flags=("--websocket_timeout", "--websocket-timeout"),
        unit="seconds",
        kind="int",
        why="Daphne's default.",
    )
    websocket_connect_timeout = setting(
        5,
        "time for the application to accept a WebSocket (403); 0 or negative for no limit",
        flags=("--websocket_connect_timeout", "--websocket-connect-timeout"),
        unit="seconds",
        kind="int",
        why="The default of Daphne's command line; its Server class has 20.",
    )
    websocket_handshake_timeout = setting(
        5,
        "time for a WebSocket handshake, whichever of the two is shorter; 0 or negative for no limit",
        unit="seconds",
        kind="int",
        why="Daphne's default; its command line sets it with `--websocket_connect_timeout`.",
    )
    websocket_max_message_size = setting(
        1024 * 1024,
        "largest incoming message after decompression (1009); 0 for no limit",
        flags=("--websocket-max-message-size",),
        unit="bytes",
        minimum=0,
        why="Daphne's default since 4.2.2.",
    )
    websocket_max_frame_size = setting(
        1024 * 1024,
        "largest incoming frame (1009); 0 for no limit",
        flags=("--websocket-max-frame-size",),
        unit="bytes",
        minimum=0,
        why="Daphne's default since 4.2.2.",
    )
    websocket_max_fragments = setting(
        1024,
        "most frames of one incoming message (1008), beside one for each 256 bytes of it; 0 for no limit",
        minimum=0,
        why="Smaller fragments cost more than they carry.",
    )
    websocket_control_burst = setting(
        100,
        "most pings and pongs that a client may send at once (1008), beside one for each 32 bytes in messages",
        minimum=1,
        why="Far above what any client needs; each ping costs an answer.",
    )
    websocket_control_rate = setting(
        10.0,
        "pings and pongs per second that a client may send for ever",
        minimum=0,
        kind="float",
        why="Libraries ping every 20 to 60 seconds.",
    )
    websocket_compression = setting(
        True,
        "agree to permessage-deflate when a client offers it",
        flags=("--websocket-compression", "--no-websocket-compression"),
        kind="switch",
        why="Every browser offers it. Nothing is kept between messages, so that idle sockets stay small.",
    )
    websocket_compression_window_bits = setting(
        12,
        "base-two logarithm of the compression window, for both directions where the client allows it",
        minimum=9,
        maximum=15,
        why="4 KiB hold most messages; 15 would cost eight times the memory for each message under way.",
    )
    websocket_compression_level = setting(
        1,
        "level of compression, 1 (fast) to 9 (small)",
        minimum=1,
        maximum=9,
        why="Level 6, the usual one, takes twice the time to save some 5 % of the bytes of a message of 4 KiB of JSON.",
    )
    websocket_compression_memory_level = setting(
        5,
        "memory level of the compressor, 1 to 9",
        minimum=1,
        maximum=9,
    )
    websocket_compression_min_bytes = setting(
        256,
        "smallest message that is sent compressed",
        unit="bytes",
        minimum=0,
        why="Below that the time costs more than the bytes.",
    )
    websocket_compression_speedups = setting(
        True,
        "use isal and zlib-ng for compressed messages where they are installed",
        flags=("--websocket-compression-speedups", "--no-websocket-compression-speedups"),
        kind="switch",
        why="The extra deflate installs them; other packages may do so too, and zlib does without.",
    )
    ping_interval = setting(
        20,
        "idle time before a keepalive ping; 0 for none",
        flags=("--ping-interval",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
    )
    ping_timeout = setting(
        30,
        "time for the answer to a keepalive ping; 0 to wait for ever",
        flags=("--ping-timeout",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
    )
