"""How to reach the Redis that keeps the users."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

_PORT = 6379
_SCHEMES = {"redis": False, "rediss": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """One Redis, and the rights to use it; all keys begin with `prefix` and a colon.

    With `tls` the server's certificate is always verified: by `ca_path`, or by the host's own authorities
    without one. Connecting takes `connect_timeout_s` at most; how long an answer may take is each call's
    to say. After a silence the store is let alone for `rest_s`, and searches go on without it.
    """

    host: str = "127.0.0.1"
    port: int = _PORT
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_path: Path | None = None
    prefix: str = "headrace"
    max_connections: int = 32
    connect_timeout_s: float = 1.0
    rest_s: float = 0.5

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port <= 65_535 or self.database < 0:
            raise ValueError(f"{self.address!r}, database {self.database}, is no place of a Redis")
        if not self.prefix:
            raise ValueError("prefix is empty")
        if self.ca_path is not None and not self.tls:
            raise ValueError("an authority's certificate is for a Redis that speaks TLS: rediss://")
        if self.max_connections < 1 or self.connect_timeout_s <= 0 or self.rest_s < 0:
            raise ValueError("max_connections and connect_timeout_s must be positive, rest_s not negative")

    @property
    def address(self) -> str:
        """Return HOST:PORT, for people to read."""
        return f"{self.host}:{self.port}"

    @classmethod
    def from_url(cls, url: str, *, password: str = "", ca_path: Path | None = None) -> Self:
        """Return settings for redis[s]://[USER@]HOST[:PORT][/DATABASE]; raises ValueError for another URL.

        A password in it is refused, and not repeated: addresses are shown in lists of processes and logs.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError("the address of the Redis is no URL") from error
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError("a Redis is at redis://HOST:PORT/DATABASE, or at rediss:// with TLS")
        if parts.password is not None:
            raise ValueError("the password of a Redis is a secret: give it in HEADRACE_REDIS_PASSWORD")
        database = parts.path.strip("/") or "0"
        if parts.query or parts.fragment or not database.isdecimal():
            raise ValueError("after redis://HOST:PORT/ comes the number of a database, and no more")
        return cls(
            host=parts.hostname,
            port=port or _PORT,
            database=int(database),
            username=unquote(parts.username or ""),
            password=password,
            tls=_SCHEMES[parts.scheme],
            ca_path=ca_path,
        )


def is_redis_url(location: str) -> bool:
    """Return whether this is the address of a Redis, and no folder."""
    return location.partition("://")[0] in _SCHEMES and "://" in location
