"""Every error that Headrace raises on purpose.

HeadraceError
├── InvalidInput          a caller's mistake; names the fields            INVALID_ARGUMENT
├── NotFound              an unknown surface, model, shard or operation   NOT_FOUND
├── NotOwner              this shard does not hold the model              FAILED_PRECONDITION
├── Conflict              the placement has moved on                      ABORTED
├── Refused               the cluster does not allow it as it is now      FAILED_PRECONDITION
├── Overloaded            too much load; come back later                  RESOURCE_EXHAUSTED
│   ├── NoRoomYet         a cold model finds nothing that may go yet      RESOURCE_EXHAUSTED
│   └── StoreFull         the user store has no room for what is new      RESOURCE_EXHAUSTED
├── Unavailable           nothing can answer now                          UNAVAILABLE
│   └── FailedModel       a model that failed to load; its shard is well  UNAVAILABLE
├── DeadlineExceeded      there was no time to answer                     DEADLINE_EXCEEDED
│   └── StillLoading      a cold model was not loaded in time             DEADLINE_EXCEEDED
├── Unauthenticated       no or wrong credentials                         UNAUTHENTICATED
├── PermissionDenied      the caller lacks the role                       PERMISSION_DENIED
├── CorruptRecord         a stored record that cannot be read             DATA_LOSS
└── BundleError           a bundle that must not be served
    ├── CorruptBundle     truncated, altered or unreadable                DATA_LOSS
    ├── MismatchedBundle  whole, but not what was asked for               FAILED_PRECONDITION
    ├── UntrustedBundle   not signed by a key that is trusted             FAILED_PRECONDITION
    └── OversizedBundle   whole, but more than the shard has room for     FAILED_PRECONDITION

`services.status` maps each of them to its gRPC code, and nothing else does.
"""

from dataclasses import dataclass


class HeadraceError(Exception):
    """The root; catches all that Headrace raises on purpose."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


class InvalidInput(HeadraceError):
    """A caller's mistake, with every field at fault."""

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class NotFound(HeadraceError):
    """Something was named that does not exist: `kind` is "surface", "model", …"""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} does not exist")
        self.kind = kind
        self.name = name


class NotOwner(HeadraceError):
    """This shard does not hold the model; `owner` (a shard id) does since `generation`, where known."""

    def __init__(self, model: str, *, owner: str = "", generation: int = 0) -> None:
        super().__init__(f"model {model!r} is not held here" + (f" but on {owner!r}" if owner else ""))
        self.model = model
        self.owner = owner
        self.generation = generation


class Conflict(HeadraceError):
    """The placement has moved on since the caller read it."""


class Refused(HeadraceError):
    """What the cluster does not allow as it is now; `reason` is for programs: CLUSTER_FROZEN, …"""

    def __init__(self, message: str, *, reason: str = "REFUSED") -> None:
        super().__init__(message)
        self.reason = reason


class Overloaded(HeadraceError):
    """Too much load; the caller may come back after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoRoomYet(Overloaded):
    """A model that is held on demand does not fit beside what is in use, until some of that may go."""


class StoreFull(Overloaded):
    """A store has no room, on disk or in memory, for what is new; what it holds can be read."""


class Unavailable(HeadraceError):
    """Nothing can answer now."""


class FailedModel(Unavailable):
    """A model failed to load where it is held; the other models of that shard answer."""


class DeadlineExceeded(HeadraceError):
    """There was no time to answer."""


class StillLoading(DeadlineExceeded):
    """A model that is held on demand was not loaded in the time of the call; the load goes on."""


class Unauthenticated(HeadraceError):
    """No or wrong credentials."""


class PermissionDenied(HeadraceError):
    """The caller lacks the role."""


class CorruptRecord(HeadraceError):
    """A record of a store on disk cannot be read; `key` names it: a user id, a file."""

    def __init__(self, store: str, key: str, problem: str) -> None:
        super().__init__(f"{store}: record {key!r} is corrupt: {problem}")
        self.store = store
        self.key = key
        self.problem = problem


class BundleError(HeadraceError):
    """A bundle that must not be served; `file` is the one at fault."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class CorruptBundle(BundleError):
    """A file of the bundle is truncated, altered or unreadable."""


class MismatchedBundle(BundleError):
    """The bundle is whole, but not what was asked for or not what its parts say."""


class UntrustedBundle(BundleError):
    """No key that is trusted has signed the bundle as it is."""


class OversizedBundle(BundleError):
    """The bundle is whole, but does not fit beside what stays loaded; `file` names the bundle itself."""
