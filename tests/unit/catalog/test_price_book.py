"""The price book: quotes as the contract's table says, and every problem of a file named at once."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.price_book import ModelPrice, Price, PriceBook, PriceBookError, load, quote
from gateway.credits.amount import MICRO

SHIPPED = Path(__file__).parents[3] / "config" / "models.toml"
OK = '[models.m]\ncategory = "image"\nper = "image"\ncredits = 1\n'


@pytest.fixture(scope="module")
def shipped() -> PriceBook:
    return load(SHIPPED)


def book(tmp_path: Path, text: str) -> PriceBook:
    path = tmp_path / "models.toml"
    path.write_text(text, "utf-8")
    return load(path)


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(PriceBookError) as caught:
        book(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(caught.value)
    return tuple(re.sub(r"^line \d+: ", "", problem) for problem in caught.value.problems)


def priced(model: ModelPrice, **asked: object) -> tuple[float, float]:
    """(charged, held) in credits of one call, by default one plain image."""
    plain: dict[str, object] = {
        "operation": "images.generations",
        "images": 1,
        "sizes": (None,),
        "quality": None,
        "seconds": None,
        "input_images": 0,
    }
    found = quote(model, **(plain | asked))  # type: ignore[arg-type]
    return found.credits / MICRO, found.hold / MICRO


@pytest.mark.parametrize(
    ("model", "asked", "charged", "held"),
    [
        ("gemini-2.5-flash-image", {}, 2, 2),
        ("nano-banana", {"images": 3}, 6, 6),
        ("nano-banana-2", {}, 4, 4),
        ("nano-banana-2", {"sizes": ("512",)}, 4, 4),
        ("nano-banana-2", {"sizes": ("2k",)}, 6, 6),
        ("nano-banana-2", {"sizes": ("4k",)}, 8, 8),
        ("nano-banana-2", {"sizes": ("512", "2k")}, 6, 6),
        ("nano-banana-2", {"sizes": ()}, 4, 4),
        ("nano-banana-pro", {"sizes": ("4k",), "images": 10}, 160, 160),
        ("gpt-image-1.5", {}, 1, 4),
        ("gpt-image-1.5", {"quality": " HIGH "}, 1, 8),
        ("gpt-image-1.5", {"quality": "low"}, 1, 4),
        ("veo", {}, 8, 16),
        ("veo", {"seconds": Decimal(60)}, 60, 120),
        ("kling", {"seconds": Decimal("2.5")}, 5.6, 11.2),
        ("wan", {"seconds": Decimal(1)}, 2, 4),
    ],
)
def test_the_shipped_book_prices_what_pixapi_publishes(
    shipped: PriceBook, model: str, asked: dict[str, object], charged: float, held: float
) -> None:
    found = shipped.model(model)
    assert found is not None
    assert priced(found, **asked) == (charged, held)


def test_names_are_resolved(shipped: PriceBook) -> None:
    assert shipped.canonical("nano-banana-pro") == "gemini-3-pro-image-preview"
    assert shipped.canonical("anything") == "anything"
    assert shipped.model("nano-banana") is shipped.model("gemini-2.5-flash-image")
    assert shipped.model("anything") is None
    assert shipped.model("NANO-BANANA") is None


def test_the_first_matching_condition_wins_with_every_property(tmp_path: Path) -> None:
    found = book(
        tmp_path,
        OK
        + """when = [
          { size = ["2k", "4k"], quality = ["High"], operation = ["images.edits"], credits = 9 },
          { size = ["4k"], credits = 5, hold = 7 },
          { quality = ["high"], hold = 3 },
        ]\nper_input_image = 0.5\n""",
    ).model("m")
    assert found is not None
    edit = {"operation": "images.edits"}
    assert priced(found, sizes=("2k",), quality="high", **edit) == (9, 9)
    assert priced(found, sizes=("2k",), quality="high") == (1, 3)
    assert priced(found, sizes=("4k",), quality="low", **edit) == (5, 7)
    assert priced(found, sizes=(None,)) == (1, 1)
    assert priced(found, images=2, input_images=3) == (5, 5)


def test_a_condition_s_credits_are_held_and_the_base_hold_is_kept(tmp_path: Path) -> None:
    found = book(
        tmp_path, OK + 'hold = 4\nwhen = [{ size = ["4k"], credits = 6 }, { size = ["2k"] }]\n'
    ).model("m")
    assert found is not None
    assert priced(found, sizes=("4k",)) == (6, 6)
    assert priced(found, sizes=("2k",)) == (1, 4)


@given(
    st.integers(0, 10**9),
    st.integers(1, 10),
    st.decimals("0.000001", 60, places=6),
)
def test_a_video_s_price_is_exact_and_half_up(micro: int, images: int, seconds: Decimal) -> None:
    model = ModelPrice(
        id="v",
        category="video",
        per="second",
        price=Price(micro, micro),
        when=(),
        aliases=(),
        per_input_image=0,
        max_n=10,
        default_seconds=Decimal(5),
        max_seconds=Decimal(60),
    )
    found = quote(
        model, operation="x", images=images, sizes=(), quality=None, seconds=seconds, input_images=0
    )
    scaled = micro * images * int(seconds * MICRO)
    assert found == Price(*[(scaled + MICRO // 2) // MICRO] * 2)


def test_an_empty_book_is_a_book(tmp_path: Path) -> None:
    assert book(tmp_path, "").models == {}


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
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, text: str, wrong: str) -> None:
    assert any(wrong in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize("value", ["0", "-1", "3601", "nan", "inf", "-inf", "true", '"5"', "[]"])
@pytest.mark.parametrize("field", ["default_seconds", "max_seconds"])
def test_seconds_are_a_sane_number(tmp_path: Path, field: str, value: str) -> None:
    fields = {"default_seconds": "5", "max_seconds": "60", field: value}
    text = '[models.v]\ncategory = "video"\nper = "second"\ncredits = 1\n'
    text += "\n".join(f"{name} = {given}" for name, given in fields.items())
    assert (
        problems(tmp_path, text)[0] == f"v: {field} must be a number of seconds, more than 0 and at most 3600"
    )


def test_the_default_cannot_be_longer_than_the_longest(tmp_path: Path) -> None:
    text = (
        '[models.v]\ncategory = "video"\nper = "second"\ncredits = 1\ndefault_seconds = 9\nmax_seconds = 8\n'
    )
    assert problems(tmp_path, text) == ("v: default_seconds is more than max_seconds",)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = OK.replace("credits = 1", "") + "odd = 1\n" + OK.replace("models.m", "models.k") + "max_n = 0\n"
    found = problems(tmp_path, text)
    assert found == (
        "m: unknown field 'odd'",
        "m: credits is missing",
        "k: max_n must be a whole number from 1 to 10",
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(PriceBookError, match="cannot be read"):
            load(path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# ü".encode("latin-1"))
    with pytest.raises(PriceBookError, match="not valid TOML"):
        load(latin)


def test_an_operation_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(PriceBookError) as caught:
        book(tmp_path, OK + 'when = [{ operation = ["images.edit"], credits = 2 }]\n')
    assert any("images.edit" in problem for problem in caught.value.problems)


def test_a_problem_names_the_line_of_its_field_or_of_its_model(tmp_path: Path) -> None:
    text = (
        '[models."a.b"]\ncategory = "image"\nper = "image"\ncredits = 1\n# a remark\n'
        'when = [{ size = ["9k"], credits = 2 }]\n\n[models.x]\ncategory = "video"\nper = "second"\ncredits = -1\n'
    )
    with pytest.raises(PriceBookError) as caught:
        book(tmp_path, text)
    found = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert ["line 6", "a.b"] in found  # the condition
    assert ["line 11", "x"] in found  # the negative credits
    assert ["line 8", "x"] in found  # default_seconds is missing: the model's own line
