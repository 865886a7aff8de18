"""`daphne_ng.sources.names`: the three names of a setting."""

from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import settings
from daphne_ng.sources.names import RESERVED, names


def test_no_field_is_out_of_reach() -> None:
    assert {field for field, _ in settings()} <= {name.dest for name in names().values()}


def test_one_rule_makes_the_names() -> None:
    name = names()["close_timeout"]
    assert (name.flag, name.variable) == ("--close-timeout", "DAPHNE_NG_CLOSE_TIMEOUT")
    # Under its field's name somebody would write the password itself.
    assert names()["ssl_keyfile_password_file"].dest == "ssl_keyfile_password"
    assert "ssl_keyfile_password" not in names()


def test_every_flag_is_an_option_of_that_setting() -> None:
    actions = CommandLineInterface().parser._option_string_actions
    for name in names().values():
        if name.flag:
            assert actions[name.flag].dest == name.dest
            assert actions["--" + name.key.replace("_", "-")].dest == name.dest


def test_every_option_has_a_key_unless_it_only_shows_something() -> None:
    known = {name.dest for name in names().values()}
    shows = {"help", "version", "config_file", "check_config", "print_config", "print_completion"}
    assert {action.dest for action in CommandLineInterface().parser._actions} - known == shows


def test_no_variable_is_reserved() -> None:
    assert not {name.variable for name in names().values()} & RESERVED
