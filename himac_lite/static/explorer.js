// Two linked groups of one level. The kernel sends the recorded returns once; the controls are linked to this widget in
// the browser, so every one of them answers from here. Text from a model is set as textContent only.

const SYMBOL = { macro: "z", micro: "τ" };
const MARK = { sub_done: "✓", budget: "◷", success: "★", truncated: "✂" };
const NAME = { u: "up", d: "down", l: "left", r: "right" };
const signed = (x, digits = 2) => {
  const text = Math.abs(x).toFixed(digits);
  return Number(text) ? (x > 0 ? "+" : "−") + text : text;
};
const fig = (x) => String(Number(x.toPrecision(4))).replace("-", "−");
const make = (tag, parent, properties = {}, attributes = {}) => {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent?.append(node);
  return node;
};
// The style sheet draws the sign (hue, and side of the line or bar) and the size (depth of colour, length of the bar).
const paint = (node, a, limit) => {
  const part = Math.min(1, Math.abs(a) / limit);
  node.dataset.sign = Math.abs(a) < 5e-7 ? "0" : a > 0 ? "+" : "-";
  node.style.cssText = `--depth:${0.1 + 0.42 * part};--share:${50 * part}%`;
};

function explorer(model, el) {
  const get = (name) => model.get(name);
  const dials = () => {
    const out = { eps: get("eps"), omega: get("omega"), gamma: get("gamma"), size: get("size") };
    for (const [name, values] of Object.entries(get("choices"))) out[name] = values[get(name)];
    return out;
  };
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  // A sentence of the kernel's, each # replaced by the next value.
  const say = (name, ...values) => get("sentences")[name].replace(/#/g, () => values.shift());
  const root = make("div", el, { className: "hx" }, { role: "group", "aria-label": say("all") });
  let rows = {};
  let failed;

  const here = () => get("data").levels[get("level")];
  // What was chosen or set by hand counts for the level that it was chosen on, and for no other.
  const key = () => `${get("data").iteration}:${get("level")}`;
  const own = (name) => (get(name)[0] === key() ? get(name) : []);
  const best = () => here().best ?? -1;
  const plan = () => own("plan")[1] ?? best();
  const chosen = () => (own("chosen").length ? own("chosen").slice(1) : here().macro ? ["macro", best()] : ["micro", 0]);
  const toy = (kind) => get("toy_on") && (own("toy")[1]?.[kind] || recorded(here(), kind).map((m) => m.rets[dials().reward]));
  const recorded = (l, kind) => (kind === "macro" ? l.macro : l.micros[plan()]) || [];
  const kinds = () => (here().macro ? ["macro", "micro"] : ["micro"]);

  // The group of this level as the dials want it, and the rest of the batch: other levels, where sizes agree.
  function batch(kind) {
    const { reward, size } = dials();
    const typed = toy(kind);
    const at = get("level");
    const all = get("data").levels.map((l, p) => {
      const members = p === at ? recorded(l, kind) : kind === "macro" ? l.macro || [] : l.micros[l.best ?? -1];
      return members.slice(0, size).map((m, n) => ({ ...m, ret: typed && p === at ? typed[n] ?? 0 : m.rets[reward] }));
    });
    return typed || all.some((g) => g.length !== all[at].length) ? [[all[at]], 0] : [all, at];
  }

  function build() {
    root.replaceChildren();
    rows = {};
    failed = make("p", root, { className: "hx-flag", hidden: true });
    for (const kind of kinds()) {
      const table = make("div", root, { className: `hx-group hx-${kind}${get("toy_on") ? " hx-toy" : ""}` });
      const part = { title: make("h4", table), note: make("p", table, { className: "hx-flag" }), rows: [] };
      const head = make("div", table, { className: "hx-row hx-head" });
      const words = kind === "macro" ? here().words : say("moves");
      for (const text of ["", words, ...say("head").split("|"), ""]) make("span", head, { textContent: text });
      recorded(here(), kind).forEach((m, n) => part.rows.push(row(table, kind, m, n)));
      rows[kind] = part;
    }
    make("p", root, { className: "hx-key", textContent: say("key") });
  }

  function row(table, kind, m, n) {
    const node = make("div", table, { className: "hx-row" }, { role: "group" });
    const choose = () => set({ chosen: [key(), kind, n], ...(kind === "macro" && { plan: [key(), n] }) });
    const name = make("button", node, { onclick: choose });
    const said = make("div", node, { className: "hx-said", title: m.text || "", onclick: choose });
    const chips = [];
    const chip = (textContent, action) => chips.push([make("span", said, { textContent, className: "hx-chip" }), action]);
    if (kind === "macro") {
      m.tokens.forEach((text) => chip(text));
      if (m.bad) make("span", said, { className: "hx-bad", textContent: `✗ ${m.bad}` });
    } else {
      let at = 0;
      for (const [steps, end] of m.segments) {
        for (const last = at + steps; at < last; at += 1) chip(m.moves[at], at);
        if (end === "sub_done") chip(MARK[end]);
        else make("span", said, { textContent: `${MARK[end] || ""} ` });
      }
      if (!chips.length) said.textContent = "–";
    }
    const ret = make("span", node, { className: "hx-num" });
    const fields = get("toy_on") && [
      make("input", ret, { type: "number", step: 0.05 }, { "aria-label": say("typed", SYMBOL[kind], n + 1) }),
      make("input", ret, { type: "range", min: 0, max: 1, step: 0.05 }, { "aria-label": say("dragged", SYMBOL[kind], n + 1) }),
    ];
    for (const field of fields || []) {
      field.oninput = () => {
        const values = [...toy(kind)];
        values[n] = Number(field.value) || 0;
        set({ toy: [key(), { ...own("toy")[1], [kind]: values }] });
      };
    }
    const bar = make("i", make("span", node, { className: "hx-bar" }));
    return { node, name, chips, ret, fields, bar, value: make("span", node, { className: "hx-num hx-a" }) };
  }

  function update() {
    const d = dials();
    const [group, at] = chosen();
    const found = {};
    try {
      for (const kind of kinds()) {
        const [all, p] = batch(kind);
        found[kind] = all[p].length ? { all, p, ...credit(all, p, d) } : { all, p, member: [], actions: [] };
      }
    } catch (error) {
      failed.textContent = error.message;
    }
    failed.hidden = Object.keys(found).length === kinds().length;
    if (!failed.hidden) return;
    const values = Object.values(found).flatMap((f) => [...f.member, ...f.actions.flat()]);
    const limit = Math.max(3, ...values.map(Math.abs));
    for (const kind of kinds()) show(kind, found[kind], limit, group === kind ? at : -1);
    pick(group, at, found[group], d);
  }

  // For the panel with the arithmetic, which is linked to `picked`.
  function pick(kind, n, { all, p, member, steps, actions }, d) {
    if (member[n] === undefined) return set({ picked: {} });
    const s = steps[n].reduce((top, a, i) => (Math.abs(a) > Math.abs(steps[n][top]) ? i : top), 0);
    const step = d.omega && steps[n].length ? [s + 1, NAME[all[p][n].moves[s].toLowerCase()], steps[n][s], actions[n][s]] : null;
    const pool = all.flat().map((m) => m.ret);
    const r = d.over === "steps" ? perStep(all[p]) : all[p].map((m) => m.ret);
    const kept = { name: SYMBOL[kind] + (n + 1), kind, planned: kinds().length > 1, count: rows[kind].rows[n].chips.length };
    // Saved at once: what is set and not saved is sent with the next message, and its echo would undo what came after.
    set({ picked: { ...kept, r, pool, ret: all[p][n].ret, a: member[n], step, d } });
  }

  function show(kind, { all, p, member, actions }, limit, at) {
    const part = rows[kind];
    const group = all[p];
    const r = group.map((m) => m.ret);
    const star = kind === "macro" ? r.indexOf(Math.max(...r)) : -1;
    const z = plan();
    const title = say(here().macro ? kind : "flat", r.length, z + 1);
    part.title.textContent = title + (r.length ? say("spread", fig(mean(r)), fig(std(r, 0))) : "");
    let note = "";
    if (kind === "micro" && !r.length) {
      note = say("once", z + 1, here().macro[z].rets[dials().reward], best() + 1);
    } else if (r.length && flat(r)) {
      note = say(member.some((a) => a) ? "pooled" : "equal", r.length, r[0].toFixed(2));
    } else if (star >= 0 && star !== best()) {
      note = say("star", star + 1, best() + 1);
    }
    part.note.textContent = note;
    part.note.hidden = !note;
    part.rows.forEach((line, n) => {
      const out = n >= r.length;
      const a = out ? 0 : member[n];
      const name = `${SYMBOL[kind]}${n + 1}${n === star ? " ★" : ""}`;
      line.name.textContent = name;
      line.name.setAttribute("aria-pressed", n === at);
      const used = kind === "macro" && n === z ? " hx-plan" : "";
      line.node.className = `hx-row${n === at ? " hx-chosen" : ""}${used}${out ? " hx-out" : ""}`;
      line.node.setAttribute("aria-label", out ? say("out", name) : say("row", name, fig(r[n]), signed(a)));
      if (line.fields && !out) line.fields.forEach((f) => f === document.activeElement && f.type === "number" || (f.value = r[n]));
      else if (!line.fields) line.ret.textContent = out ? "–" : r[n].toFixed(2);
      paint(line.bar, a, limit);
      line.value.textContent = out ? "" : signed(a);
      for (const [node, action] of line.chips) {
        const own = out ? 0 : action === undefined ? a : actions[n][action];
        paint(node, own, limit);
        if (action !== undefined) node.title = `${action + 1}: ${NAME[node.textContent.toLowerCase()]}, ${signed(own)}`;
      }
    });
  }

  let built = "";
  let due = 0;
  // However many traits change at once, the page is drawn once; rows stay while only numbers change.
  const changed = () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(() => {
      if (!here()) return; // the next message brings the level
      const now = JSON.stringify([key(), plan(), get("toy_on")]);
      if (now !== built || root.data !== get("data")) build();
      built = now;
      root.data = get("data");
      update();
    });
  };
  const events = [...get("listens"), ...Object.keys(get("choices"))].map((name) => `change:${name}`);
  for (const event of events) model.on(event, changed);
  changed();
  return () => events.forEach((event) => model.off(event, changed));
}

export default { render: ({ model, el }) => explorer(model, el) };
