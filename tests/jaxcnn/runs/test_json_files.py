"""What is written is JSON and comes back; what isn't what it should be is told in one line that names the file."""

import json
import math
import os
import re
from typing import NotRequired, TypedDict

import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs.json_files import Count, Number, read_json, write_json


class Schema(TypedDict):
    name: str
    count: NotRequired[Count]


def refused(path, schema=Schema):
    with pytest.raises(UserError) as error:
        read_json(path, schema, way_out="write it again")
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; write it again")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ").removesuffix("; write it again")


def test_floats_come_back_to_the_bit_and_keys_that_are_not_asked_for_stay(tmp_path):
    content = {"name": "ü", "numbers": [0.1 + 0.2, 5e-324, 1e22, -0.0], "more": {"deep": (1, None, True)}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", Schema, way_out="") == content | {"more": {"deep": [1, None, True]}}


def test_nan_and_infinity_are_null_since_json_has_neither(tmp_path):
    numbers = {"a": math.nan, "b": math.inf, "c": [-math.inf, 1.5]}
    write_json(tmp_path / "a.json", numbers)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": None, "c": [None, 1.5]}
    # As older versions wrote them.
    (tmp_path / "a.json").write_text('{"a": NaN, "b": -Infinity, "c": 1}')
    assert read_json(tmp_path / "a.json", dict[str, Number], way_out="") == {"a": None, "b": None, "c": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"name": "a', "Unterminated string"),
        (b"\xff\xfe{", "can't decode byte 0xff"),
        ('{"name": "ü"}'.encode("utf-16"), "can't decode byte"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"3", "Expected `object`, got `int`"),
        (b"{}", "missing required field `name`"),
        (b'{"name": 3}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "a", "count": -1}', "Expected `int` >= 0"),
        (b'{"name": "a", "count": true}', "Expected `int`, got `bool`"),
        (b'{"name": "a", "count": 1.5}', "Expected `int`, got `float`"),
        (b'{"name": "a", "count": 1' + b"0" * 300 + b"}", "Expected `int` <= "),
        (b'{"name": "a", "count": 1' + b"0" * 5000 + b"}", "Exceeds the limit"),
        (b'{"name": "a", "count": 1e999}', "Expected `int`, got `float`"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"name": "a"} {}', "Extra data"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_damage_is_told_in_one_line(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert re.fullmatch(rf"is damaged \(.*{re.escape(reason)}.*\)", refused(path))


@pytest.mark.parametrize("number", ["1e101", "-1e101", "1e999", "1" + 20 * "0"])
def test_numbers_that_come_from_no_run_are_damage(tmp_path, number):
    (tmp_path / "a.json").write_text(f'{{"loss": {number}}}')
    assert "is damaged (Expected" in refused(tmp_path / "a.json", dict[str, Number])


def test_what_is_no_file_is_told_as_well(tmp_path):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("folder.json", "pipe.json"):
        assert refused(tmp_path / name) == "is damaged (it is not a file)"
    assert refused(tmp_path / "missing.json") == "can't be read: No such file or directory"
    assert refused(tmp_path / ("a" * 300)) == "can't be read: File name too long"
