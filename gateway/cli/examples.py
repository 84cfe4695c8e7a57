"""One line of each command that works as it stands: the end of its --help."""

from __future__ import annotations

from collections.abc import Mapping

import typer

EXAMPLES: Mapping[str, str] = {
    "serve": "serve --host 0.0.0.0 --port 8080 --workers 2",
    "quickstart": "quickstart --data .pixapi-gateway",
    "sandbox": "sandbox --port 8090 --speed 10",
    "usage": "usage --by team,model --from 2026-03-01 --to 2026-04-01 --csv > march.csv",
    "doctor": "doctor --json",
    "db upgrade": "db upgrade",
    "db downgrade": "db downgrade --revision 0008 --yes",
    "db current": "db current",
    "db prune": "db prune --before 2026-08-01 --export /srv/exports --dry-run",
    "config check": "config check --json",
    "config show": "config show --json",
    "upstream-keys add": "upstream-keys add --label main --account company < key.txt",
    "upstream-keys list": "upstream-keys list --json",
    "upstream-keys update": "upstream-keys update main --weight 3 --max-in-flight none",
    "upstream-keys drain": "upstream-keys drain main",
    "upstream-keys disable": "upstream-keys disable main --yes",
    "upstream-keys enable": "upstream-keys enable main",
    "upstream-keys remove": "upstream-keys remove main --yes",
    "teams create": "teams create --name Studio --period month --limit 200",
    "teams list": "teams list --limit 200",
    "teams show": "teams show studio",
    "teams update": "teams update studio --max-in-flight 20 --allowed-models none",
    "teams suspend": "teams suspend studio --yes",
    "teams resume": "teams resume studio",
    "keys issue": "keys issue --team studio --name laptop --expires-at 2027-01-01T00:00:00Z",
    "keys list": "keys list studio",
    "keys show": "keys show 3kTq0ZyX1a",
    "keys update": "keys update 3kTq0ZyX1a --allowed-addresses 10.0.0.0/8",
    "keys revoke": "keys revoke 3kTq0ZyX1a --yes",
    "keys rotate": "keys rotate 3kTq0ZyX1a --overlap-seconds 3600",
    "quotas set": "quotas set --team studio --period month --limit 500 --no-enforce",
    "quotas list": "quotas list --team studio",
    "quotas remove": "quotas remove --team studio --period month --yes",
    "tasks list": "tasks list --team studio --unfinished",
    "tasks show": "tasks show task_0198f2c1",
    "holds list": "holds list --state unknown",
    "holds show": "holds show 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10",
    "holds resolve": (
        "holds resolve 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10 --outcome release --reason 'not on the bill' --yes"
    ),
    "requests list": "requests list --team studio --state unknown",
    "requests explain": "requests explain req_0198f2c17d3e7b4a9c552f6f1f3f8a10",
    "ledger verify": "ledger verify --json",
    "secrets rotate": "secrets rotate",
    "secrets verify": "secrets verify --json",
    "admin-tokens issue": "admin-tokens issue --name grafana --role viewer",
    "admin-tokens list": "admin-tokens list",
    "admin-tokens revoke": "admin-tokens revoke 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10 --yes",
    "admin-sessions list": "admin-sessions list --json",
    "admin-sessions end": "admin-sessions end --subject oidc:00u1a2b3c4 --yes",
    "audit list": "audit list --team studio",
    "alerts list": "alerts list --json",
    "webhooks add": "webhooks add --url https://hooks.example.com/pixapi --format standard",
    "webhooks list": "webhooks list --json",
    "webhooks update": "webhooks update 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10 --disabled",
    "webhooks test": "webhooks test 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10",
    "webhooks remove": "webhooks remove 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10 --yes",
    "deliveries list": "deliveries list --state failed",
    "deliveries redeliver": "deliveries redeliver 0198f2c1-7d3e-7b4a-9c55-2f6f1f3f8a10",
}


def end_with_examples(app: typer.Typer, noun: str = "") -> None:
    """Puts the example of each command of the app at the end of its help."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        example = EXAMPLES.get(f"{noun} {name}".strip())
        if example is not None and command.epilog is None:
            command.epilog = f"\b\nExample:\n  pixapi-gateway {example}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            end_with_examples(group.typer_instance, group.name or "")
