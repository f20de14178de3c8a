"""Limits as options of ``sessions serve`` and as environment variables."""

from __future__ import annotations

import argparse
from typing import Any

import attrs
import pytest

from sessions_core.domain.rate import Rate
from sessions_core.errors import InvalidError
from sessions_server.cli.limit_options import add_limit_options, limits_given
from sessions_server.config import Config, variable_of
from sessions_server.limits.settings import LimitSettings

NAMES = [field.name for field in attrs.fields(LimitSettings)]


def given(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_limit_options(parser)
    return limits_given(parser.parse_args(words))


def test_every_limit_is_an_option_and_a_setting() -> None:
    words = [word for name in NAMES for word in (f"--{name.replace('_', '-')}", "1")]
    options = given(*words)
    variables = Config.from_environment({variable_of(name): "1" for name in NAMES})
    assert options == {name: getattr(variables, name) for name in NAMES}


def test_what_is_not_said_keeps_its_default() -> None:
    assert given() == {}
    config = attrs.evolve(Config(), **given("--token-rate", "5:7"))
    assert config == attrs.evolve(Config(), token_rate=Rate(5, 7))


@pytest.mark.parametrize("word", ["0", "off", ""])
def test_a_rate_can_be_switched_off(word: str) -> None:
    assert given("--token-rate", word) == {"token_rate": None}
    assert Config.from_environment({"SESSIONS_TOKEN_RATE": word}).token_rate is None


@pytest.mark.parametrize("word", ["x", "-1", "5:0", "nan", "1e9"])
def test_a_rate_that_is_none_is_told_by_the_name_it_was_given_under(word: str) -> None:
    with pytest.raises(InvalidError, match=r"^--guess-rate "):
        given(f"--guess-rate={word}")
    with pytest.raises(InvalidError, match=r"^SESSIONS_GUESS_RATE "):
        Config.from_environment({"SESSIONS_GUESS_RATE": word})


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("streams", "unfinished_bytes"))])
def test_there_is_no_less_than_nothing(name: str) -> None:
    assert getattr(Config.from_environment({variable_of(name): "0"}), name) == 0
    with pytest.raises(InvalidError, match="at least 1, or 0 for no limit"):
        Config.from_environment({variable_of(name): "-1"})


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "É"])
def test_a_header_has_a_name(name: str) -> None:
    with pytest.raises(InvalidError, match="must be the name of a header"):
        Config(client_address_header=name)
