"""The page of prices: the book, a refused file, and what was really charged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from gateway.credits import charged
from gateway.ids import uuid7
from tests.integration.admin.pages.conftest import Dashboard, text_of
from tests.integration.sign_in.conftest import BOOTSTRAP, CONFIG, Sites

MODEL = "gemini-3-pro-image-preview"


async def test_the_book_in_force(dashboard: Dashboard) -> None:
    text = await dashboard.page("/prices")
    assert f"{MODEL} nano-banana-pro image size 4k 16.00 16.00 – 10 images" in text
    assert "kling second always 2.24 4.48" in text
    assert "refused" not in text.split("The book")[0].replace("refused or held", "")
    lines = (await dashboard.source("/prices", format="csv")).splitlines()
    assert lines[0].startswith("model,aliases,category,per,when,credits,hold")
    assert f"{MODEL},nano-banana-pro,image,image,size 4k,16,16,0,10,,,," in lines
    assert not lines[-1].startswith("total")


async def test_a_refused_file_is_told_with_its_lines(sites: Sites, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text((CONFIG / "gateway.toml").read_text())
    book = tmp_path / "models.toml"
    book.write_text((CONFIG / "models.toml").read_text())
    site = sites()
    site.runtime.prices._path = book
    book.write_text('[models."<b>odd"]\ncategory = "image"\nper = "image"\ncredits = -1\n')
    assert site.runtime.prices.reload() is False
    browser = await site.signed_in(BOOTSTRAP)
    answer = await browser.get("/admin/prices")
    text = text_of(answer.text)
    assert "The file on disk was refused; the book below stays in force." in text
    assert "line 4: <b>odd: credits" in text
    assert "<b>odd" not in answer.text
    assert "kling second" in text


async def test_held_against_charged(dashboard: Dashboard) -> None:
    model = f"model-{uuid4().hex[:8]}"
    for quote, settled, estimated in ((8, 8, False), (8, 4, False), (8, 18, False), (8, 8, True)):
        await settled_hold(dashboard, model, quote, settled, estimated=estimated)
    async with dashboard.site.runtime.admin_database.transaction() as connection:
        found = await charged.by_model(connection, [model, "never-called"])
    assert set(found) == {model}
    one = found[model]
    assert (one.calls, one.quoted, one.settled, one.overruns, one.estimates) == (
        3,
        24_000_000,
        30_000_000,
        1,
        1,
    )
    assert one.drift == 0.25
    assert (f"{one.mean_quoted}", f"{one.mean_settled}") == ("8.00", "10.00")


async def test_only_the_latest_calls_are_compared(dashboard: Dashboard) -> None:
    model = f"model-{uuid4().hex[:8]}"
    await settled_hold(dashboard, model, 1, 100)
    for _ in range(charged.LATEST):
        await settled_hold(dashboard, model, 2, 2)
    async with dashboard.site.runtime.admin_database.transaction() as connection:
        one = (await charged.by_model(connection, [model]))[model]
    assert (one.calls, one.drift, one.overruns) == (charged.LATEST, 0.0, 0)


async def test_the_page_says_what_is_an_estimate(dashboard: Dashboard) -> None:
    await settled_hold(dashboard, "wan", 2, 2, estimated=True)
    await settled_hold(dashboard, MODEL, 8, 10)
    text = await dashboard.page("/prices")
    assert "wan 0 only calls whose cost is an estimate" in text
    assert f"{MODEL} 1 8.00 10.00 +25.0 % 1" in text


async def settled_hold(
    dashboard: Dashboard, model: str, quote: int, settled: int, *, estimated: bool = False
) -> None:
    await dashboard.site.sql(
        "INSERT INTO holds (id, team_id, key_id, request_id, operation, model, state, quote, settled, estimated,"
        " ended_at)"
        " VALUES (%(id)s, gen_random_uuid(), 'k', 'r', 'async.images.generations', %(model)s, 'settled', %(quote)s,"
        " %(settled)s, %(estimated)s, %(at)s)",
        id=uuid7(),
        model=model,
        quote=quote * 1_000_000,
        settled=settled * 1_000_000,
        estimated=estimated,
        at=datetime.now(UTC),
    )
