"""Who made a request that changes something: our own pages, another site, or no browser at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.cross_site import SAFE_METHODS, is_cross_site

HOST = "gateway.example.com"


@pytest.mark.parametrize(
    ("fetch_site", "origin", "host", "public_url", "refused"),
    [
        # Sec-Fetch-Site decides, whatever the Origin says
        (["same-origin"], [], HOST, None, False),
        (["none"], [], HOST, None, False),
        (["same-site"], [f"https://{HOST}"], HOST, None, True),
        (["cross-site"], [f"https://{HOST}"], HOST, None, True),
        (["same-origin"], ["https://evil.example.com"], HOST, None, False),
        (["same-origin", "cross-site"], [], HOST, None, True),
        (["Same-Origin"], [], HOST, None, True),
        ([""], [], HOST, None, True),
        # without it the Origin has to be the host that was asked
        ([], [f"https://{HOST}"], HOST, None, False),
        ([], [f"http://{HOST}"], HOST, None, False),
        ([], [f"https://{HOST}"], f"{HOST}:443", None, False),
        ([], [f"http://{HOST}:8080"], f"{HOST}:8080", None, False),
        ([], [f"http://{HOST}:8081"], f"{HOST}:8080", None, True),
        ([], [f"http://{HOST}"], f"{HOST}:8080", None, True),
        ([], ["http://[::1]:8080"], "[::1]:8080", None, False),
        ([], ["https://GATEWAY.example.com"], HOST, None, False),
        ([], ["https://evil.example.com"], HOST, None, True),
        ([], [f"https://{HOST}.evil.example.com"], HOST, None, True),
        ([], [f"https://evil.example.com@{HOST}"], HOST, None, True),
        ([], ["null"], HOST, None, True),
        ([], [""], HOST, None, True),
        ([], ["file://"], HOST, None, True),
        ([], [f"https://{HOST}:99999"], HOST, None, True),
        ([], [f"https://{HOST}", "https://evil.example.com"], HOST, None, True),
        # a proxy that changes the Host: public_url says what people use
        ([], [f"https://{HOST}"], "10.0.0.7:8080", f"https://{HOST}", False),
        ([], [f"http://{HOST}"], "10.0.0.7:8080", f"https://{HOST}", True),
        ([], ["https://evil.example.com"], "10.0.0.7:8080", f"https://{HOST}", True),
        # no browser
        ([], [], HOST, None, False),
    ],
)
def test_what_changes_something(
    fetch_site: list[str], origin: list[str], host: str, public_url: str | None, refused: bool
) -> None:
    assert is_cross_site("POST", fetch_site, origin, host, public_url) is refused


@given(
    st.sampled_from(sorted(SAFE_METHODS)), st.lists(st.text(), max_size=2), st.lists(st.text(), max_size=2)
)
def test_what_only_reads_is_never_refused(method: str, fetch_site: list[str], origin: list[str]) -> None:
    assert not is_cross_site(method, fetch_site, origin, HOST, None)


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "PURGE"]), st.text())
def test_no_odd_origin_passes_for_ours(method: str, origin: str) -> None:
    if HOST not in origin.lower():
        assert is_cross_site(method, [], [origin], HOST, None)
