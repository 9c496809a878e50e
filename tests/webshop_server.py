"""A local web application that speaks the routes of the original WebShop, around our own shop. For tests."""

from __future__ import annotations

import ast
import html
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote

from himac_lite.tasks.webshop.catalogue import Catalogue
from himac_lite.tasks.webshop.goals import Goal
from himac_lite.tasks.webshop.reward import reward
from himac_lite.tasks.webshop.search import SearchEngine


def button(label: str, action: str) -> str:
    return (
        f'<form method="post" action="{action}"><button class="btn" type="submit">{html.escape(label)}</button></form>'
    )


def application(catalogue: Catalogue, goals: Sequence[Goal]) -> type[BaseHTTPRequestHandler]:
    engine, sessions = SearchEngine(catalogue), {}

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = [unquote(p) for p in self.path.strip("/").split("/")]
            route = getattr(self, parts[0], None) if len(parts) > 1 else self.index
            try:
                body = route(*parts[1:]) if len(parts) > 1 else self.index(parts[0])
            except Exception:
                return self.answer(500, "Internal Server Error")
            self.answer(200, body)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            if "search_query" in form:
                words = form["search_query"][0].lower().split(" ")
                self.send_response(302)
                self.send_header("Location", f"/search_results/{self.path.strip('/')}/{quote(str(words))}/1")
                self.end_headers()
            else:
                self.do_GET()

        def answer(self, code: int, body: str) -> None:
            data = f"<html><head><title>hidden</title><style>h1 {{}}</style></head><body>{body}</body></html>".encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

        def said(self, sid: str) -> str:
            return (
                f'<div id="instruction-text"><h4>Instruction:<br>\n{html.escape(sessions[sid].instruction)}</h4></div>'
            )

        def index(self, sid: str) -> str:
            if sid not in sessions:
                assert "fixed" in sid
                sessions[sid] = goals[int(sid.rsplit("_", 1)[1])]
            search = '<input id="search_input" name="search_query"><button class="btn" type="submit">Search</button>'
            return f'<h1>WebShop</h1>{self.said(sid)}<form method="post" action="/{sid}">{search}</form>'

        def search_results(self, sid: str, words: str, page: str) -> str:
            found, number = engine(" ".join(ast.literal_eval(words))), int(page)
            here = f"/search_results/{sid}/{quote(words)}"
            out = [self.said(sid), button("Back to Search", f"/{sid}")]
            out.append(f"<h3>Page {number} (Total results: {len(found)})</h3>")
            if number > 1:
                out.append(button("< Prev", f"{here}/{number - 1}"))
            if number * 10 < len(found):
                out.append(button("Next >", f"{here}/{number + 1}"))
            for p in found[(number - 1) * 10 : number * 10]:
                link = f"/item_page/{sid}/{p.asin}/{quote(words)}/{page}/{quote('{}')}"
                out.append(f'<h4><a class="product-link" href="{link}">{p.asin}</a></h4>')
                out.append(f"<h4>{html.escape(p.title)}</h5><h5>{p.price_tag}</h6>")  # as crooked as the original
            return "\n".join(out)

        def item_page(self, sid: str, asin: str, words: str, page: str, chosen: str) -> str:
            p, options = catalogue[asin], ast.literal_eval(chosen)
            out = [self.said(sid), button("Back to Search", f"/{sid}")]
            out.append(button("< Prev", f"/search_results/{sid}/{quote(words)}/{page}"))
            for name, values in p.options.items():
                out.append(f"<h4>{name}</h4>")
                for value in values:
                    url = f"/item_page/{sid}/{asin}/{quote(words)}/{page}/{quote(str({**options, name: value}))}"
                    out.append(
                        f'<input type="radio" name="{name}" value="{value}" data-url="{url}"><label>{value}</label>'
                    )
            out.append(f"<h2>{html.escape(p.title)}</h2><h4>Price: {p.price_tag}</h4><h4>Rating: N.A.</h4>")
            for sub in ("Description", "Features", "Reviews"):
                out.append(button(sub, f"/item_sub_page/{sid}/{asin}/{quote(words)}/{page}/{sub}/{quote(chosen)}"))
            return "\n".join([*out, button("Buy Now", f"/done/{sid}/{asin}/{quote(chosen)}"), "<script>let x</script>"])

        def item_sub_page(self, sid: str, asin: str, words: str, page: str, sub: str, chosen: str) -> str:
            p = catalogue[asin]
            texts = {"Description": (p.description,), "Features": p.bullets, "Reviews": ()}[sub]
            back = button("< Prev", f"/item_page/{sid}/{asin}/{quote(words)}/{page}/{quote(chosen)}")
            return "\n".join(
                [self.said(sid), button("Back to Search", f"/{sid}"), back, *(f"<p>{t}</p>" for t in texts)]
            )

        def done(self, sid: str, asin: str, chosen: str) -> str:
            goal = sessions[sid]
            total = reward(catalogue[asin], catalogue[goal.asin], goal, ast.literal_eval(chosen)).total
            return f'<h1>Thank you</h1><h3 id="reward">Your score <pre>{total}</pre></h3><p>Goal: {goal.asin}</p>'

    return Shop


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that answers while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
