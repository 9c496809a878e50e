"""WebShop: pages, grammar and reward against the original's behaviour; the catalogue; bad actions."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himac_lite.errors import TaskError
from himac_lite.storage import data_dir
from himac_lite.tasks.webshop import generator
from himac_lite.tasks.webshop.catalogue import Catalogue, Product, load_catalogue, parse_prices, to_json
from himac_lite.tasks.webshop.goals import NO_LIMIT, PARTS, Goal, load_goals, make_goal, split, synthetic_goals
from himac_lite.tasks.webshop.reward import has_attribute, normal_colour, ratio, reward, title_score, type_reward
from himac_lite.tasks.webshop.search import SearchEngine, words
from himac_lite.tasks.webshop.shop import Session, parse_action


def product(asin: str = "B000000001", title: str = "Acme mug, leak proof", **changes) -> Product:
    given = {
        "category": "kitchen", "query": "mug", "product_category": "Home › Kitchen › Mugs",
        "description": "A mug.", "bullets": ("dishwasher safe", "holds 350 ml"), "prices": (12.99,),
        "options": {"color": ("light navy", "red"), "size": ("small", "large")}, "attributes": ("leak proof",),
        "instruction": "i need a mug that is leak proof", "instruction_attributes": ("leak proof",),
    }  # fmt: skip
    return Product(asin, title, **{**given, **changes})


MUG = product()
OTHERS = [product(f"B00000002{i:02d}"[:10], f"Mug number {i}", options={}, prices=(5.0, 9.0)) for i in range(10, 22)]
SHOP = Catalogue((MUG, *OTHERS), "test")
ENGINE = SearchEngine(SHOP)
GOAL = make_goal(MUG, (("color", "light navy"), ("size", "small")), 20.0)
SAID = (
    "Instruction: [SEP] i need a mug that is leak proof with color: light navy, and size: small, and price lower than "
    "20.00 dollars"
)


def session(*actions: str) -> Session:
    it = Session(SHOP, ENGINE, GOAL)
    for action in actions:
        it.act(action)
    return it


# ---- pages, as the original's text mode shows them ---------------------------------------------------------------


def test_the_start_page():
    assert session().page.text == f"WebShop [SEP] {SAID} [SEP] Search"
    assert session().page.clickables == ("search",)


def test_the_results_come_ten_a_page():
    first = session("search[Acme MUG]").page
    assert first.text.startswith(
        f"{SAID} [SEP] Back to Search [SEP] Page 1 (Total results: 13) [SEP] Next > [SEP] B000000001 [SEP] "
        "Acme mug, leak proof [SEP] $12.99 [SEP] B000000021"
    )
    assert first.text.count("Mug number") == 9
    assert first.clickables[:3] == ("back to search", "next >", "b000000001")
    assert len(first.clickables) == 12
    second = session("search[acme mug]", "click[next >]").page
    assert second.text.startswith(
        f"{SAID} [SEP] Back to Search [SEP] Page 2 (Total results: 13) [SEP] < Prev [SEP] B00000002"
    )
    assert second.clickables[:2] == ("back to search", "< prev")
    assert session("search[acme mug]", "click[next >]", "click[< prev]").page == first


def test_the_item_page_and_its_sub_pages():
    item = session("search[acme]", "click[B000000001]").page
    assert item.text == (
        f"{SAID} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] light navy [SEP] red [SEP] size [SEP] small [SEP] "
        "large [SEP] Acme mug, leak proof [SEP] Price: $12.99 [SEP] Rating: N.A. [SEP] Description [SEP] "
        "Features [SEP] Reviews [SEP] Buy Now"
    )
    features = session("search[acme]", "click[b000000001]", "click[features]").page
    assert features.text == f"{SAID} [SEP] Back to Search [SEP] < Prev [SEP] dishwasher safe [SEP] holds 350 ml"
    back = session("search[acme]", "click[b000000001]", "click[red]", "click[features]", "click[< prev]")
    assert back.page == item
    assert back.options == {"color": "red"}  # a sub-page keeps them; the way back to the results does not
    back.act("click[< prev]")
    assert back.options == {}
    assert back.page.text.startswith(f"{SAID} [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] B000000001")


def test_a_range_of_prices_is_shown_as_one():
    assert "[SEP] $5.0 to $9.0" in session("search[number]").page.text


def test_search_works_from_any_page_and_back_to_search_clears_the_options():
    it = session("search[acme]", "click[b000000001]", "click[small]", "click[description]", "search[number 15]")
    assert (it.page.texts[4], it.options) == ("Next >", {})
    it = session("search[acme]", "click[b000000001]", "click[small]", "click[back to search]")
    assert (it.page, it.options) == (session().page, {})


def test_buying_ends_the_session_and_never_shows_the_goal():
    it = session("search[acme]", "click[b000000001]", "click[light navy]", "click[small]", "click[buy now]")
    assert it.score == 1.0
    assert "leak" not in it.page.text
    assert not it.act("search[acme]")
    assert it.page.clickables == ()


# ---- the grammar -------------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab[] \n", max_size=12))
def test_an_action_is_read_as_the_originals_expression_reads_it(text):
    found = re.match(r"(.+)\[(.+)\]", text)
    assert parse_action(text) == ((found[1], found[2].lower()) if found else None)


@pytest.mark.parametrize(
    "action",
    [
        "", " ", "search", "search[]", "search[", "buy now", "click[]", "Click[search]", "Search[mug]", "SEARCH[mug]",
        "click[search]", "click[buy now]", "click[b000000001]", "think[what to buy]", "search[" + "x" * 100_000 + "]",
        "[" * 100_000, "\x00\ud800[]", "click[next >]",
    ],
)  # fmt: skip
def test_an_unknown_action_changes_nothing(action):
    it = session()
    assert not it.act(action)
    assert it.page == session().page


def test_words_that_nothing_is_found_by():
    assert session("search[zzz qqq]").page.text == f"{SAID} [SEP] Back to Search [SEP] Page 1 (Total results: 0)"
    assert session("search[%$!]").results == []


def test_at_most_fifty_results():
    many = Catalogue(tuple(product(f"C{i:09d}", options={}) for i in range(60)), "many")
    it = Session(many, SearchEngine(many), make_goal(many.products[0], (), NO_LIMIT))
    it.act("search[mug]")
    assert "Page 1 (Total results: 50)" in it.page.texts
    assert [p.asin for p in it.results] == [f"C{i:09d}" for i in range(50)]  # equal ones in the catalogue's order


# ---- reward: R = r_type · (attribute hits + option hits + [price ≤ upper]) / (attributes + options + 1) ----------


def test_reward_by_hand():
    # 1 attribute, 2 options, the price: denominators of 4.
    both = reward(MUG, MUG, GOAL, {"color": "light navy", "size": "small"})
    assert (both.total, both.attributes, both.options, both.price, both.r_type) == (1.0, 1, 2, True, 1.0)
    assert reward(MUG, MUG, GOAL, {"size": "small"}).total == 3 / 4
    assert reward(MUG, MUG, GOAL, {}).total == 2 / 4
    dear = product(prices=(20.01,))
    assert reward(dear, MUG, GOAL, {}).total == 1 / 4
    plain = product(attributes=("other",), title="Acme mug", bullets=(), description="")
    assert reward(plain, MUG, GOAL, {}).total == 1 / 4
    # Another query, other categories, 1 of the nouns acme, mug, leak, proof found: 0.25 is alike still.
    lamp = product(query="lamp", product_category="Light › Lamps", title="Acme lamp", attributes=(), bullets=())
    assert reward(lamp, MUG, GOAL, {}).title_score == 0.25
    assert reward(lamp, MUG, GOAL, {}).total == 1 / 4
    # Nothing in common: r_type 0.
    assert reward(product(query="lamp", product_category="x", title="Floor lamp"), MUG, GOAL, {}).total == 0.0


def test_the_type_of_what_was_bought():
    assert [type_reward(True, s) for s in (0.0, 0.05, 0.1, 1.0)] == [0.0, 0.1, 1.0, 1.0]
    assert [type_reward(False, s) for s in (0.0, 0.05, 0.1, 0.2)] == [0.0, 0.1, 0.5, 0.5]
    assert title_score("red mug", "blue red and the") == 0.2  # the wanted title has no noun
    assert title_score("Acme kettle", "Acme mug") == 0.5


def test_attributes_are_found_in_the_list_or_in_the_texts():
    assert has_attribute(MUG, "leak proof")
    assert has_attribute(MUG, "leakproof") is (ratio("leak proof", "leakproof") > 85)
    assert has_attribute(MUG, "dishwasher safe")  # among the features
    assert not has_attribute(MUG, "bpa free")


def test_token_set_ratio():
    # The words of one are all in the other: 100. "red" and "bed" share 2 of 3 letters: 2·2/6 = 67.
    assert ratio("pack of 2", "Pack of 2 (large)") == 100
    assert ratio("red", "bed") == 67
    assert ratio("small", "x-small") == 100  # as in the original: a hit that is none
    assert (normal_colour("light navy heather"), normal_colour("no such")) == ("heather", "no such")


# ---- files -------------------------------------------------------------------------------------------------------


def test_a_catalogue_of_the_original_is_read(tmp_path):
    raw = {
        "asin": "B0ABCDEF12", "name": "Shirt", "category": "fashion", "query": " Men's Shirts ",
        "product_category": "Clothing › Men › Shirts", "full_description": None, "small_description": ["Soft", None],
        "pricing": "$1,299.50 to $1,400", "images": ["http://x/y.jpg"], "brand": "z",
        "customization_options": {"Color": [{"value": " Red/Blue ", "image": None}], "Fit": None},
    }  # fmt: skip
    odd = [{**raw, "asin": "nan"}, {**raw, "asin": "B0ABCDEF12", "name": "again"}, {**raw, "asin": "TOOLONGASIN"}]
    (tmp_path / "items_shuffle_1000.json").write_text(json.dumps([raw, *odd]))
    known = {"B0ABCDEF12": {"attributes": ["soft"], "instruction": "find a shirt", "instruction_attributes": ["soft"]}}
    (tmp_path / "items_ins_v2_1000.json").write_text(json.dumps(known))
    (shirt,) = load_catalogue(tmp_path / "items_shuffle_1000.json").products
    assert (shirt.title, shirt.query, shirt.prices) == ("Shirt", "men's shirts", (1299.5, 1400.0))
    assert (shirt.options, shirt.bullets) == ({"color": ("red | blue",)}, ("Soft",))
    assert (shirt.attributes, shirt.price_tag) == (("soft",), "$1299.5 to $1400.0")
    (goal,) = synthetic_goals(Catalogue((shirt,), ""), seed=0)
    assert goal.instruction == "find a shirt with color: red | blue"  # dearer than 990 dollars: no limit
    (tmp_path / "items_ins_v2_1000.json").unlink()
    assert load_catalogue(tmp_path / "items_shuffle_1000.json").products[0].attributes == ("DUMMY_ATTR",)


@pytest.mark.parametrize(
    ("text", "prices"), [(None, (100.0,)), ("", (100.0,)), ("$5", (5.0,)), ("$5 $6 $7", (5.0, 6.0))]
)
def test_prices(text, prices):
    assert parse_prices(text) == prices


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "is not JSON"), ("{}", "list of products"), ("[]", "no product"), ("[{}]", "product 1 has no 'asin'"),
        ('[{"asin": 3}]', "product 1 cannot be read"), ('[{"asin": "B1", "name": "x"}]', "product 1 has no"),
    ],
)  # fmt: skip
def test_a_broken_catalogue_is_one_line(tmp_path, content, said):
    file = tmp_path / "items.json"
    file.write_text(content)
    with pytest.raises(TaskError, match=said) as caught:
        load_catalogue(file)
    assert str(file) in str(caught.value)
    with pytest.raises(TaskError, match="cannot read"):
        load_catalogue(tmp_path / "none.json")


def test_a_byte_order_mark_and_endless_brackets(tmp_path):
    file = tmp_path / "items.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(to_json(SHOP.products[:1])[0]).encode())
    assert load_catalogue(file).products[0].title == SHOP.products[0].title
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(TaskError, match="is not JSON"):
        load_catalogue(file)


@pytest.mark.parametrize(
    ("second", "field", "said"),
    [
        (0, "name", "title"), (0, "category", "category"), (0, "product_category", "product_category"),
        (0, "full_description", "description"), (1, "attributes", "attributes"), (1, "instruction", "instruction"),
        (1, "instruction_attributes", "instruction_attributes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [7, True, {"a": 1}, [["a"]], [1.5]])
def test_a_field_of_another_type_is_named_and_not_found_out_in_play(tmp_path, second, field, said, value):
    both = to_json(SHOP.products[:2])
    if second:
        if said.endswith("attributes") and not isinstance(value, list):
            value = [value]
        both[1][SHOP.products[1].asin][field] = value
    else:
        both[0][1][field] = value
    for name, content in zip(("items_x.json", "items_ins_x.json"), both, strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(TaskError, match=rf"items_x\.json: product 2 cannot be read: {said} should be text"):
        load_catalogue(tmp_path / "items_x.json")


def test_the_price_limit_is_above_the_price():
    for goal in synthetic_goals(SHOP, seed=3):
        price = SHOP[goal.asin].price
        assert price + 10 < goal.price_upper <= price + 40  # among the next four tens, never the nearest
        assert goal.price_upper % 10 == 0


# ---- our own shop ------------------------------------------------------------------------------------------------

FOLDER = data_dir() / "webshop"


@pytest.fixture(scope="module")
def shop() -> Catalogue:
    return load_catalogue(FOLDER / "items.json")


def test_the_shipped_files_are_those_of_the_manifest_and_of_the_seed(tmp_path):
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert {n: hashlib.sha256((FOLDER / n).read_bytes()).hexdigest() for n in manifest["sha256"]} == manifest["sha256"]
    generator.write(tmp_path, manifest["seed"])
    for file in sorted(Path(FOLDER).iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_no_product_and_no_instruction_is_wanted_in_two_parts(shop):
    goals = {part: load_goals(FOLDER / f"goals-{part}.jsonl", shop) for part in PARTS}
    assert {part: len(g) for part, g in goals.items()} == {"train": 1591, "validation": 212, "test": 210}
    for name in ("asin", "instruction"):
        seen = [{getattr(g, name) for g in goals[part]} for part in PARTS]
        assert sum(map(len, seen)) == len(set().union(*seen)), name
    assert [g for part in PARTS for g in split(goals[part], part)] == [g for part in PARTS for g in goals[part]]


def test_every_shipped_goal_can_be_fulfilled(shop):
    for part in PARTS:
        for goal in load_goals(FOLDER / f"goals-{part}.jsonl", shop):
            assert reward(shop[goal.asin], shop[goal.asin], goal, dict(goal.options)).total == 1.0


def test_a_search_for_what_is_asked_finds_it(shop):
    engine, goals = SearchEngine(shop), load_goals(FOLDER / "goals-validation.jsonl", shop)
    found = [
        goal.asin in {p.asin for p in engine(f"{shop[goal.asin].query} {' '.join(goal.attributes)}")[:10]}
        for goal in goals
    ]
    assert sum(found) / len(found) > 0.85


@pytest.mark.parametrize("line", ["{", "[]", '{"asin": "HL4978"}', '{"asin": "X", "options": {}, "price_upper": 1}'])
def test_a_broken_goal_names_its_line(shop, tmp_path, line):
    file = tmp_path / "goals.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(TaskError, match=r"goals.jsonl, line 1"):
        load_goals(file, shop)
    file.write_text(line, "utf-16")
    with pytest.raises(TaskError, match=r"cannot read .*goals.jsonl: 'utf-8' codec"):
        load_goals(file, shop)


def test_words():
    assert words("Glass mugs, 350-ML; the bus's") == ["glass", "mug", "350", "ml", "the", "bus", "s"]
    assert isinstance(GOAL, Goal)
