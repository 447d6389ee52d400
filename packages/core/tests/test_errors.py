"""Messages as a terminal shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.cli.main import main
from reweight_core.errors import on_one_line


@given(st.text())
def test_any_message_is_a_line_that_can_be_printed(text):
    assert on_one_line(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=200))
def test_what_can_be_printed_stays(text):
    assert on_one_line(text) == " ".join(text.splitlines()) if text.isprintable() else True


def test_a_long_word_is_shown_by_its_ends():
    line = on_one_line(f"file {'a' * 300}{'b' * 300} is missing")
    assert line == f"file {'a' * 100}...{'b' * 100} is missing"


def test_an_argument_that_is_not_utf_8_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval", "a\udcff"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "Error: the argument b'a\\xff' is not UTF-8\n"
