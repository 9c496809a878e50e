"""The shop: the pages of the original's `text` mode, and the effect of each action.

Actions are ``search[words]`` on any page and ``click[…]`` on an item of the page; any other action changes nothing.
A chosen option is kept until a search, Back to Search, or a return to the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from himac_lite.tasks.webshop.catalogue import Catalogue, Product
from himac_lite.tasks.webshop.goals import Goal
from himac_lite.tasks.webshop.reward import Reward, reward
from himac_lite.tasks.webshop.search import SearchEngine

SEP = " [SEP] "
PAGE = 10
"""Products per page of results."""
MAX_ACTION = 10_000
"""Maximum characters of an action; a longer action changes nothing."""
BACK, PREV, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")


@dataclass(frozen=True)
class Page:
    """The texts of a page, and its clickable items in lower case."""

    texts: tuple[str, ...]
    clickables: tuple[str, ...]

    @property
    def text(self) -> str:
        return SEP.join(self.texts)


def parse_action(text: str) -> tuple[str, str] | None:
    """``click[Buy Now]`` → ("click", "buy now"): verb and lower-case argument; None for any other form.

    Equal to the original's expression ``(.+)\\[(.+)\\]``, but in linear time: text after the last bracket is ignored.
    """
    if len(text) > MAX_ACTION:
        return None
    line = text.split("\n", 1)[0]
    close = line.rfind("]")
    opened = line.rfind("[", 1, max(1, close - 1))
    return (line[:opened], line[opened + 1 : close].lower()) if opened > 0 else None


@dataclass
class Session:
    """One buyer in the shop."""

    catalogue: Catalogue
    search: SearchEngine
    goal: Goal
    query: str = ""
    number: int = 1
    """Page of the results, from 1."""
    results: Sequence[Product] = ()
    product: Product | None = None
    sub_page: str = ""
    options: dict[str, str] = field(default_factory=dict)
    at_start: bool = True
    reward: Reward | None = None
    """Set by Buy Now, which ends the session."""

    @property
    def score(self) -> float | None:
        """The reward after Buy Now; None before."""
        return None if self.reward is None else self.reward.total

    @property
    def page(self) -> Page:
        """The current page."""
        if self.reward is not None:
            return Page(("Thank you for shopping with us!",), ())
        said = ("Instruction:", self.goal.instruction)
        if self.at_start:
            return Page(("WebShop", *said, "Search"), ("search",))
        if self.product is None:
            return self._results(said)
        if self.sub_page:
            return Page((*said, BACK, PREV, *_sub_page(self.product, self.sub_page)), (BACK.lower(), PREV.lower()))
        return self._item(said, self.product)

    def _results(self, said: tuple[str, ...]) -> Page:
        buttons = [BACK]
        if self.number > 1:
            buttons.append(PREV)
        if self.number * PAGE < len(self.results):
            buttons.append(NEXT)
        shown = self.results[(self.number - 1) * PAGE : self.number * PAGE]
        texts = [BACK, f"Page {self.number} (Total results: {len(self.results)})", *buttons[1:]]
        for product in shown:
            texts += [product.asin, product.title, product.price_tag]
        return Page((*said, *texts), tuple(b.lower() for b in [*buttons, *(p.asin for p in shown)]))

    def _item(self, said: tuple[str, ...], product: Product) -> Page:
        texts, values = [BACK, PREV], list[str]()
        for name, choices in product.options.items():
            texts += [name, *choices]
            values += choices
        texts += [product.title, f"Price: {product.price_tag}", "Rating: N.A.", *SUB_PAGES, BUY]
        return Page((*said, *texts), tuple(b.lower() for b in (BACK, PREV, *SUB_PAGES, BUY)) + tuple(values))

    def act(self, action: str) -> bool:
        """Take an action. Returns False if the page does not offer it; nothing changed then."""
        parsed = parse_action(action)
        if parsed is None or self.reward is not None:
            return False
        verb, what = parsed
        if verb == "search":
            self._find(what, 1)
            return True
        if verb != "click" or what == "search" or what not in self.page.clickables:
            return False
        self._click(what)
        return True

    def _find(self, query: str, number: int) -> None:
        if query != self.query or self.at_start:
            self.results = self.search(query)
        self.query, self.number, self.at_start = query, number, False
        self.product, self.sub_page, self.options = None, "", {}

    def _click(self, what: str) -> None:
        product = self.product
        if what == BACK.lower():
            self.product, self.sub_page, self.options, self.at_start = None, "", {}, True
        elif product is None:
            if what in (PREV.lower(), NEXT.lower()):
                self._find(self.query, self.number + (1 if what == NEXT.lower() else -1))
            else:
                self.product = next(p for p in self.results if p.asin.lower() == what)
        elif what == PREV.lower():
            if self.sub_page:
                self.sub_page = ""
            else:
                self._find(self.query, self.number)
        elif name := _option_named(product.options, what):
            self.options[name] = what
        elif what == BUY.lower():
            self.reward = reward(product, self.catalogue[self.goal.asin], self.goal, self.options)
        else:
            self.sub_page = next(name for name in SUB_PAGES if name.lower() == what)


def _option_named(options: Mapping[str, tuple[str, ...]], value: str) -> str | None:
    """The option with this value; the last of several, as in the original."""
    return next((name for name in reversed(list(options)) if value in options[name]), None)


def _sub_page(product: Product, name: str) -> tuple[str, ...]:
    if name == "Description":
        return (product.description,)
    return product.bullets if name == "Features" else ()
