"""Who uses the invented gateway: teams with their habits, keys and quotas, and the pool. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GENERATION, EDIT = "images.generations", "images.edits"
TASK, EDIT_TASK, VIDEO = "async.images.generations", "async.images.edits", "async.videos.generations"
FLASH, FLASH_2, PRO = "gemini-2.5-flash-image", "gemini-3.1-flash-image-preview", "gemini-3-pro-image-preview"
GPT, GPT_2 = "gpt-image-1.5", "gpt-image-2"

# What becomes of a key: `rotating` is two keys in their overlap, `replaced` two after it.
Fate = Literal["active", "rotating", "replaced", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Wish:
    """A kind of call a team makes, and how often beside its others; one of `images` and of `seconds` is drawn."""

    model: str
    operation: str
    weight: float
    images: tuple[int, ...] = (1,)
    size: str | None = None
    quality: str | None = None
    seconds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """A key of a team and its part of the calls; `since` and `until` are parts of the whole time."""

    name: str
    share: float
    fate: Fate = "active"
    since: float = 0.0
    until: float = 1.0
    models: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaPlan:
    """A quota; `used` is the part of its limit that its current period has used, None: it has room. With `key` that
    of the key of this name."""

    period: Literal["day", "week", "month"]
    used: float | None
    enforce: bool = True
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamPlan:
    """A team; `share` of all calls, `growth` from the first day to the last, `hours` its weight for each hour."""

    slug: str
    name: str
    zone: str
    cost_center: str | None
    share: float
    growth: float
    hours: tuple[int, ...]
    wishes: tuple[Wish, ...]
    keys: tuple[KeyPlan, ...]
    quotas: tuple[QuotaPlan, ...] = ()
    unlimited: bool = False
    suspended: float | None = None  # when, as a part of the whole time
    weekend: float = 0.12
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """An upstream key; one that drains has done so for the last part of the time."""

    label: str
    account: str
    weight: int = 1
    max_in_flight: int | None = None
    drains: float | None = None


OFFICE = (0, 0, 0, 0, 0, 0, 1, 4, 12, 26, 34, 36, 22, 24, 36, 38, 34, 22, 9, 4, 3, 2, 1, 0)
LONG_DAY = (2, 1, 0, 0, 0, 1, 4, 10, 18, 24, 26, 26, 24, 24, 24, 22, 22, 20, 18, 16, 14, 10, 6, 4)
NIGHTLY = (4, 10, 46, 52, 30, 6, 2, 3, 8, 14, 16, 15, 10, 12, 15, 14, 12, 8, 4, 3, 3, 2, 2, 3)
LATE = (10, 6, 3, 1, 0, 0, 0, 0, 1, 4, 12, 18, 16, 18, 22, 24, 24, 22, 18, 14, 14, 16, 16, 14)

POOL = (
    PoolPlan(label="studio-main", account="acct-studio", weight=3, max_in_flight=40),
    PoolPlan(label="studio-batch", account="acct-studio", drains=0.93),
    PoolPlan(label="growth-main", account="acct-growth", weight=2, max_in_flight=30),
)

TEAMS = (
    TeamPlan(
        slug="brand-studio",
        name="Brand studio",
        zone="Europe/Berlin",
        cost_center="CC-1100",
        share=0.2,
        growth=1.6,
        hours=OFFICE,
        wishes=(
            Wish(PRO, GENERATION, 5, (1, 1, 2, 4)),
            Wish(PRO, TASK, 2, (1, 2), "4096x4096"),
            Wish(FLASH_2, EDIT, 2, (1,), "2048x2048"),
            Wish(GPT, GENERATION, 2, (1, 2), quality="high"),
        ),
        keys=(
            KeyPlan(name="design workstation", share=5),
            KeyPlan(name="photoshop plug-in", share=3, fate="rotating"),
            KeyPlan(name="campaign 2025", share=1, fate="expired", until=0.4),
            KeyPlan(name="intern laptop", share=0.6, fate="revoked", until=0.55),
        ),
        quotas=(QuotaPlan(period="day", used=None), QuotaPlan(period="month", used=0.61)),
    ),
    TeamPlan(
        slug="growth-marketing",
        name="Growth marketing",
        zone="America/New_York",
        cost_center="CC-2040",
        share=0.18,
        growth=2.6,
        hours=OFFICE,
        wishes=(
            Wish(FLASH, GENERATION, 6, (1, 2, 4, 4)),
            Wish(FLASH_2, TASK, 2, (2, 4), "1024x1536"),
            Wish("veo", VIDEO, 1, seconds=(4, 8, 8)),
        ),
        keys=(
            KeyPlan(name="ad builder", share=6),
            KeyPlan(name="newsletter", share=2, fate="replaced", until=0.45),
            KeyPlan(name="a/b tests", share=1.5, since=0.4),
        ),
        quotas=(QuotaPlan(period="month", used=0.87),),
    ),
    TeamPlan(
        slug="shop-catalogue",
        name="Shop catalogue",
        zone="Europe/London",
        cost_center="CC-3001",
        share=0.24,
        growth=1.9,
        hours=NIGHTLY,
        weekend=0.45,
        wishes=(
            Wish(FLASH, EDIT_TASK, 7, (1, 1, 2)),
            Wish(FLASH_2, TASK, 2, (1, 2), "2048x2048"),
            Wish(GPT_2, GENERATION, 2, (1,)),
            Wish("kling", VIDEO, 0.3, seconds=(5,)),
        ),
        keys=(
            KeyPlan(name="nightly import", share=7, max_in_flight=20),
            KeyPlan(name="merchandising", share=2),
            KeyPlan(name="product videos", share=1, models=("kling", "veo"), since=0.3),
            KeyPlan(name="legacy importer", share=2, fate="expired", until=0.3),
        ),
        quotas=(QuotaPlan(period="month", used=0.974),),
    ),
    TeamPlan(
        slug="video-lab",
        name="Video lab",
        zone="America/Los_Angeles",
        cost_center="CC-1170",
        share=0.09,
        growth=2.2,
        hours=LATE,
        weekend=0.3,
        wishes=(
            Wish("veo", VIDEO, 4, seconds=(4, 8, 8, 12)),
            Wish("kling", VIDEO, 3, seconds=(5, 5, 10)),
            Wish("wan", VIDEO, 2, seconds=(5, 8)),
            Wish(PRO, GENERATION, 2, (1, 2)),
        ),
        keys=(
            KeyPlan(name="render farm", share=6, max_in_flight=12),
            KeyPlan(name="storyboards", share=2, fate="rotating"),
            KeyPlan(name="spare", share=0),
        ),
        quotas=(QuotaPlan(period="week", used=None), QuotaPlan(period="month", used=0.74)),
    ),
    TeamPlan(
        slug="research",
        name="Research",
        zone="UTC",
        cost_center=None,
        share=0.07,
        growth=1.2,
        hours=LATE,
        weekend=0.5,
        wishes=(
            Wish(PRO, TASK, 2, (1, 4)),
            Wish(GPT_2, GENERATION, 2, (1, 2), quality="high"),
            Wish(FLASH, GENERATION, 2, (4, 10)),
            Wish("wan", VIDEO, 1, seconds=(5,)),
        ),
        keys=(
            KeyPlan(name="notebooks", share=4),
            KeyPlan(name="evaluation", share=3, requests_per_minute=120),
            KeyPlan(name="conference demo", share=1, fate="revoked", until=0.7),
        ),
        unlimited=True,
    ),
    TeamPlan(
        slug="customer-support",
        name="Customer support",
        zone="Europe/Madrid",
        cost_center="CC-4410",
        share=0.1,
        growth=1.4,
        hours=LONG_DAY,
        weekend=0.6,
        wishes=(Wish(FLASH, GENERATION, 5), Wish(FLASH, EDIT, 3), Wish(GPT, GENERATION, 1)),
        keys=(
            KeyPlan(name="help centre", share=6),
            KeyPlan(
                name="chat assistant",
                share=3,
                models=(FLASH,),
                addresses=("10.42.0.0/16",),
                requests_per_minute=30,
            ),
            KeyPlan(name="trial", share=0.5, fate="expired", until=0.2),
        ),
        quotas=(QuotaPlan(period="month", used=1.22, enforce=False),),
        unlimited=True,  # a team with a quota that only counts has to be
    ),
    TeamPlan(
        slug="design-center",
        name="设计中心",
        zone="Asia/Shanghai",
        cost_center="CC-8800",
        share=0.13,
        growth=2.1,
        hours=OFFICE,
        wishes=(
            Wish(PRO, GENERATION, 4, (1, 2)),
            Wish(FLASH_2, GENERATION, 3, (1, 4), "2048x2048"),
            Wish("kling", VIDEO, 0.6, seconds=(5, 10)),
        ),
        keys=(
            KeyPlan(name="海报生成", share=5),
            KeyPlan(name="电商主图", share=3, fate="replaced", until=0.6, models=(PRO,)),
            KeyPlan(
                name="外包团队",
                share=1,
                models=(FLASH_2,),
                addresses=("203.0.113.0/24",),
                requests_per_minute=10,
            ),
        ),
        quotas=(QuotaPlan(period="month", used=0.68), QuotaPlan(period="month", used=1.0, key="电商主图")),
    ),
    TeamPlan(
        slug="partner-pilot",
        name="Partner pilot",
        zone="Europe/Paris",
        cost_center="CC-9900",
        share=0.05,
        growth=1.0,
        hours=OFFICE,
        wishes=(Wish(FLASH, GENERATION, 3, (1, 2)), Wish(GPT, TASK, 1)),
        keys=(
            KeyPlan(name="agency A", share=2),
            KeyPlan(name="agency B", share=1),
            KeyPlan(name="kick-off", share=1, fate="revoked", until=0.25),
        ),
        quotas=(QuotaPlan(period="month", used=None),),
        suspended=0.76,
    ),
)
