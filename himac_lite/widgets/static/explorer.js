// Two linked groups of one level. The kernel sends the recorded returns once; this widget listens to the controls in the
// browser, so every one of them answers from here. Text from a model is set as textContent only.

const SYMBOL = { macro: "z", micro: "τ" };
const fig = (x) => String(Number(x.toPrecision(4))).replace("-", "−");
const make = (tag, parent, properties = {}, attributes = {}) => {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent?.append(node);
  return node;
};
// The style sheet draws the sign (hue, and side of the line or bar) and the size (depth of colour, length of the bar).
// What looks the same is left alone: of hundreds of tokens, one step of a slider changes few.
const paint = (node, a, limit) => {
  const look = `${Math.abs(a) < 5e-7 ? "0" : a > 0 ? "+" : "-"}${Math.min(1, Math.abs(a) / limit).toFixed(3)}`;
  if (node.look === look) return;
  node.look = look;
  node.dataset.sign = look[0];
  node.style.cssText = `--part:${look.slice(1)}`;
};
const write = (node, text) => node.textContent === text || (node.textContent = text);

function explorer(model, el, controls) {
  // A control's own trait, or one of this widget.
  const get = (name) => (controls[name] ? controls[name][0].get(controls[name][1]) : model.get(name));
  let data = { levels: [] };
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
  const zed = (n) => (n < 0 ? say("own") : `z${n + 1}`);
  const root = make("div", el, { className: "hx" }, { role: "group", "aria-label": say("all") });
  let rows = {};
  let failed;

  const here = () => data.levels[get("level")];
  // What was chosen or set by hand counts for the level that it was chosen on, and for no other.
  const key = () => `${data.iteration}:${get("level")}`;
  const own = (name) => (get(name)[0] === key() ? get(name) : []);
  const best = () => here().best;
  const plan = () => own("plan")[1] ?? best();
  const shown = () => `${key()}:${plan()}`;
  const chosen = () => (own("chosen").length ? own("chosen").slice(1) : here().macro ? ["macro", Math.max(0, best())] : ["micro", 0]);
  const toy = (kind) => get("toy_on") && (own("toy")[1]?.[kind] || recorded(kind).map((m) => m.rets[dials().reward]));
  const recorded = (kind) => (kind === "macro" ? here().macro : here().micros[plan()]) || [];
  const kinds = () => (here().macro ? ["macro", "micro"] : ["micro"]);

  // The group of this level as the dials want it, and the rest of the batch: other levels, where sizes agree.
  function batch(kind) {
    const { reward, size } = dials();
    const typed = toy(kind);
    const at = get("level");
    const all = data.levels.map((l, p) => {
      const members = p === at ? recorded(kind) : kind === "macro" ? l.macro || [] : l.micros[l.best];
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
      const [, said] = ["", words, ...say("head").split("|"), ""].map((textContent) => make("span", head, { textContent }));
      // The colours and marks of a row, above the column that has them.
      say(`${kind} key`).split("|").forEach((textContent, n) => paint(make("span", said, { className: "hx-chip", textContent }), [2, -2, 0][n], 3));
      recorded(kind).forEach((m, n) => part.rows.push(row(table, kind, m, n)));
      rows[kind] = part;
    }
  }

  function row(table, kind, m, n) {
    const node = make("div", table, { className: "hx-row" }, { role: "group" });
    const choose = () => set({ chosen: [key(), kind, n], ...(kind === "macro" && { plan: [key(), n] }) });
    const name = make("button", node, { onclick: choose });
    const said = make("div", node, { className: "hx-said", title: m.text || "", onclick: choose });
    const chips = [];
    for (const [textContent, action] of m.chips) {
      const span = make("span", said, { textContent });
      if (action === null) continue;
      span.className = "hx-chip";
      if (action >= 0) span.onmouseenter = () => (span.title = `${action + 1}: ${signed(span.own)}`);
      chips.push([span, action]);
    }
    if (m.bad) make("span", said, { className: "hx-bad", textContent: `✗ ${m.bad}` });
    const ret = make("span", node, { className: "hx-num" });
    const oninput = ({ target }) => {
      const values = [...toy(kind)];
      values[n] = Number(target.value) || 0;
      set({ toy: [key(), { ...own("toy")[1], [kind]: values }] });
    };
    const inputs = [["number", "typed", {}], ["range", "dragged", { min: 0, max: 1 }]];
    const fields = get("toy_on") && inputs.map(([type, label, ends]) =>
      make("input", ret, { type, step: 0.05, ...ends, oninput }, { "aria-label": say(label, SYMBOL[kind], n + 1) }));
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
      failed.hidden = true;
    } catch (error) {
      failed.textContent = error.message;
      failed.hidden = false;
      return;
    }
    const limit = Math.max(3, ...Object.values(found).flatMap((f) => [...f.member, ...f.actions.flat()]).map(Math.abs));
    for (const kind of kinds()) show(kind, found[kind], limit, group === kind ? at : -1);
    said = { key: shown(), kind: group, n: at, d, found, count: rows[group].rows[at]?.chips.length };
    tell();
  }

  function show(kind, { all, p, member, actions }, limit, at) {
    const part = rows[kind];
    const r = all[p].map((m) => m.ret);
    const star = kind === "macro" && best() + 1 ? r.indexOf(Math.max(...r)) : -1;
    const z = plan();
    write(part.title, say(here().macro ? kind : "flat", r.length, zed(z)) + (r.length ? say("spread", fig(mean(r)), fig(std(r, 0))) : ""));
    let note = "";
    if (kind === "micro" && !r.length) {
      note = here().micros[best()][0] ? say("once", zed(z), here().macro[z].rets[dials().reward], zed(best())) : say("alone");
    } else if (r.length && flat(r)) {
      note = say(member.some((a) => a) ? "pooled" : "equal", r.length, r[0].toFixed(2));
    } else if (star >= 0 && star !== best()) {
      note = say("star", zed(star), zed(best()));
    }
    write(part.note, note);
    part.note.hidden = !note;
    part.rows.forEach((line, n) => {
      const out = n >= r.length;
      const a = out ? 0 : member[n];
      const name = `${SYMBOL[kind]}${n + 1}${n === star ? " ★" : ""}`;
      write(line.name, name);
      line.name.setAttribute("aria-pressed", n === at);
      const used = kind === "macro" && n === z ? " hx-plan" : "";
      line.node.className = `hx-row${n === at ? " hx-chosen" : ""}${used}${out ? " hx-out" : ""}`;
      line.node.setAttribute("aria-label", out ? say("out", name) : say("row", name, fig(r[n]), signed(a)));
      if (line.fields && !out) line.fields.forEach((f) => f === document.activeElement && f.type === "number" || (f.value = r[n]));
      else if (!line.fields) write(line.ret, out ? "–" : r[n].toFixed(2));
      paint(line.bar, a, limit);
      write(line.value, out ? "" : signed(a));
      for (const [node, action] of line.chips) {
        node.own = out ? 0 : action === undefined ? a : actions[n][action];
        paint(node, node.own, limit);
      }
    });
  }

  // What is shown, for the arithmetic and the player. They stand in the same page, so nothing goes through the kernel.
  const channel = `himac-${get("channel")}`;
  let said = {};
  const tell = () => document.dispatchEvent(new CustomEvent(channel, { detail: said }));
  document.addEventListener(`${channel}?`, tell);

  let built = "";
  let due = 0;
  // However many traits change at once, the page is drawn once; rows stay while only numbers change.
  const changed = () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(() => {
      if (!here()) return;
      const now = shown() + get("toy_on");
      if (now !== built) build();
      built = now;
      update();
    });
  };
  const load = async () => {
    const packed = get("data");
    const found = await unpack(packed);
    // Unless a newer one has come while this was unpacked.
    if (packed !== get("data")) return;
    data = found;
    built = "";
    changed();
  };
  const heard = [[model, "change:data", load], ...["toy", "plan", "chosen"].map((name) => [model, `change:${name}`, changed])];
  for (const [control, trait] of Object.values(controls)) heard.push([control, `change:${trait}`, changed]);
  for (const [whose, event, answer] of heard) whose.on(event, answer);
  load();
  return () => {
    document.removeEventListener(`${channel}?`, tell);
    for (const [whose, event, answer] of heard) whose.off(event, answer);
  };
}

export default {
  async render({ model, el }) {
    const controls = {};
    for (const [name, [ref, trait]] of Object.entries(model.get("controls"))) {
      controls[name] = [await model.widget_manager.get_model(ref.slice("IPY_MODEL_".length)), trait];
    }
    return explorer(model, el, controls);
  },
};
