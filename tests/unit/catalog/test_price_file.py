"""The price book in force: edits arrive, bad ones do not, and both say so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from gateway.catalog.price_book import quote
from gateway.catalog.price_file import PriceFile, load
from gateway.catalog.price_parser import PriceBookError

MODEL = '[models.m]\ncategory = "image"\nper = "image"\ncredits = {credits}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(MODEL.format(credits=1))
    return path


def charged(prices: PriceFile, model: str = "m") -> int | None:
    found = prices.priced(model)
    return None if found is None else found.price.credits


def test_an_edit_is_taken_over_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prices = PriceFile(path)
    assert charged(prices) == 1_000_000
    assert not prices.reload()
    path.write_text(MODEL.format(credits=2.5))
    with caplog.at_level(logging.INFO):
        assert prices.reload()
        assert not prices.reload()
    assert charged(prices) == 2_500_000
    assert [record.message for record in caplog.records] == ["price book taken over"]


def test_a_bad_edit_keeps_the_old_book_and_says_so_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prices = PriceFile(path)
    path.write_text(MODEL.format(credits=-2) + "odd = 1\n")
    assert not prices.reload()
    assert not prices.reload()
    assert charged(prices) == 1_000_000
    assert prices.error is not None
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert {str(vars(record)["detail"]) for record in caplog.records} == set(prices.error.problems)
    path.write_text(MODEL.format(credits=3))
    assert prices.reload()
    assert charged(prices) == 3_000_000
    assert vars(prices)["error"] is None


def test_a_file_that_is_gone_keeps_the_old_book_until_it_is_back(path: Path) -> None:
    prices = PriceFile(path)
    content = path.read_text()
    path.unlink()
    assert not prices.reload()
    assert prices.error is not None
    assert charged(prices) == 1_000_000
    path.write_text(content)
    assert prices.reload()
    assert prices.error is None


def test_a_file_swapped_in_by_an_editor_is_noticed_though_size_and_time_are_the_same(path: Path) -> None:
    prices = PriceFile(path)
    before = path.stat()
    other = path.with_name("new.toml")
    other.write_text(MODEL.format(credits=7))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    assert prices.reload()
    assert charged(prices) == 7_000_000


def test_a_process_does_not_start_on_a_bad_book(path: Path) -> None:
    path.write_text("models = 1")
    with pytest.raises(PriceBookError):
        PriceFile(path)


def test_a_model_without_a_price_is_refused_or_held_at_one_amount(path: Path) -> None:
    assert PriceFile(path).priced("unheard-of") is None
    held = PriceFile(path, default_hold=25_000_000).priced("unheard-of")
    assert held is not None
    assert held.category is None
    found = quote(held, operation="x", images=1, sizes=("4k",), quality="high", seconds=None, input_images=3)
    assert (found.credits, found.hold) == (25_000_000, 25_000_000)
    assert charged(PriceFile(path, default_hold=25_000_000)) == 1_000_000


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(PriceBookError, match="cannot be read"):
            load(path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# ü".encode("latin-1"))
    with pytest.raises(PriceBookError, match="not valid TOML"):
        load(latin)
