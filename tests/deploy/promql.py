"""Which metrics and labels a PromQL query names; enough of its grammar for what our dashboards ask."""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|\$\{?\w+\}?"  # Variables of Grafana.
    r"|\d+(?:\.\d+)?(?:ms|[smhdwy])?"
    r"|[a-zA-Z_:][\w:]*"
    r"|=~|!~|!=|==|>=|<=|[-+*/%^(){}\[\],=<>:]"
)
_FUNCTIONS = frozenset(
    {
        "sum",
        "max",
        "min",
        "avg",
        "count",
        "topk",
        "rate",
        "increase",
        "histogram_quantile",
        "clamp_min",
        "time",
    }
)
_GROUPINGS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_OPERATORS = frozenset({"and", "or", "unless", "bool", "offset"})


@dataclass(frozen=True)
class Query:
    """Labels that each metric is selected by, and those that the query groups by."""

    selected: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def read_query(text: str) -> Query:
    """Return what a query names; AssertionError for what is no PromQL that is known here."""
    assert "".join(_TOKEN.findall(text)) == re.sub(r"\s(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", text), text
    query = Query()
    tokens = _TOKEN.findall(text)
    closing, metric, grouping = "", "", False
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        is_name = re.fullmatch(r"[a-zA-Z_:][\w:]*", token) is not None
        if closing:
            closing = "" if token == closing else closing
            if is_name and closing == "}":
                query.selected[metric].add(token)
            elif is_name and closing == ")":
                query.grouped.add(token)
        elif token in "{[":
            closing = {"{": "}", "[": "]"}[token]
            assert token == "[" or metric, f"a selector without a name in {text}"
        elif token == "(" and grouping:
            closing = ")"
        elif token in _FUNCTIONS:
            assert following in ("(", "by", "without"), text
        elif is_name and token not in _GROUPINGS | _OPERATORS:
            metric = token
            query.selected.setdefault(metric, set())
        grouping = token in _GROUPINGS
    assert not closing, text
    assert tokens.count("(") == tokens.count(")"), text
    return query
