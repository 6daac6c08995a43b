"""What a caller shows to a router or a controller."""

from dataclasses import dataclass, field

from services.tls import TlsFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A token, a certificate, both or neither."""

    token: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None


NOTHING = Credentials()
