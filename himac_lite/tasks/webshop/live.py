"""A client of a running WebShop over HTTP; it reads pages like the original's `text` mode.

The server gives goal 7 to a session whose id contains ``fixed`` and ends with ``_7``. A failed request leaves the page
unchanged. A server that does not answer ends the session with a score of 0. Neither ends a training run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urljoin
from urllib.request import Request, urlopen

from himac_lite.errors import TaskError
from himac_lite.tasks.webshop.shop import Page, parse_action

MAX_BYTES = 4_000_000
GONE = "The shop does not answer."
DONE = "Thank you for shopping with us!"
_GONE = Page((GONE,), ())
_HIDDEN = {"style", "script", "head", "title", "meta"}
_VOID = {"meta", "link", "img", "input", "br", "hr"}


class _Reader(HTMLParser):
    """The visible texts of a page, and its buttons, links and options: label → (address, whether to POST)."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.leads: dict[str, tuple[str, bool]] = {}
        self.searches = False
        self.reward: float | None = None
        self._open: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input":
            self.searches |= given.get("id") == "search_input"
            if given.get("type") == "radio" and given.get("data-url"):
                self.leads[str(given.get("value"))] = (str(given["data-url"]), False)
        if tag not in _VOID:
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        # The original's pages close <h4> with </h5>, so any heading closes the last heading.
        for i in range(len(self._open) - 1, -1, -1):
            name = self._open[i][0]
            if name == tag or (name[0] == tag[0] == "h" and name[1:].isdigit() and tag[1:].isdigit()):
                del self._open[i:]
                return

    def handle_data(self, data: str) -> None:
        text = data.strip()
        if not text or (self._open and self._open[-1][0] in _HIDDEN):
            return
        self.texts.append(text)
        for tag, given in reversed(self._open):
            classes = (given.get("class") or "").split()
            if "btn" in classes:
                self.leads[text.lower()] = self._form()
            elif tag == "a" and "product-link" in classes:
                self.leads[text.lower()] = (given.get("href") or "", False)
            elif given.get("id") == "reward" and self.reward is None:
                self.reward = _number(text)

    def _form(self) -> tuple[str, bool]:
        forms = (given for tag, given in reversed(self._open) if tag == "form")
        given = next(forms, {})
        return given.get("action") or "", (given.get("method") or "get").lower() == "post"


def _number(text: str) -> float | None:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return None


def read_page(html: str) -> _Reader:
    """Parse a page; broken markup does not raise."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


@dataclass
class LiveSession:
    """One buyer at `url` with goal number `goal`. Never raises; `lost` has the error."""

    url: str
    goal: int
    timeout: float = 30.0
    """Seconds to wait for an answer."""
    lost: str = ""
    """Why the session lost the server; empty while it answers."""
    score: float | None = None
    page: Page = field(default=_GONE)
    _leads: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = f"{self.url.rstrip('/')}/fixed{secrets.token_hex(6)}_{self.goal}"
        self._here = self.home
        self._visit(self.home)

    @property
    def instruction(self) -> str:
        """The instruction on the page; empty if there is none."""
        texts = iter(self.page.texts)
        said = next((text for text in texts if text.startswith("Instruction:")), None)
        return "" if said is None else said.removeprefix("Instruction:").strip() or next(texts, "")

    def act(self, action: str) -> bool:
        """Take an action. Returns False, without a change, if the page does not offer it or the server refuses it."""
        parsed = parse_action(action)
        if parsed is None or self.score is not None:
            return False
        verb, what = parsed
        if verb == "search":
            # The query becomes part of a URL: a slash would split it, and <r> and similar words are commands.
            query = " ".join(what[:200].translate(str.maketrans("/<>", "   ")).split())
            return bool(query) and self._visit(self.home, {"search_query": query})
        if verb != "click" or what == "search" or what not in self._leads:
            return False
        address, post = self._leads[what]
        return self._visit(urljoin(self._here, address), {} if post else None)

    def _visit(self, address: str, form: dict[str, str] | None = None) -> bool:
        """Request a page (POST with a form, even an empty one). Returns False if the server refused."""
        if not address.startswith(self.url.rstrip("/") + "/"):  # never follow a link to another server
            return False
        data = None if form is None else urlencode(form).encode()
        try:
            with urlopen(Request(address, data=data), timeout=self.timeout) as answer:
                html, self._here = answer.read(MAX_BYTES).decode("utf-8", "replace"), answer.url
        except HTTPError:
            if address == self.home and form is None:
                self._lose("the shop has no such goal")
            return False
        except (URLError, OSError, HTTPException, ValueError) as error:
            self._lose(str(getattr(error, "reason", "") or error) or type(error).__name__)
            return False
        found = read_page(html)
        if found.reward is not None:  # this page shows the hidden goal, so the agent does not see it
            self.score, self.page, self._leads = found.reward, Page((DONE,), ()), {}
        else:
            self._leads = found.leads
            self.page = Page(tuple(found.texts), tuple(found.leads))
        return True

    def _lose(self, why: str) -> None:
        self.lost, self.score, self.page, self._leads = why, 0.0, _GONE, {}


def instructions(url: str, numbers: range) -> Iterator[str]:
    """The instruction of each goal of a running shop. Raises `TaskError` if it does not answer."""
    for number in numbers:
        session = LiveSession(url, number)
        if session.lost:
            raise TaskError(f"the WebShop at {url} did not answer for goal {number}: {session.lost}")
        yield session.instruction
