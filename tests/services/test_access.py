import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.access import AccessRules, Caller, Role, Shown, authorise, digest, read_rules, roles_for
from shards.errors import InvalidInput, PermissionDenied, Unauthenticated
from tests.services.callers import RULES
from tests.services.contract import services

WEB = {"name": "web", "token_sha256": hashlib.sha256(b"open-sesame").hexdigest(), "roles": ["search"]}


def written(folder: Path, document: object) -> Path:
    path = folder / "access.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    rules = read_rules(written(tmp_path, {"callers": [WEB]}))
    assert rules == AccessRules(
        callers=(Caller(name="web", token_sha256=digest("open-sesame"), roles=(Role.SEARCH,)),)
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "has no access rules"),
        ([], "AccessRules is not an object"),
        ({}, "no field 'callers'"),
        ({"callers": []}, "callers is empty"),
        ({"callers": [WEB], "admins": []}, "unknown field 'admins'"),
        ({"callers": [{**WEB, "name": ""}]}, r"callers\[0\]: name is empty"),
        ({"callers": [{**WEB, "token": "open-sesame"}]}, r"callers\[0\] has an unknown field 'token'"),
        ({"callers": [{**WEB, "token_sha256": "open-sesame"}]}, r"callers\[0\]: token_sha256 is not 64"),
        ({"callers": [{**WEB, "token_sha256": "A" * 64}]}, r"callers\[0\]: token_sha256 is not 64"),
        ({"callers": [{**WEB, "roles": []}]}, r"callers\[0\]: roles is empty"),
        ({"callers": [{**WEB, "roles": ["search", "root"]}]}, r"callers\[0\].roles\[1\]: 'root'"),
        ({"callers": [WEB, WEB]}, r"callers\[1\].name 'web' is there twice"),
        ({"callers": [WEB, {**WEB, "name": "app"}]}, r"callers\[1\].token_sha256 is that of 'web'"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_field(tmp_path: Path, document: Any, problem: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(InvalidInput, match=problem) as caught:
        read_rules(path)
    assert caught.value.violations[0].field == str(path)
    assert "open-sesame" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.json: cannot be read: No such file"):
        read_rules(tmp_path / "nowhere.json")


def test_a_caller_in_the_role_passes_by_name() -> None:
    assert authorise(RULES, Shown("Bearer search-token"), (Role.SEARCH,)).name == "search"
    required = (Role.INTERNAL, Role.OPERATOR)
    assert authorise(RULES, Shown("bearer  operator-token"), required).name == "operator"


def test_a_caller_is_known_by_its_certificate_unless_it_shows_a_token() -> None:
    rules = RULES.with_callers(Caller(name="web", certificate="web.example", roles=(Role.SEARCH,)))
    names = ("10.0.0.1", "web.example")
    assert authorise(rules, Shown(certificate_names=names), (Role.SEARCH,)).name == "web"
    assert authorise(rules, Shown("Bearer search-token", names), (Role.SEARCH,)).name == "search"
    with pytest.raises(Unauthenticated, match="token is not known"):
        authorise(rules, Shown("Bearer other", names), (Role.SEARCH,))
    with pytest.raises(Unauthenticated, match=r"nobody by the certificate of 'other\.example'"):
        authorise(rules, Shown(certificate_names=("other.example",)), (Role.SEARCH,))
    with pytest.raises(PermissionDenied, match="caller 'web' lacks the role 'operator'"):
        authorise(rules, Shown(certificate_names=names), (Role.OPERATOR,))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (None, "no token came"),
        ("", "is not 'Bearer'"),
        ("Bearer", "is not 'Bearer'"),
        ("Bearer ", "is not 'Bearer'"),
        ("Basic search-token", "is not 'Bearer'"),
        ("search-token", "is not 'Bearer'"),
        ("Bearer search-token more", "is not 'Bearer'"),
        ("Bearer séarch-token", "is not 'Bearer'"),
        ("Bearer search-token\n", "is not 'Bearer'"),
        ("Bearer search-toke", "not known"),
        (f"Bearer {digest('search-token')}", "not known"),
    ],
)
def test_without_a_known_token_nobody_passes_and_none_is_repeated(header: str | None, problem: str) -> None:
    with pytest.raises(Unauthenticated, match=problem) as caught:
        authorise(RULES, Shown(header), (Role.SEARCH,))
    assert "search-toke" not in str(caught.value)


def test_the_missing_role_is_named() -> None:
    with pytest.raises(PermissionDenied, match="caller 'search' lacks the role 'operator' or 'internal'"):
        authorise(RULES, Shown("Bearer search-token"), (Role.OPERATOR, Role.INTERNAL))


def test_what_no_role_opens_is_closed() -> None:
    assert roles_for("/other.v1.Service/Method") == ()
    with pytest.raises(PermissionDenied):
        authorise(RULES, Shown("Bearer operator-token"), ())


def test_one_more_caller_must_have_a_name_of_its_own() -> None:
    router = Caller(name="router", token_sha256=digest("secret"), roles=(Role.INTERNAL,))
    rules = RULES.with_callers(router)
    assert authorise(rules, Shown("Bearer secret"), (Role.INTERNAL,)) is router
    with pytest.raises(ValueError, match="'router' is there twice"):
        rules.with_callers(replace(router, token_sha256=digest("other")))


def test_every_method_of_the_contract_has_roles() -> None:
    methods = {f"/{service.full_name}/{method.name}" for service in services() for method in service.methods}
    opened = {role: {method for method in methods if role in roles_for(method)} for role in Role}
    assert set.union(*opened.values()) == methods
    cluster = {method for method in methods if "ClusterService" in method}
    reports = "/headrace.v1.ClusterService/ReportShadow"
    assert opened[Role.OPERATOR] == cluster - {reports}
    assert {method for method in cluster if method in opened[Role.INTERNAL]} == {
        "/headrace.v1.ClusterService/GetPlacement",
        "/headrace.v1.ClusterService/WatchPlacement",
        reports,
    }
    assert not opened[Role.SEARCH] & (opened[Role.OPERATOR] | opened[Role.INTERNAL])
    assert opened[Role.EVENTS] == {"/headrace.v1.EventService/RecordEvents"}
