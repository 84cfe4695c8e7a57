"""The sentences of the pages, as their source holds them: `python -m tests.docs.messages` adds new ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

from gateway.pages.language import CATALOGUES

ROOT = Path(__file__).parents[2]
KEYWORDS = {
    "_": None,
    "N_": None,
    "text": None,
    "gettext": None,
    "ngettext": (1, 2),
    "ntext": (1, 2),
}
SOURCES = (
    "gateway/pages/**/*.html",
    "gateway/pages/*.py",
    "gateway/admin/pages/*.py",
    "gateway/admin/sign_in*.py",
    "gateway/admin/oidc.py",
    "gateway/endpoints/team_*.py",
)
PARSER_OPTIONS = {"trimmed": "true", "newstyle_gettext": "true", "silent": "false"}


def messages() -> dict[str | tuple[str, ...], list[str]]:
    """Every sentence and the files that say it; a tuple has singular and plural."""
    found: dict[str | tuple[str, ...], list[str]] = {}
    for path in _files():
        method = "jinja2.ext:babel_extract" if path.suffix == ".html" else "python"
        options = PARSER_OPTIONS if path.suffix == ".html" else {}
        for _, message, _, _ in extract_from_file(method, str(path), KEYWORDS, options=options):
            if message:
                found.setdefault(message, []).append(path.relative_to(ROOT).as_posix())
    return found


def catalogue(language: str) -> Catalog:
    with (CATALOGUES / f"{language}.po").open("rb") as source:
        return read_po(source, locale=language)


def update(language: str) -> tuple[int, int]:
    """Writes the catalogue with new sentences, which have no translation yet, and without those nobody says."""
    path = CATALOGUES / f"{language}.po"
    before = catalogue(language) if path.exists() else Catalog(locale=language)
    after = Catalog(locale=language, project="Pixapi gateway", charset="utf-8", fuzzy=False)
    new = 0
    for message in sorted(messages(), key=str):
        key = message if isinstance(message, str) else message[0]
        known = before.get(key)
        if known is None or not known.string:
            new += 1
        after.add(message, None if known is None else known.string)
    after.header_comment = f"# The pages of the Pixapi gateway: {language}."
    after.creation_date = after.revision_date = datetime(2026, 11, 22, tzinfo=UTC)
    after.msgid_bugs_address, after.last_translator, after.language_team = "", "", ""
    with path.open("wb") as target:
        write_po(target, after, omit_header=False, width=120, sort_output=True)
    return len(after), new


def _files() -> Iterator[Path]:
    for pattern in SOURCES:
        yield from sorted(ROOT.glob(pattern))


if __name__ == "__main__":
    for name in sorted(path.stem for path in CATALOGUES.glob("*.po")) or ["zh"]:
        all_of_them, missing = update(name)
        print(f"{name}: {all_of_them} sentences, {missing} without a translation")
