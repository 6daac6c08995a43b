"""Turns logs into bundles: datasets, models, recipes, evaluation. Never imported by serving."""
