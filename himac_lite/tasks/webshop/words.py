"""Word lists: colours and non-nouns for the reward; departments, products and attributes for our catalogue."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLOURS = _words(
    "amber apricot aqua beige black blue blush bronze brown burgundy camel camo caramel champagne charcoal "
    "chestnut chocolate copper coral cream crimson dark denim ebony emerald espresso fuchsia gold graphite gray "
    "green grey heather indigo ivory jade khaki lavender lemon leopard light lilac lime magenta mahogany maroon "
    "mauve mint mocha multicolor mustard natural navy nude oak olive orange peach pearl pewter pink plum purple "
    "rainbow red rose royal ruby rust sage sand sapphire scarlet silver slate steel tan taupe teal terracotta "
    "turquoise violet walnut white wine yellow"
)
"""Colour names, in the order in which they are searched for in an option."""

NOT_NOUNS = frozenset(
    _words(
        "a an and are as at be by can for from has have in into is it its made not of on one or our out set so than "
        "that the their these they this to up use uses with without you your all any each every more most new anti "
        "big black blue bright brown classic clean clear cold comfortable compact cool cordless cotton cruelty dark "
        "deep double dry durable easy electric extra fast fine flexible folding free fresh full gentle gluten gold "
        "gray green grey handmade hard heavy high hot hypoallergenic insulated large light lightweight little long "
        "low machine medium mini modern natural navy non nonstick organic oval pink plain portable premium purple "
        "pure quick quiet ready red rechargeable refillable round short silver simple slim slip small smart smooth "
        "soft solid sour square stackable stainless steel strong sturdy super sweet thick thin tough ultra unscented "
        "vegan warm washable waterproof wet white wide wireless wooden yellow young"
    )
)
"""Words of a title that are not nouns."""

# Our catalogue. A department has a category path, possible attributes and product types. A type has a noun, a price
# range in dollars, and the options that a buyer must choose.

OPTIONS: dict[str, tuple[str, ...]] = {
    "color": ("black", "white", "navy", "sage", "coral", "charcoal", "ivory", "teal", "burgundy", "mustard"),
    "size": ("small", "medium", "large", "x-large"),
    "capacity": ("350 ml", "500 ml", "750 ml", "1 liter"),
    "scent": ("lavender", "citrus", "cedar", "unscented", "jasmine", "mint"),
    "flavor": ("vanilla", "dark chocolate", "salted caramel", "peanut", "lemon", "raspberry"),
    "finish": ("matte", "glossy", "brushed", "antique"),
    "length": ("1 meter", "2 meters", "3 meters", "5 meters"),
    "pack": ("single", "pack of 2", "pack of 4", "pack of 6"),
    "firmness": ("soft", "firm", "extra firm"),
    "pattern": ("plain", "striped", "checked", "dotted"),
}

Type = tuple[str, tuple[int, int], tuple[str, ...]]
Department = tuple[str, tuple[str, ...], tuple[Type, ...]]

DEPARTMENTS: tuple[Department, ...] = (
    (
        "Home & Kitchen › Kitchen › Tableware",
        ("dishwasher safe", "bpa free", "heat resistant", "stackable", "lead free", "leak proof", "easy to clean",
         "shatter proof", "double walled", "hand painted"),
        (("mug", (8, 30), ("color", "capacity")), ("water bottle", (12, 45), ("color", "capacity")),
         ("salad bowl", (10, 40), ("color", "size")), ("dinner plate", (6, 28), ("color", "pack")),
         ("lunch box", (12, 38), ("color", "size")), ("teapot", (18, 60), ("color", "capacity")),
         ("cutting board", (10, 50), ("size",)), ("storage jar", (8, 32), ("capacity", "pack"))),
    ),
    (
        "Home & Kitchen › Furniture › Living Room",
        ("easy to assemble", "space saving", "solid wood", "scratch resistant", "anti slip", "heavy duty", "foldable",
         "wall mounted", "eco friendly", "water resistant"),
        (("bookshelf", (45, 180), ("color", "size")), ("coffee table", (60, 220), ("color", "finish")),
         ("floor lamp", (35, 140), ("color", "finish")), ("side table", (30, 110), ("color", "finish")),
         ("shoe rack", (25, 90), ("color", "size")), ("wall mirror", (30, 150), ("finish", "size")),
         ("bar stool", (40, 160), ("color",)), ("storage ottoman", (35, 120), ("color", "pattern"))),
    ),
    (
        "Home & Kitchen › Bedding › Bedroom",
        ("machine washable", "hypoallergenic", "breathable", "wrinkle free", "fade resistant", "extra soft",
         "quick dry", "moisture wicking", "organic cotton", "odor free"),
        (("pillow", (15, 60), ("size", "firmness")), ("throw blanket", (18, 70), ("color", "size")),
         ("duvet cover", (30, 110), ("color", "pattern")), ("bath towel", (10, 45), ("color", "pack")),
         ("fitted sheet", (20, 75), ("color", "size")), ("curtain", (18, 80), ("color", "pattern")),
         ("bath mat", (12, 40), ("color", "size")), ("mattress topper", (50, 200), ("size", "firmness"))),
    ),
    (
        "Beauty & Personal Care › Skin Care › Body",
        ("cruelty free", "paraben free", "fragrance free", "alcohol free", "long lasting", "dermatologist tested",
         "sulfate free", "for sensitive skin", "non greasy", "plant based"),
        (("hand cream", (6, 30), ("scent", "pack")), ("shampoo bar", (7, 26), ("scent", "pack")),
         ("body lotion", (9, 40), ("scent",)), ("deodorant", (6, 24), ("scent", "pack")),
         ("lip balm", (4, 18), ("scent", "pack")), ("bath salt", (8, 35), ("scent",)),
         ("face mask", (8, 45), ("pack",)), ("scented candle", (10, 48), ("scent", "size"))),
    ),
    (
        "Grocery & Gourmet Food › Snacks › Sweets",
        ("gluten free", "sugar free", "non gmo", "low carb", "high protein", "dairy free", "individually wrapped",
         "fair trade", "nut free", "keto friendly"),
        (("protein bar", (12, 40), ("flavor", "pack")), ("granola", (6, 25), ("flavor",)),
         ("cookie", (5, 28), ("flavor", "pack")), ("chocolate truffle", (10, 55), ("flavor", "pack")),
         ("nut butter", (8, 30), ("flavor",)), ("oatmeal", (6, 24), ("flavor", "pack")),
         ("rice cracker", (4, 20), ("flavor", "pack")), ("baking mix", (5, 22), ("flavor",))),
    ),
    (
        "Electronics › Accessories › Everyday",
        ("fast charging", "noise cancelling", "tangle free", "shock proof", "high speed", "touch control",
         "energy saving", "sweat proof", "easy to install", "hands free"),
        (("usb cable", (6, 28), ("color", "length")), ("desk lamp", (18, 90), ("color", "finish")),
         ("phone case", (8, 40), ("color", "pattern")), ("wireless mouse", (12, 60), ("color",)),
         ("headphone", (25, 180), ("color",)), ("power bank", (18, 80), ("color",)),
         ("extension cord", (9, 40), ("color", "length")), ("laptop sleeve", (14, 55), ("color", "size"))),
    ),
)  # fmt: skip

BRANDS = (
    "Alderby", "Brightwell", "Corvana", "Dunmore", "Elmsworth", "Fennick", "Gladehill", "Harrowby", "Ivorra",
    "Juniper Lane", "Kestrel Bay", "Larkfield", "Mossgate", "Norrvik", "Oakhaven", "Pellworth", "Quillon", "Rowanby",
    "Silverfen", "Thornley",
)  # fmt: skip
USES = (
    "for daily use", "for small homes", "for the whole family", "for travel", "for guests", "for students",
    "as a gift", "for the office",
)  # fmt: skip
ASKS = (
    "i am looking for a {} that is {}", "i need a {} that is {}", "find me a {} that is {}",
    "i want to buy a {} that is {}", "i would like a {}, and it should be {}", "please get me a {} that is {}",
)  # fmt: skip
