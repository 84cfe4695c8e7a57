from __future__ import annotations


async def test_a_team_is_made_with_its_quota(admin) -> None:
    team = await admin.ok(
        "POST", "/teams", {"name": "Growth Ünit", "quota": {"period": "month", "limit": 12.345678}}
    )
    print(team)
    print(await admin.ok("GET", "/teams"))
    print(await admin.ok("PATCH", "/teams/growth-unit", {"name": "x", "allowed_models": ["a"]}))
    key = await admin.ok(
        "POST", "/teams/growth-unit/keys", {"name": "k", "allowed_addresses": ["10.1.2.3/8"]}
    )
    print(key)
    print(await admin.ok("POST", f"/keys/{key['id']}/rotate", {}))
    print(await admin.ok("GET", f"/keys/{key['id']}"))
    up = await admin.ok("POST", "/upstream-keys", {"label": "main", "secret": "sk-canary-1234567"})
    print(up)
    print(await admin.ok("DELETE", "/upstream-keys/main"))
    print(await admin.ok("GET", "/status"))
    print(await admin.ok("GET", "/audit"))
    print((await admin.call("DELETE", "/teams/growth-unit/quotas/month")).text)
    print((await admin.call("POST", "/teams", {"name": "", "limit": 3, "quota": 5})).text)
    print((await admin.call("POST", "/teams", {"name": "Growth-Unit", "unlimited": True})).text)
    print(await admin.ok("GET", "/openapi.json"))
