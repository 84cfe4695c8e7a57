"""Reading `models.toml`: every problem of a file is named at once, with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.catalog.price_parser import PriceBookError, parse

PATH = Path("models.toml")
OK = '[models.m]\ncategory = "image"\nper = "image"\ncredits = 1\n'


def found_in(text: str) -> tuple[str, ...]:
    with pytest.raises(PriceBookError) as caught:
        parse(text, PATH)
    assert str(PATH) in str(caught.value)
    return caught.value.problems


def problems(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"^line \d+: ", "", problem) for problem in found_in(text))


def test_an_empty_book_is_a_book() -> None:
    assert parse("", PATH).models == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = 1\n" + OK, "unknown section 'x'"),
        ("models = 3", "'models' must be a table of models"),
        ("[models]\nm = 3", "m: must be a table"),
        (OK + "price = 1", "m: unknown field 'price'"),
        (OK.replace("credits = 1", ""), "m: credits is missing"),
        (OK.replace("credits = 1", "credits = -1"), "m: credits: credits must not be negative"),
        (OK.replace("credits = 1", "credits = nan"), "m: credits: credits must be a finite number"),
        (OK.replace("credits = 1", "credits = 1e20"), "m: credits: credits must be at most"),
        (OK.replace("credits = 1", "credits = true"), "m: credits must be a number"),
        (OK.replace("credits = 1", 'credits = "1"'), "m: credits must be a number"),
        (OK + "hold = 0.5", "m: hold must be at least credits"),
        (OK.replace('category = "image"', 'category = "audio"'), "m: category must be 'image' or 'video'"),
        (OK.replace('per = "image"', ""), "m: per must be 'image' or 'second'"),
        (OK + "max_n = 11", "m: max_n must be a whole number from 1 to 10"),
        (OK + "max_n = 1.5", "m: max_n must be"),
        (OK + "max_n = true", "m: max_n must be"),
        (OK + "max_seconds = 5", 'm: max_seconds only goes with per = "second"'),
        (OK + 'aliases = "x"', "m: aliases must be a list of texts"),
        (OK + 'aliases = [""]', "m: aliases must be a list of texts"),
        (OK + 'aliases = ["x "]', "m: aliases: 'x ' has spaces around it"),
        (OK + 'aliases = ["x", "x"]', "m: aliases: 'x' is there twice"),
        (OK + "when = [{ size = [], credits = 2 }]", "m: when[0].size is empty, so it matches nothing"),
        (OK + "when = [{ quality = [], credits = 2 }]", "m: when[0].quality is empty, so it matches nothing"),
        (OK + 'when = [{ quality = ["HIGH "] }]', "m: when[0].quality: 'HIGH ' has spaces around it"),
        (OK + 'when = [{ quality = ["a", "a"] }]', "m: when[0].quality: 'a' is there twice"),
        (OK + 'aliases = ["m"]', "m: alias 'm' is the id of another model"),
        (
            OK + 'aliases = ["x"]\n' + OK.replace("models.m", "models.k") + 'aliases = ["x"]',
            "already one of m",
        ),
        (OK + "when = 1", "m: when must be a list of tables"),
        (
            OK + 'when = [{ size = ["8k"], credits = 1 }]',
            "m: when[0].size: '8k' is not one of 512, 1k, 2k, 4k",
        ),
        (OK + "when = [{ sizes = [] }]", "m: unknown field 'when[0].sizes'"),
        (OK + "when = [{ credits = 5, hold = 4 }]", "m: when[0].hold must be at least credits"),
        (OK + 'when = [{ quality = "high" }]', "m: when[0].quality must be a list of texts"),
        ("not toml", "is not valid TOML"),
    ],
)
def test_a_bad_file_says_what_is_wrong(text: str, wrong: str) -> None:
    assert any(wrong in problem for problem in problems(text))


@pytest.mark.parametrize("value", ["0", "-1", "3601", "nan", "inf", "-inf", "true", '"5"', "[]"])
@pytest.mark.parametrize("field", ["default_seconds", "max_seconds"])
def test_seconds_are_a_sane_number(field: str, value: str) -> None:
    fields = {"default_seconds": "5", "max_seconds": "60", field: value}
    text = '[models.v]\ncategory = "video"\nper = "second"\ncredits = 1\n'
    text += "\n".join(f"{name} = {given}" for name, given in fields.items())
    assert problems(text)[0] == f"v: {field} must be a number of seconds, more than 0 and at most 3600"


def test_the_default_cannot_be_longer_than_the_longest() -> None:
    text = (
        '[models.v]\ncategory = "video"\nper = "second"\ncredits = 1\ndefault_seconds = 9\nmax_seconds = 8\n'
    )
    assert problems(text) == ("v: default_seconds is more than max_seconds",)


def test_every_problem_is_named_at_once() -> None:
    text = OK.replace("credits = 1", "") + "odd = 1\n" + OK.replace("models.m", "models.k") + "max_n = 0\n"
    found = problems(text)
    assert found == (
        "m: unknown field 'odd'",
        "m: credits is missing",
        "k: max_n must be a whole number from 1 to 10",
    )


def test_an_operation_that_does_not_exist_is_a_problem() -> None:
    found = problems(OK + 'when = [{ operation = ["images.edit"], credits = 2 }]\n')
    assert any("images.edit" in problem for problem in found)


def test_a_problem_names_the_line_of_its_field_or_of_its_model() -> None:
    text = (
        '[models."a.b"]\ncategory = "image"\nper = "image"\ncredits = 1\n# a remark\n'
        'when = [{ size = ["9k"], credits = 2 }]\n\n[models.x]\ncategory = "video"\nper = "second"\ncredits = -1\n'
    )
    found = [problem.split(": ")[:2] for problem in found_in(text)]
    assert ["line 6", "a.b"] in found  # the condition
    assert ["line 11", "x"] in found  # the negative credits
    assert ["line 8", "x"] in found  # default_seconds is missing: the model's own line
