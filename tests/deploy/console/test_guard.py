"""Who may look and who may change, and what other sites cannot do."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from deploy.console.app import console
from deploy.console.console_settings import ConsoleSettings
from deploy.console.server import Door
from deploy.console.visits import Visits
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.tls import TlsFiles
from shards.errors import InvalidInput
from tests.deploy.console.test_pages import RUNNING
from tests.deploy.console.visit import visiting
from tests.services.callers import access


def test_without_operate_an_open_cluster_is_only_looked_at() -> None:
    with visiting() as visit:
        visit.cluster.states = [RUNNING]
        assert "Drain" not in visit.page("/shards")
        refused = visit.send("/shards/drain", shard="shard-0")
        assert (refused.status_code, visit.cluster.named("DrainShard")) == (403, [])
        # A token means nothing to a cluster that asks nobody for one.
        visit.send("/login", token="made-up")
        assert visit.send("/shards/drain", shard="shard-0").status_code == 403
        assert visit.cluster.named("DrainShard") == []


def test_the_role_of_the_token_decides_on_a_cluster_with_rules() -> None:
    with visiting(access=access) as visit:
        visit.cluster.states = [RUNNING]
        assert "no token came with the call" in visit.page("/shards", 401)
        assert visit.send("/login", token="search-token").headers["location"] == "/shards"
        assert "lacks the role" in visit.page("/shards", 403)
        assert "BLUE" in visit.page("/search?surface=shop&q=mug")
        assert visit.send("/shards/drain", shard="shard-0").status_code == 403
        assert visit.cluster.named("DrainShard") == []
        visit.send("/login", token="operator-token")
        assert "Drain" in visit.page("/shards")
        assert visit.send("/shards/drain", shard="shard-0").status_code == 303
        assert visit.cluster.named("DrainShard") == [pb.DrainShardRequest(shard_id="shard-0")]
        visit.send("/logout")
        visit.page("/shards", 401)


def test_the_cookie_holds_no_token_and_changes_with_a_login() -> None:
    with visiting(access=access) as visit:
        first = visit.browser.get("/login").headers["set-cookie"]
        assert "HttpOnly" in first
        assert "SameSite=strict" in first
        second = visit.send("/login", token="operator-token").headers["set-cookie"]
        assert "operator-token" not in second
        assert first.split(";")[0] != second.split(";")[0]
        # A link from elsewhere comes without the cookie, and must not replace it.
        other = visit.browser.get("/shards", headers={"sec-fetch-site": "cross-site", "cookie": "a=b"})
        assert "set-cookie" not in other.headers


def test_a_form_needs_its_secret_and_its_own_site() -> None:
    with visiting(operate=True) as visit:
        visit.cluster.states = [RUNNING]
        fields = {"shard": "shard-0"}
        assert visit.browser.post("/shards/drain", data=fields).status_code == 403
        assert visit.send("/shards/drain", csrf="0" * 64, **fields).status_code == 403
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
        ):
            visit.browser.headers.update(headers)
            assert visit.send("/shards/drain", **fields).status_code == 403
            for name in headers:
                del visit.browser.headers[name]
        assert visit.cluster.named("DrainShard") == []
        visit.browser.headers["origin"] = "http://localhost:8600"
        assert visit.send("/shards/drain", **fields).status_code == 303


def test_other_names_and_huge_bodies_are_refused() -> None:
    with visiting(operate=True) as visit:
        # The name of another site that points here (DNS rebinding).
        assert visit.browser.get("/shards", headers={"host": "evil.example:8600"}).status_code == 421
        assert visit.browser.post("/login", content=b"x" * (3 << 20)).status_code == 413


def test_every_answer_has_the_headers() -> None:
    with visiting() as visit:
        for path in ("/shards", "/nothing", "/static/console.css", "/shards/live"):
            headers = visit.browser.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
        page = visit.page("/search?surface=shop&q=mug")
        for inline in (" style=", " onclick=", "<style", "javascript:"):
            assert inline not in page


def test_after_the_login_only_own_pages_follow() -> None:
    with visiting() as visit:
        for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example"):
            assert visit.send("/login", token="t", next=elsewhere).headers["location"] == "/shards"
        assert visit.send("/login", token="t", next="/plan").headers["location"] == "/plan"
        refused = visit.send("/login", token="two words")
        assert refused.status_code == 400
        assert "two words" not in refused.text


def test_a_visit_ends_and_the_oldest_go_first() -> None:
    now_s = [0.0]
    visits = Visits(life_s=10, most=2, clock=lambda: now_s[0])
    first, second, third = (visits.log_in(f"t{n}") for n in range(3))
    assert visits.visitor(first.visit_id).token is None
    assert visits.visitor(second.visit_id).token == "t1"
    now_s[0] = 11.0
    assert visits.visitor(third.visit_id).token is None


def test_a_door_beyond_this_machine_needs_tls() -> None:
    Door(host="127.0.0.1")
    Door(host="0.0.0.0", insecure=True)
    with pytest.raises(InvalidInput, match="not this machine alone"):
        Door(host="0.0.0.0")
    assert ConsoleSettings(router="r", controller="c").operate is False


def test_pages_name_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("half of a certifi")
    settings = ConsoleSettings(
        router="127.0.0.1:1", controller="127.0.0.1:1", tls=TlsFiles(ca_path=authority)
    )
    with TestClient(console(settings), base_url="http://localhost:8600") as browser:
        for path in ("/shards", "/search?surface=shop&q=mug"):
            answer = browser.get(path)
            assert answer.status_code == 400
            assert f"{authority}" in answer.text
            assert "holds no certificate of an authority" in answer.text
