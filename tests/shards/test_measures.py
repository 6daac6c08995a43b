import pytest

from shards.measures import OTHER, Counts, Distributions


def test_counts_by_labels() -> None:
    counts = Counts("surface", "status")
    for status in ("ok", "ok", "not_found"):
        counts.add("gifts", status)
    assert dict(counts.read()) == {("gifts", "ok"): 2, ("gifts", "not_found"): 1}


def test_what_has_no_labels_is_there_before_it_happens() -> None:
    assert list(Counts().read()) == [((), 0)]
    ((values, none),) = Distributions(bounds=(1.0,)).read()
    assert (values, none.cumulative, none.total) == ((), (0, 0), 0.0)


def test_a_bound_belongs_to_its_bucket() -> None:
    distributions = Distributions("stage", bounds=(0.1, 1.0))
    for took_s in (0.05, 0.1, 0.5, 1.0, 7.0):
        distributions.observe(took_s, "ranking")
    ((values, found),) = distributions.read()
    assert values == ("ranking",)
    assert found.bounds == (0.1, 1.0)
    assert found.cumulative == (2, 4, 5)
    assert found.total == pytest.approx(8.65)


def test_what_callers_make_up_does_not_fill_the_memory() -> None:
    counts = Counts("surface", most_series=3)
    distributions = Distributions("surface", bounds=(1.0,), most_series=3)
    for n in range(50):
        counts.add(f"surface-{n}")
        distributions.observe(0.5, f"surface-{n}")
    assert dict(counts.read())[(OTHER,)] == 47
    assert len(counts.read()) == 4
    found = dict(distributions.read())
    assert (len(found), found[(OTHER,)].cumulative[-1]) == (4, 47)
    counts.add("surface-0")
    assert dict(counts.read())[("surface-0",)] == 2
