"""The proxy router: gate, channels, merge, pre-ranking, ranking. Imports no torch, faiss or ray."""
