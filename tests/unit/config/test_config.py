"""`daphne_ng.config`: the defaults, what is refused, and the descriptions that options and docs are made from."""

import dataclasses
import importlib
import pickle
import pkgutil
from typing import Any

import pytest

import daphne_ng.config
from daphne_ng.config import Config, Setting, check_alone, settings
from daphne_ng.config.config import RULES
from daphne_ng.config.setting import SettingGroup
from daphne_ng.errors import ConfigurationError


def test_the_defaults_are_valid() -> None:
    Config()


def test_every_field_is_described_and_every_description_belongs_to_a_field() -> None:
    fields = [field.name for field in dataclasses.fields(Config)]

    assert [name for name, _ in settings()] == fields
    assert all(setting.group and setting.help for _, setting in settings())


def test_every_setting_of_a_group_is_a_field_and_every_group_has_a_heading_of_its_own() -> None:
    for module in pkgutil.iter_modules(daphne_ng.config.__path__, "daphne_ng.config."):
        importlib.import_module(module.name)
    described: dict[str, str] = {}
    for group in SettingGroup.__subclasses__():
        if group.__module__.startswith("daphne_ng.config."):
            entries: list[Any] = [entry for entry in vars(group).values() if isinstance(entry, dataclasses.Field)]
            for entry in entries:
                described[entry.metadata["setting"].name] = entry.metadata["setting"].group

    assert described == {name: known.group for name, known in settings()}


def test_a_field_has_the_name_and_the_default_of_its_setting() -> None:
    for field in dataclasses.fields(Config):
        known: Setting = field.metadata["setting"]
        assert (known.name, known.default) == (field.name, field.default)


def test_no_two_settings_share_a_flag() -> None:
    flags = [flag for _, setting in settings() for flag in setting.flags]

    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("websocket_timeout", 86400),
        ("websocket_connect_timeout", 5),
        ("websocket_handshake_timeout", 5),
        ("websocket_max_message_size", 1048576),
        ("websocket_max_frame_size", 1048576),
        ("ping_interval", 20),
        ("ping_timeout", 30),
        ("application_close_timeout", 10),
        ("http_timeout", None),
        ("root_path", ""),
        ("server_name", "daphne"),
    ],
)
def test_daphnes_defaults_are_kept(field: str, value: object) -> None:
    assert getattr(Config(), field) == value


def test_an_error_names_the_setting_by_its_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"^--head-timeout must be at least 0, not -1$"):
        Config(head_timeout=-1)


def test_an_error_names_a_setting_without_flag_by_its_field() -> None:
    with pytest.raises(ConfigurationError, match=r"^close_timeout must be at least 0"):
        Config(close_timeout=-0.5)


@pytest.mark.parametrize("value", ["5", True, [1]])
@pytest.mark.parametrize("field", ["head_timeout", "websocket_timeout", "websocket_handshake_timeout", "pipelined_max"])
def test_a_number_must_be_a_number(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a number"):
        Config(**{field: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["keep_alive_timeout", "websocket_timeout"])
def test_a_number_must_be_finite(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a finite number"):
        Config(**{field: value})


@pytest.mark.parametrize("field", ["websocket_timeout", "websocket_connect_timeout"])
def test_a_negative_websocket_timeout_means_no_limit(field: str) -> None:
    no_limit: dict[str, Any] = {field: -1}

    assert getattr(Config(**no_limit), field) == -1


def test_a_choice_must_be_one_of_the_choices() -> None:
    with pytest.raises(ConfigurationError, match=r"^--lifespan must be one of auto, on, off, not 'maybe'$"):
        Config(lifespan="maybe")


@pytest.mark.parametrize(("name", "known"), [pair for pair in settings() if pair[1].minimum is not None])
def test_a_number_may_be_its_least_and_its_greatest_value_and_nothing_beyond(name: str, known: Setting) -> None:
    assert known.minimum is not None
    within: dict[str, Any] = {"inbox_low_bytes": 0}
    for allowed in (known.minimum, known.maximum):
        if allowed is not None:
            assert getattr(Config(**within | {name: allowed}), name) == allowed
    with pytest.raises(ConfigurationError, match=f"^{known.label} must be at least {known.minimum:g}, not"):
        Config(**within | {name: known.minimum - 1})
    if known.maximum is not None:
        with pytest.raises(ConfigurationError, match=f"^{known.label} must be at most {known.maximum:g}$"):
            Config(**within | {name: known.maximum + 1})


@pytest.mark.parametrize(
    ("name", "maximum"),
    [
        ("websocket_compression_window_bits", 15),
        ("websocket_compression_level", 9),
        ("websocket_compression_memory_level", 9),
    ],
)
def test_what_zlib_takes_has_a_greatest_value(name: str, maximum: int) -> None:
    assert dict(settings())[name].maximum == maximum


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "marks of the inbox": (
        {"inbox_low_bytes": 100, "inbox_high_bytes": 99},
        "inbox_low_bytes must not exceed inbox_high_bytes",
    ),
    "one process that reloads": (
        {"reload": True, "workers": 2},
        "--reload is for development, with one worker: leave --workers out",
    ),
    "a key has a certificate": (
        {"ssl_keyfile": "key.pem"},
        "--ssl-keyfile needs --ssl-certfile, the certificate that the key belongs to",
    ),
    "client certificates have authorities": (
        {"ssl_cert_reqs": "optional"},
        "--ssl-cert-reqs optional needs --ssl-ca-certs, the authorities of these certificates",
    ),
    "authorities have client certificates": (
        {"ssl_ca_certs": "ca.pem"},
        "--ssl-ca-certs needs --ssl-cert-reqs: without it no client is asked for a certificate",
    ),
}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_between_fields_says_what_breaks_it(rule: str) -> None:
    given, message = BROKEN[rule]
    for name, value in given.items():
        dict(settings())[name].checked(value)  # right by itself
    with pytest.raises(ConfigurationError) as caught:
        Config(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize("workers", ["2", 2, "auto", "0002"])
def test_the_number_of_workers_is_kept_as_text(workers: Any) -> None:
    assert Config(workers=workers).workers == str(workers)


@pytest.mark.parametrize("workers", [0, "0", -1, "", "00000", "10000", "many", "２", True, 1.0, None])
def test_a_wrong_number_of_workers_is_refused(workers: Any) -> None:
    shown = repr(str(workers)) if type(workers) is int else repr(workers)
    with pytest.raises(ConfigurationError) as caught:
        Config(workers=workers)
    assert str(caught.value) == f"--workers must be a number from 1 on, or auto, not {shown}"


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("proxy_address_header", "--proxy-headers-host"),
        ("proxy_port_header", "--proxy-headers-port"),
        ("proxy_proto_header", "proxy_proto_header"),
    ],
)
def test_a_field_that_a_proxy_sends_has_a_name_that_arrives(field: str, option: str) -> None:
    for value, reason in (
        ("X Real", "'X Real' is not a header name"),
        ("X_Real", "'X_Real' is never seen: headers with '_' are dropped"),
    ):
        given: dict[str, Any] = {field: value}
        with pytest.raises(ConfigurationError) as caught:
            Config(**given)
        assert str(caught.value) == f"{option}: {reason}"


def test_a_server_by_itself_refuses_what_the_process_would_have_to_do() -> None:
    refused = {name for name, known in settings() if known.process_wide}
    assert refused == {
        *("workers", "reload", "limit_max_requests", "limit_worker_memory", "worker_max_age"),
        *("pid_file", "user", "group", "umask"),
    }
    check_alone(Config(limit_workers=3, loop="asyncio"))
    with pytest.raises(ConfigurationError, match="^user: a Server is one process, and does not see to that; "):
        check_alone(Config(user="nobody"))


def test_a_config_survives_a_pickle_and_equals_and_hashes_by_its_fields() -> None:
    config = Config(workers=2, headers=[(b"x", b"y")], close_timeout=1)  # type: ignore[arg-type]
    restored = pickle.loads(pickle.dumps(config))  # noqa: S301

    assert restored == config
    assert hash(restored) == hash(config)
    assert restored != Config()
    assert dataclasses.replace(config, workers="1", headers=(), close_timeout=5.0) == Config()
    assert "close_timeout=1," in repr(config)
    assert not hasattr(config, "__dict__")


@pytest.mark.parametrize("name", ["a\r\nX: y", "a\x00", "\u20ac"])
def test_a_server_name_that_would_split_the_response_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--server-name"):
        Config(server_name=name)


@pytest.mark.parametrize(
    "header",
    [(b"", b"x"), (b"a b", b"x"), (b"a:", b"x"), (b"x", b"a\nb"), (b"x", b"a\x00"), (b"Content-Length", b"1")],
)
def test_a_header_that_would_break_the_response_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ConfigurationError, match="--header"):
        Config(headers=(header,))


@pytest.mark.parametrize("mode", ["", "66", "888", "rw-rw----", "0o660", "1777", "66０", "+666"])
def test_a_socket_mode_is_octal(mode: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--unix-socket-mode: mode .* should be three octal digits"):
        Config(unix_socket_mode=mode)


@pytest.mark.parametrize("owner", [":", "a:", "a:b:c", "a b", ":a b"])
def test_a_socket_owner_is_user_and_group(owner: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--unix-socket-owner should read USER, USER:GROUP or :GROUP, not"):
        Config(unix_socket_owner=owner)


@pytest.mark.parametrize("owner", ["", "www-data", "33", "a:b", ":b"])
def test_a_socket_owner_may_be_half_given(owner: str) -> None:
    assert Config(unix_socket_owner=owner, unix_socket_mode="0660").unix_socket_owner == owner


def test_replace_validates_again() -> None:
    config = Config()

    assert config.replace(root_path="/x").root_path == "/x"
    with pytest.raises(ConfigurationError):
        config.replace(body_timeout=-1)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().root_path = "/x"  # type: ignore[misc]
