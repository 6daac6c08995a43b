"""Which release answers a search: names, aliases, and the share of users that a canary gets. Pure."""

import hashlib
from collections.abc import Mapping

from shards.errors import NotFound
from shards.placement import Placement
from shards.release import Release, Traffic

LIVE, CANARY, PREVIOUS, SHADOW = "live", "canary", "previous", "shadow"
"""What may stand behind the @ of a name besides a version."""

_NOTHING_ELSE = Traffic()
_FRACTION_BITS = 53
"""As many as a float holds exactly, so that every share is below 1."""
_FRACTIONS = 1 << _FRACTION_BITS


def share_of(purpose: str, *keys: str) -> float:
    """Return where in [0, 1) the keys fall; evenly spread, and the same in every process for ever.

    Different purposes are independent of each other. The rule is part of the contract (docs/releases.md):
    BLAKE2b (RFC 7693) with a digest of 8 bytes, over purpose and keys in UTF-8, each with a NUL behind it;
    the first 53 bits of the digest, read as a big-endian number, over 2^53.
    """
    told = b"".join(text.encode() + b"\0" for text in (purpose, *keys))
    digest = hashlib.blake2b(told, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _FRACTION_BITS)) / _FRACTIONS


def gets_canary(surface: str, user_id: str, percent: float) -> bool:
    """Return whether the user is in the canary's share; raising the percent only adds users.

    Surfaces are independent of each other. Nobody knows an anonymous user again, so none of them is.
    """
    return bool(user_id) and share_of("canary", surface, user_id) < percent / 100


def is_shadowed(surface: str, request_id: str, percent: float) -> bool:
    """Return whether a search is in the shadow's share."""
    return share_of("shadow", surface, request_id) < percent / 100


class ReleaseNames:
    """The releases of one placement under all their names, made once for many look-ups.

    A name is a surface or an alias of one, and with "@" behind it "live", "canary", "previous", "shadow" or
    the version of a release that is loaded. An alias may stand for such a name as a whole.
    """

    __slots__ = ("_aliases", "_live", "_pinned", "_traffic")

    def __init__(self, placement: Placement) -> None:
        self._live = dict(placement.releases)
        self._traffic = dict(placement.traffic)
        self._aliases = dict(placement.aliases)
        self._pinned = {
            surface: _choices(live, placement.traffic.get(surface, _NOTHING_ELSE))
            for surface, live in placement.releases.items()
        }

    def find(self, name: str, user_id: str = "") -> Release:
        """Return the release that answers this user; raises `NotFound` with the name at fault."""
        surface, choice = self._resolve(name)
        if choice is not None:
            release = self._pinned[surface].get(choice)
            if release is None:
                raise NotFound("release", f"{surface}@{choice}")
            return release
        traffic = self._traffic.get(surface, _NOTHING_ELSE)
        if traffic.canary and gets_canary(surface, user_id, traffic.canary_percent):
            return traffic.canary
        return self._live[surface]

    def pins(self, name: str) -> bool:
        """Return whether a known name asks for one release, so that no share decides."""
        return self._resolve(name)[1] is not None

    def shadow(self, answered: Release, request_id: str) -> Release | None:
        """Return the shadow that sees the search as well, None for most.

        Only searches of the live release are compared: a sum over two different ones would say nothing.
        """
        traffic = self._traffic.get(answered.surface, _NOTHING_ELSE)
        if traffic.shadow is None or self._live.get(answered.surface) != answered:
            return None
        shadowed = is_shadowed(answered.surface, request_id, traffic.shadow_percent)
        return traffic.shadow if shadowed else None

    def _resolve(self, name: str) -> tuple[str, str | None]:
        """Return the surface and the choice behind the @, None where shares decide.

        A surface comes before an alias of the same name, and a whole name before one that is taken apart.
        """
        if name in self._live:
            return name, None
        if name in self._aliases:
            return self._target(name)
        front, at, choice = name.rpartition("@")
        if not at:
            raise NotFound("surface", name)
        surface, pinned = (front, None) if front in self._live else self._target(front)
        if pinned is not None:
            # The alias stands for one release already.
            raise NotFound("release", name)
        return surface, choice

    def _target(self, alias: str) -> tuple[str, str | None]:
        """Return what the alias stands for; it is taken apart once, so that no two can form a loop."""
        target = self._aliases.get(alias)
        if target is None:
            raise NotFound("surface", alias)
        if target in self._live:
            return target, None
        surface, at, choice = target.rpartition("@")
        if not at or surface not in self._live:
            raise NotFound("surface", surface or target)
        return surface, choice


def _choices(live: Release, traffic: Traffic) -> Mapping[str, Release]:
    """Return what may stand behind the @ of a surface; roles come before versions called like them."""
    roles = {LIVE: live, CANARY: traffic.canary, SHADOW: traffic.shadow, PREVIOUS: traffic.previous}
    loaded = {role: release for role, release in roles.items() if release}
    versions = {release.version: release for release in reversed(loaded.values())}
    return versions | loaded
