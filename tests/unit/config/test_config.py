"""`daphne_ng.config`: the defaults, what is refused, and the descriptions that options and docs are made from."""

import dataclasses
from typing import Any

import pytest

from daphne_ng.config import Config, settings
from daphne_ng.errors import ConfigurationError


def test_the_defaults_are_valid() -> None:
    Config()


def test_every_field_is_described_and_every_description_belongs_to_a_field() -> None:
    fields = [field.name for field in dataclasses.fields(Config)]

    assert [name for name, _ in settings()] == fields
    assert all(setting.group and setting.help for _, setting in settings())


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


def test_the_low_mark_must_not_exceed_the_high_mark() -> None:
    with pytest.raises(ConfigurationError, match="inbox_low_bytes"):
        Config(inbox_low_bytes=100, inbox_high_bytes=99)


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
