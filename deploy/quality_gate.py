"""Whether a release may go live: it is compared with the live one on held-out queries; docs/operations.md."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from deploy.gate_rule import gate_rule
from deploy.held_out import HeldOut
from deploy.progress import query_progress
from deploy.workspace import Workspace
from shards.errors import FieldViolation, HeadraceError, InvalidInput, Refused
from shards.json_codec import from_json, parse
from shards.release import Release
from shards.release_quality import ReleaseQuality
from shards.search_context import SearchContext
from training.evaluation.judgements import Judged
from training.evaluation.offline import Cascade, GateRule, open_cascade
from training.evaluation.release_quality import Answered, answers, compare

_FILE = "quality.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerated:
    """The loss of each figure up to which a release is not worse; of coverage, a share of the live one's."""

    ndcg_10: float = 0.005
    auc: float = 0.005
    gauc: float = 0.005
    ece: float = 0.01
    coverage: float = 0.1

    def __post_init__(self) -> None:
        for name, loss in asdict(self).items():
            if not loss >= 0:
                raise ValueError(f"{name} must not be negative, but is {loss:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """How releases are compared before they go live.

    `queries` of a split are asked, all for 0. Where `required`, a release that cannot be compared is refused.
    """

    enabled: bool = True
    required: bool = False
    dataset: str = ""
    split: str = "test"
    queries: int = 500
    seed: int = 0
    tolerated: Tolerated = field(default_factory=Tolerated)

    def __post_init__(self) -> None:
        if self.queries < 0:
            raise ValueError(f"queries must not be negative, but is {self.queries}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityGate:
    """Compares releases by the bundles of a workspace, and refuses worse ones unless there is a reason."""

    folders: Workspace
    rules: QualityRules
    override_reason: str = ""
    data_dir: Path | None = None

    def passed(self, candidate: Release, live: Release | None) -> ReleaseQuality | None:
        """Return what a release that may go live is deployed with; None where nothing was compared.

        Raises `Refused` where it is worse than the live one, or cannot be compared although it has to be,
        and there is no reason to have it nevertheless.
        """
        if not self.rules.enabled or live is None or live.version == candidate.version:
            return self._overridden(ReleaseQuality()) if self.override_reason else None
        try:
            judged = self._judged(candidate, live)
            opened = [self._opened(release) for release in (live, candidate)]
        except HeadraceError as error:
            return self._uncompared(candidate, error)
        ours, theirs = (_answers(each, judged) for each in opened)
        tolerated = asdict(self.rules.tolerated)
        quality = compare(ours, theirs, live_version=live.version, tolerated=tolerated)
        Console(stderr=True).print(quality_table(quality, candidate.version))
        if not quality.worse:
            return quality
        names = ", ".join(f"{each.name} by {-each.gain:.4f}" for each in quality.worse)
        problem = f"{candidate.name} is worse than {live.version}: {names}"
        return self._despite(problem, quality, "WORSE_RELEASE")

    def _uncompared(self, candidate: Release, error: HeadraceError) -> ReleaseQuality | None:
        problem = f"{candidate.name} was not compared with what is live: {error}"
        if self.rules.required:
            return self._despite(problem, ReleaseQuality(), "NOT_COMPARED")
        typer.echo(problem, err=True)
        return self._overridden(ReleaseQuality()) if self.override_reason else None

    def _despite(self, problem: str, quality: ReleaseQuality, reason: str) -> ReleaseQuality:
        if not self.override_reason:
            raise Refused(f"{problem} (--override-reason deploys it nevertheless)", reason=reason)
        typer.echo(f"{problem}; overridden: {self.override_reason}", err=True)
        return self._overridden(quality)

    def _overridden(self, quality: ReleaseQuality) -> ReleaseQuality:
        return replace(quality, override_reason=self.override_reason)

    def _judged(self, candidate: Release, live: Release) -> list[Judged]:
        """Return the queries with as much history as the release reads that reads more."""
        rules = self.rules
        held_out = HeldOut(
            surface=candidate.surface,
            dataset=rules.dataset,
            split=rules.split,
            limit=rules.queries,
            data_dir=self.data_dir,
            seed=rules.seed,
        )
        longest = max(candidate.history_limit, live.history_limit)
        data, judged = held_out.queries(replace(candidate, history_limit=longest), self.folders)
        if not judged:
            raise InvalidInput(FieldViolation("split", f"{data.name} has no queries in {rules.split}"))
        return judged

    def _opened(self, release: Release) -> tuple[Cascade, GateRule]:
        models_dir = self.folders.models_dir
        return open_cascade(release, models_dir), gate_rule(release, models_dir)


def _answers(opened: tuple[Cascade, GateRule], judged: list[Judged]) -> list[Answered]:
    cascade, gate = opened
    own = [replace(query, context=_as_read(query.context, cascade.release)) for query in judged]
    with query_progress(f"release {cascade.release.version}", len(judged)) as on_query:
        return answers(cascade, own, gate, on_query)


def _as_read(context: SearchContext, release: Release) -> SearchContext:
    """Return the context with as much history as the release reads."""
    history = context.user.history.before(context.now_ms, limit=release.history_limit)
    return replace(context, user=replace(context.user, history=history))


def quality_rules(path: Path | None, folders: Workspace) -> QualityRules:
    """Return the rules in a file, else in the workspace's `quality.json`, else the defaults.

    Raises `InvalidInput` naming the file and the field.
    """
    file = path or folders.root / _FILE
    if path is None and not file.is_file():
        return QualityRules()
    try:
        return from_json(QualityRules, parse(file.read_bytes()), "quality")
    except (OSError, ValueError) as error:
        raise InvalidInput(FieldViolation(str(file), str(error))) from error


def quality_table(quality: ReleaseQuality, version: str) -> Table:
    """Return the figures of both releases, and which are worse."""
    table = Table(title=f"{quality.queries} held-out queries", title_justify="left")
    table.add_column("figure")
    for heading in (f"live {quality.live_version}", version, "gain ± 95 %", "tolerated"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("")
    for each in quality.measures:
        table.add_row(
            each.name,
            f"{each.live:.4g}",
            f"{each.candidate:.4g}",
            f"{each.gain:+.4f} ± {each.error:.4f}",
            f"{each.tolerated:g}",
            "WORSE" if each.worse else "",
        )
    return table
