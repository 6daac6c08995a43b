import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.shadow import shadow_report_to_proto, shadow_reports_from_proto
from shards.errors import InvalidInput
from shards.shadow import ShadowReport

counts, sums = st.integers(0, 10**9), st.floats(0, 1e9)
reports = st.builds(
    ShadowReport,
    surface=st.text(min_size=1),
    version=st.text(min_size=1),
    searches=counts,
    failures=counts,
    overlap_sum=sums,
    common_items=counts,
    score_difference_sum=sums,
    rank_difference_sum=sums,
    extra_seconds_sum=st.floats(-1e9, 1e9),
)


@given(st.lists(reports, max_size=4))
def test_reports_come_back_as_they_went(sent: list[ShadowReport]) -> None:
    request = pb.ReportShadowRequest(reports=map(shadow_report_to_proto, sent))
    assert shadow_reports_from_proto(request) == tuple(sent)


def test_every_field_at_fault_is_named() -> None:
    request = pb.ReportShadowRequest(reports=[pb.ShadowReport(searches=-1, overlap_sum=float("nan"))])
    with pytest.raises(InvalidInput) as caught:
        shadow_reports_from_proto(request)
    assert {violation.field for violation in caught.value.violations} == {
        "reports[0].surface",
        "reports[0].release_version",
        "reports[0].searches",
        "reports[0].overlap_sum",
    }
