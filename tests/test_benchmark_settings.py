"""The words in which a notebook is told how to measure."""

from __future__ import annotations

import pytest

from indexlab.benchmark import Settings
from indexlab.errors import InputError


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("", Settings()),
        ("cache=cold", Settings(cache="cold")),
        ("seed=7  statement_timeout=2.5", Settings(seed=7, statement_timeout=2.5)),
        ("clients=8 rate=200 seconds=30", Settings(clients=8, rate=200.0, seconds=30.0)),
    ],
)
def test_words_become_settings_and_words_again(words: str, wanted: Settings) -> None:
    assert Settings.parse(words) == wanted
    assert Settings.parse(wanted.words()) == wanted


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("cahce=cold", r"'cahce=cold' is no setting of a benchmark: there are cache=warm"),
        ("cold", "'cold' is no setting"),
        ("cache=lukewarm", "cache 'lukewarm' is none of warm, cold"),
        ("seed=x", "seed is 'x': it must be a number"),
        ("seed=1.5", r"seed is '1\.5': it must be a number"),
        ("seed=-1", "seed -1 is negative"),
        ("clients=-1", "clients -1 is negative"),
        ("seconds=nan", "seconds nan is not a number"),
        ("statement_timeout=inf", "statement_timeout inf is not a number"),
    ],
)
def test_what_is_no_setting_is_refused(words: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Settings.parse(words)
