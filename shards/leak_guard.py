"""When a process that uses more memory than its bundles account for shall be restarted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakLimits:
    """Memory beyond `baseline_bytes` and the bundles', which may last for `patience_s`; limit 0 is none."""

    limit_bytes: int
    baseline_bytes: int
    patience_s: float = 10.0


class LeakGuard:
    """Looks at the process whenever it is asked how it is; what requests use for a moment is no leak."""

    def __init__(self, limits: LeakLimits) -> None:
        self._limits = limits
        self._over_since_s: float | None = None

    def look(self, now_s: float, used_bytes: int, bundle_bytes: int, *, loading: bool) -> str:
        """Return why the process should be restarted, or nothing.

        While a bundle loads nobody knows yet what it accounts for, so that the time begins anew.
        """
        limits = self._limits
        leaked_bytes = used_bytes - limits.baseline_bytes - bundle_bytes
        if loading or not limits.limit_bytes or leaked_bytes <= limits.limit_bytes:
            self._over_since_s = None
            return ""
        if self._over_since_s is None:
            self._over_since_s = now_s
        if now_s - self._over_since_s < limits.patience_s:
            return ""
        mib = 2**20
        return (
            f"{leaked_bytes / mib:,.0f} MiB more memory than its bundles account for,"
            f" {limits.limit_bytes / mib:,.0f} MiB allowed"
        )
