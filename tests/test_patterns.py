"""Patterns match what they are made of, and nothing else."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from lsplugin.patterns import any_of, field_in_json


def test_common_beginnings_are_written_once() -> None:
    assert any_of([123, 124, 1245]) == "^12(?:3|4(?:5)?)$"
    assert any_of([]) == "^0$"


@given(st.sets(st.integers(1, 2000)), st.integers(1, 2000))
def test_a_pattern_of_numbers_matches_just_these(numbers: set[int], other: int) -> None:
    pattern = re.compile(any_of(numbers))
    assert {number for number in range(1, 2001) if pattern.search(str(number))} == numbers
    assert bool(pattern.search(f"{other}")) == (other in numbers)


_VALUES = st.one_of(st.text(alphabet='aA"\\: {},é\U0001f600', max_size=4), st.integers(-50, 50), st.booleans())


@given(_VALUES, _VALUES, st.booleans())
def test_a_field_in_json_is_found_by_its_exact_value(wanted: object, held: object, ascii_only: bool) -> None:
    text = json.dumps({"note": f'"source": {json.dumps(wanted)},', "source": held, "last": 1}, ensure_ascii=ascii_only)
    assert bool(re.search(field_in_json("source", wanted), text)) == (json.dumps(wanted) == json.dumps(held))
