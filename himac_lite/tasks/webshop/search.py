"""BM25 search with `bm25s` over title, description, first bullet and options, the fields that the original indexes.

Lucene's formula with Pyserini's defaults (k1 = 0.9, b = 0.4), without stemming and stop words; a plural s is removed.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from himac_lite.tasks.webshop.catalogue import Catalogue, Product

MAX_RESULTS = 50


def words(text: str) -> list[str]:
    """Lower-case words and numbers; ``mugs`` becomes ``mug``, ``glass`` stays."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in found]


def document(product: Product) -> list[str]:
    """The indexed words of a product."""
    options = " ".join(f"{name} {value}" for name, values in product.options.items() for value in values)
    return words(" ".join((product.title, product.description, *product.bullets[:1], options)))


class SearchEngine:
    """The index of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        import bm25s  # slow: it compiles code

        self._products = catalogue.products
        documents = [document(p) for p in catalogue.products]
        self._known = {word for d in documents for word in d}
        self._index: Any = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self._index.index(documents, show_progress=False)

    def __call__(self, query: str) -> list[Product]:
        """At most 50 products that share a word with the query, best first; ties in catalogue order."""
        asked = [word for word in words(query[:1000]) if word in self._known]
        if not asked:
            return []
        scores = np.asarray(self._index.get_scores(asked))
        order = np.argsort(-scores, kind="stable")[:MAX_RESULTS]
        return [self._products[i] for i in order if scores[i] > 0]
