"""Who decides for a search: the rules of its release, the model of its table, and the release's budget."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.gate import GateDecision, decide, waits_for_lexical
from router.gate_budget import GateBudget
from shards.candidates import Candidates
from shards.gate_model import GateModel
from shards.release import GateRules, ModelVersion, Release
from shards.search_context import SearchContext

_MOST_BUDGETS = 256
"""A router that has seen weeks of releases must not grow; the budget longest unused is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatekeeper:
    """Decides for searches of one release; without a model by rules, without a budget at the target rate."""

    rules: GateRules
    model: GateModel | None = None
    budget: GateBudget | None = None

    def awaited_channel(self, context: SearchContext) -> str | None:
        """Return the channel whose candidates the decision needs, None where it can be made at once."""
        if self.model is not None and waits_for_lexical(self.rules, context, self.model):
            return self.model.params.channel
        return None

    def decide(self, context: SearchContext, lexical: Candidates | None = None) -> GateDecision:
        """Decide whether the gated channels run, and let the budget know."""
        share = self.budget.closed_share if self.budget else None
        decision = decide(self.rules, context, model=self.model, lexical=lexical, closed_share=share)
        if self.budget:
            self.budget.observe(opened=decision.open)
        return decision


class Gatekeepers:
    """The gatekeeper of every release, with budgets that outlive the routing tables that name it.

    `load` tells which share of the router's places is taken.
    """

    def __init__(self, load: Callable[[], float]) -> None:
        self._load = load
        self._budgets: dict[str, GateBudget] = {}

    def of(self, release: Release, models: Mapping[ModelVersion, GateModel]) -> Gatekeeper:
        """Return who decides for a release, with the models that were read for its routing table."""
        rules = release.gate
        model = models.get(rules.model) if rules.model else None
        budget = self._budget(release) if model is not None and rules.learned else None
        return Gatekeeper(rules=rules, model=model, budget=budget)

    def closed_shares(self) -> dict[str, float]:
        """Return the quantile from which on the gate of each release with a budget opens now, by its name."""
        return {name: budget.closed_share for name, budget in list(self._budgets.items())}

    def _budget(self, release: Release) -> GateBudget:
        budget = self._budgets.pop(release.name, None)
        if budget is None or budget.rules != release.gate:
            budget = GateBudget(release.gate, self._load)
        self._budgets[release.name] = budget
        if len(self._budgets) > _MOST_BUDGETS:
            del self._budgets[next(iter(self._budgets))]
        return budget
