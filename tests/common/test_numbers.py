"""Whole numbers that people and machines write as text."""

import pytest

from common.numbers import whole_between


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), ("-3", -3), ("0012", 12), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_number(text, number):
    assert whole_between(text, -10, 10**18) == number


@pytest.mark.parametrize(
    "text", ["", "-", "+1", " 1", "1 ", "1.0", "1e3", "1_000", "\u0663", "\u00b2", "9" * 5000, None, 7]
)
def test_what_int_would_take_or_choke_on_is_none(text):
    assert whole_between(text, 0, 2**63 - 1) is None


def test_both_ends_belong_to_the_range():
    assert [whole_between(str(n), 1, 3) for n in range(5)] == [None, 1, 2, 3, None]
