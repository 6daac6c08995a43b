"""Recipes by name: what `headrace train` can train. A new one is a module and a card here."""

from collections.abc import Mapping

from shards.errors import FieldViolation, InvalidInput
from training.recipe import Recipe
from training.recipes.avito import AVITO
from training.recipes.beauty_next import BEAUTY_NEXT
from training.recipes.card import Card
from training.recipes.completejourney import COMPLETEJOURNEY
from training.recipes.completejourney_next import COMPLETEJOURNEY_NEXT
from training.recipes.cross_shop import CROSS_SHOP, CROSS_SHOP_QUERIES
from training.recipes.deep_retrieval import DEEP_RETRIEVAL
from training.recipes.dpsr import DPSR
from training.recipes.ebay import EBAY
from training.recipes.etsy import ETSY
from training.recipes.gowalla import GOWALLA
from training.recipes.gowalla_towers import GOWALLA_TOWERS
from training.recipes.hydrated import HYDRATED
from training.recipes.movielens import MOVIELENS
from training.recipes.movielens_ensemble import MOVIELENS_ENSEMBLE
from training.recipes.movielens_glmix import MOVIELENS_GLMIX
from training.recipes.movielens_left_over import MOVIELENS_LEFT_OVER
from training.recipes.movielens_next import MOVIELENS_NEXT
from training.recipes.movielens_small import MOVIELENS_SMALL
from training.recipes.movielens_updates import MOVIELENS_UPDATES
from training.recipes.neural_cf import NEURAL_CF
from training.recipes.online_retail import ONLINE_RETAIL
from training.recipes.online_retail_next import ONLINE_RETAIL_NEXT
from training.recipes.pinnerformer import PINNERFORMER
from training.recipes.pinnersage import PINNERSAGE
from training.recipes.ranker_blocks import (
    GROCER_DCN,
    GROCER_DIN,
    GROCER_FIBINET,
    GROCER_PPNET,
    GROCER_SIM,
    MOVIELENS_LAST,
)
from training.recipes.retail_returns import RETAIL_RETURNS
from training.recipes.retail_views import RETAIL_VIEWS
from training.recipes.sasrec import SASREC

_CASCADE = "Yi et al., RecSys 2019; COLD, arXiv 2007.16122; MMoE, KDD 2018"

CARDS: tuple[Card, ...] = (
    Card(
        recipe=MOVIELENS,
        systems=("R1", "R2", "P1", "P2", "K3"),
        source=_CASCADE,
        effect="logQ correction of in-batch negatives raises recall over softmax without it",
    ),
    Card(
        recipe=ONLINE_RETAIL,
        systems=("R1", "R2", "C4", "P1", "K3", "K13"),
        source=f"{_CASCADE}; BM25, Robertson and Walker, SIGIR 1994",
        effect="as movielens; stems, fuzzy words, prefixes and ids find more than plain BM25",
    ),
    Card(
        recipe=MOVIELENS_NEXT,
        systems=("R1", "R2"),
        source="Yi et al., RecSys 2019; mixed negatives, Yang et al., WWW 2020; EBR, arXiv 2006.11632",
        effect="listwise with logQ beats pointwise; negatives that were shown and left hurt retrieval",
    ),
    Card(
        recipe=RETAIL_VIEWS,
        systems=("R12",),
        source="self-supervised two-tower, Yao et al., CIKM 2021, arXiv 2007.12865",
        effect="telling two views of an item from those of others gives cold items recall",
    ),
    Card(
        recipe=MOVIELENS_LEFT_OVER,
        systems=("C7", "C8"),
        source="items that ranking scored high and no page showed; no paper",
        effect="they are candidates for the next visit until they expire",
    ),
    Card(
        recipe=MOVIELENS_UPDATES,
        systems=("R14",),
        source="full and incremental updates of deployed recommenders; no paper",
        effect="tables that learn every few minutes keep a daily model fresh in the last hours of a day",
    ),
    Card(
        recipe=MOVIELENS_GLMIX,
        systems=("K12",),
        source="GLMix, Zhang et al., KDD 2016; LinkedIn Learning, 2020",
        effect="random effects of users and items, retrained daily, beat the fixed effect alone",
    ),
    Card(
        recipe=EBAY,
        systems=("R6",),
        source="eBay's personalised embedding-based retrieval, arXiv 2102.06156",
        effect="lists become more diverse with the clusters that they are taken from, at a cost in recall",
    ),
    Card(
        recipe=MOVIELENS_ENSEMBLE,
        systems=("R3",),
        source="Facebook's embedding-based retrieval, KDD 2020, arXiv 2006.11632",
        effect="hard negatives raise recall, alone and in an ensemble; the margin swings it by 5 to 10 %",
    ),
    Card(
        recipe=ONLINE_RETAIL_NEXT,
        systems=("C1", "C2", "C3", "C8"),
        source="item CF, Linden et al. 2003; Swing, arXiv 2010.05525; user CF, GroupLens 1994",
        effect="each finds relevant items that the others miss",
    ),
    Card(
        recipe=GOWALLA,
        systems=("C3", "C5", "C8"),
        source="geohash, Niemeyer 2008; check-ins, Cho et al., KDD 2011",
        effect="where people go next is near where they go: near beats popular",
    ),
    Card(
        recipe=COMPLETEJOURNEY,
        systems=("K1", "K2", "K4"),
        source="shared bottom, Caruana 1997; calibration, He et al., 2014; watch time, RecSys 2016",
        effect="calibrated after down-sampling; t/(1+t) labels predict watch time better than its mean",
    ),
    Card(
        recipe=RETAIL_RETURNS,
        systems=("K1", "K2"),
        source="multi-task learning, Caruana 1997; labels closed after 14 days, GLMix, KDD 2016",
        effect="what will be sent back is foretold better than by chance, and calibrated",
    ),
    Card(
        recipe=GROCER_DCN,
        systems=("K6",),
        source="DCN V2, Wang et al., WWW 2021, arXiv 2008.13535",
        effect="crosses of bounded degree between all inputs raise AUC",
    ),
    Card(
        recipe=GROCER_PPNET,
        systems=("K7",),
        source="LHUC, Swietojanski and Renals, SLT 2014; PEPNet, KDD 2023, arXiv 2302.01115",
        effect="gates by who asks raise AUC",
    ),
    Card(
        recipe=GROCER_FIBINET,
        systems=("K8",),
        source="FiBiNET, Huang et al., RecSys 2019, arXiv 1905.09433",
        effect="weighed fields crossed in pairs raise AUC",
    ),
    Card(
        recipe=MOVIELENS_LAST,
        systems=("K9",),
        source="averages of the last N items, practice; no paper",
        effect="an average for each action tells of a user what one of all actions does not",
    ),
    Card(
        recipe=GROCER_DIN,
        systems=("K10",),
        source="Deep Interest Network, Zhou et al., KDD 2018, arXiv 1706.06978",
        effect="attention of the candidate over the history raises AUC over its mean",
    ),
    Card(
        recipe=GROCER_SIM,
        systems=("K11",),
        source="SIM, Pi et al., CIKM 2020, arXiv 2006.05639",
        effect="events of a long history that are about the candidate tell more than the newest ones",
    ),
    Card(
        recipe=MOVIELENS_SMALL,
        systems=("K1", "K2", "K5"),
        source="calibration, He et al., ADKDD 2014; completion over f(length), practice; no paper",
        effect="completion divided by a fitted f(length) favours no length",
    ),
    Card(
        recipe=COMPLETEJOURNEY_NEXT,
        systems=("C6", "C1", "C3", "C8"),
        source="items of authors whom a user interacts with, and of similar ones; no paper",
        effect="items of the makers and brands that a household buys beat popular ones",
    ),
    Card(
        recipe=GOWALLA_TOWERS,
        systems=("R3", "R5"),
        source="location in arXiv 2006.11632 (Facebook) and arXiv 2306.04833 (Etsy)",
        effect="where users and items are raises recall",
    ),
    Card(
        recipe=SASREC,
        systems=("R7",),
        source="SASRec, arXiv 1808.09781",
        effect="self-attention over a sequence beats Markov chains, RNNs and CNNs in next items",
    ),
    Card(
        recipe=BEAUTY_NEXT,
        systems=("R7", "C1"),
        source="SASRec, arXiv 1808.09781; sequential rules, arXiv 1803.09587",
        effect="what neighbours of items tell and what a transformer tells differ: merged they beat either",
    ),
    Card(
        recipe=PINNERFORMER,
        systems=("R7",),
        source="PinnerFormer, arXiv 2205.04507",
        effect="mixed negatives with logQ: R@10 .229, without .138; all-action loses less when a day old",
    ),
    Card(
        recipe=CROSS_SHOP,
        systems=("R11",),
        source="Coveo, Fantastic Embeddings and How to Align Them, arXiv 2007.14906",
        effect="aligned spaces of two shops beat unaligned ones on cross-shop NDCG@10",
    ),
    Card(
        recipe=CROSS_SHOP_QUERIES,
        systems=("R11",),
        source="Coveo, Fantastic Embeddings and How to Align Them, arXiv 2007.14906",
        effect="aligned spaces suggest queries of the other shop",
    ),
    Card(
        recipe=DEEP_RETRIEVAL,
        systems=("R13",),
        source="Deep Retrieval, arXiv 2007.07203",
        effect="recall near brute force by scoring a fraction of the items",
    ),
    Card(
        recipe=HYDRATED,
        systems=("R5",),
        source="Etsy's unified embedding, arXiv 2306.04833: its hydrated vectors alone",
        effect="hydrated vectors raise recall on later purchases",
    ),
    Card(
        recipe=ETSY,
        systems=("R5",),
        source="Etsy's unified embedding, arXiv 2306.04833",
        effect="a history transformer and location add recall; a quantised index loses at most 4 %",
    ),
    Card(
        recipe=NEURAL_CF,
        systems=("R9",),
        source="LinkedIn Learning, 2020; neural CF, arXiv 1708.05031",
        effect="HR@10 and NDCG@10 above item-KNN, leave-one-out among 100 sampled items",
    ),
    Card(
        recipe=DPSR,
        systems=("R4",),
        source="DPSR, arXiv 2006.02282",
        effect="two heads separate the meanings of a query; joining features from memory saves 90 % of data",
    ),
    Card(
        recipe=PINNERSAGE,
        systems=("R8",),
        source="PinnerSage, arXiv 2007.03634",
        effect="medoids beat one average embedding in relevance and recall where interests are mixed",
    ),
    Card(
        recipe=AVITO,
        systems=("R10",),
        source="Avito, item similarity for new items",
        effect="new items are found at once; int8 loses < 1 % recall; the hardest 100 train faster",
    ),
)
"""In the order of `headrace recipes list`."""

RECIPES: Mapping[str, Recipe] = {card.recipe.name: card.recipe for card in CARDS}


def dataset_of(surface: str) -> str:
    """Return the data set that a surface's recipe trains on, or one of the surface's name."""
    trained = (recipe.dataset_name for recipe in RECIPES.values() if recipe.surface == surface)
    return next(trained, surface.replace("-", "_"))


def recipe_of(surface: str) -> Recipe:
    """Return the recipe that makes releases of a surface; raises InvalidInput where none does."""
    for recipe in RECIPES.values():
        if recipe.surface == surface:
            return recipe
    raise InvalidInput(FieldViolation("surface", f"{surface!r} has no recipe here"))
