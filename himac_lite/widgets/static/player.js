// Plays recorded trajectories of one level, one or two side by side. The kernel sends the positions once; from then on
// nothing needs it, so it plays while the kernel trains. The rules stay in Python (every position was computed there).
// Text from a model is set as textContent only; the one innerHTML is the empty board of himac_lite.sokoban.render.

// Side of a tile in the board's SVG.
const UNIT = 20;
const NAMES = { u: "up", d: "down", l: "left", r: "right" };
const HAPPENED = { m: "moved", p: "pushed a box", b: "blocked" };
const ENDED = {
  sub_done: "✓ <sub_done>", budget: "◷ budget used up, no <sub_done>", success: "★ level solved",
  truncated: "✂ episode out of steps", "": "not reached",
};

function shape(tag, parent, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

// One trajectory: its board, what happened, its sub-goals and tokens. Answers with what draws a step, and what takes
// another return and other advantages than the recorded ones.
function stage(data, member, parent) {
  const { targets, width } = data;
  const { moves, size, goals, tokens } = member;
  const place = (cell) => `translate(${(cell % width) * UNIT} ${Math.floor(cell / width) * UNIT})`;
  const root = make("div", parent, { className: "himac-stage" });
  const title = make("div", root, { className: "himac-rollout-title", textContent: member.title });
  const svg = make("div", root, { className: "himac-rollout-board", innerHTML: data.board }).querySelector("svg");
  svg.querySelectorAll("title, desc").forEach((node) => node.remove());
  // On an empty board the pawn alone is placed.
  const pawn = svg.querySelector("g[transform]");
  const rings = targets.map((cell) => {
    const ring = shape("circle", svg, { cx: 10, cy: 10, r: 4.6, class: "himac-ring", transform: place(cell) });
    pawn.before(ring);
    return ring;
  });
  const boxes = Array.from({ length: size - 1 }, () => {
    const box = shape("g", svg, {});
    shape("rect", box, { x: 2.6, y: 2.6, width: 14.8, height: 14.8, rx: 2 });
    shape("path", box, { d: "M6 6l8 8M14 6l-8 8", class: "himac-cross" });
    shape("path", box, { d: "M5.8 10.4l3 3.2 5.4-7", class: "himac-tick" });
    pawn.before(box);
    return box;
  });
  const caption = make("div", root, { className: "himac-rollout-caption" });
  const list = make("ol", root, { className: "himac-rollout-plan" });
  let from = 0;
  const items = goals.map((goal) => {
    const item = make("li", list);
    make("div", item, { textContent: goal.text });
    const entry = { ...goal, from, until: from + goal.steps, item, state: make("div", item, { className: "himac-rollout-state" }) };
    from = entry.until;
    return entry;
  });
  if (member.note) make("div", root, { className: "himac-rollout-note", textContent: member.note });
  const strip = make("details", root, { className: "himac-tokens", open: data.open });
  const above = make("summary", strip, { textContent: "tokens" });
  strip.ontoggle = () => {
    data.open = strip.open;
    colour();
  };
  const told = make("div", strip, { className: "himac-rollout-state" });
  let { ret, advantage } = member;
  let actions = null;
  // An action has an advantage of its own where steps of the same state are compared.
  const own = (token) => (actions && token[3] !== null ? actions[token[3]] : advantage) ?? 0;
  const tell = (token) => {
    const [text, role, logp] = token;
    const chosen = `mask 1: chosen by the model, log-prob ${signed(logp, 3)}, p = ${Math.exp(logp).toFixed(2)}`;
    const mask = role === "given" ? "mask 0: not chosen by the model" : `${chosen}, trained with advantage ${signed(own(token))}`;
    told.textContent = `${text.trim()} · ${role} · ${mask}`;
  };
  const chips = tokens.map((token) => {
    const chip = make("span", strip, { className: "himac-token", textContent: token[0].trim(), tabIndex: -1, onclick: () => tell(token) });
    chip.onmouseenter = chip.onclick;
    return chip;
  });
  const colour = () => strip.open && chips.forEach((chip, i) => {
    const a = own(tokens[i]);
    chip.dataset.sign = tokens[i][1] === "given" ? "given" : Math.abs(a) < 5e-7 ? "0" : a > 0 ? "+" : "-";
    chip.style.setProperty("--part", Math.min(1, Math.abs(a) / 3).toFixed(3));
  });
  colour();
  strip.hidden = !tokens.length;
  let segment = -1;

  const draw = (wanted) => {
    const last = moves.length;
    const frame = Math.min(last, wanted);
    const [at, ...cells] = member.frames.slice(frame * size, (frame + 1) * size);
    let home = 0;
    boxes.forEach((box, i) => {
      const done = targets.includes(cells[i]);
      home += done;
      box.setAttribute("transform", place(cells[i]));
      box.setAttribute("class", done ? "himac-box himac-done" : "himac-box");
    });
    rings.forEach((ring, i) => ring.setAttribute("r", targets[i] === at ? 8.4 : 4.6));
    pawn.setAttribute("transform", place(at) + (targets.includes(at) ? " translate(2.6 2.6) scale(.74)" : ""));
    const boxText = `${home} of ${cells.length} boxes on target`;
    const happened = frame ? `${NAMES[moves[frame - 1].toLowerCase()]}, ${HAPPENED[member.happened[frame - 1]]}` : "start";
    const reward = frame === last ? `return ${ret.toFixed(2)}` : "no reward yet";
    caption.textContent = `step ${frame} of ${last}: ${happened} · ${boxText} · ${reward}`;
    svg.setAttribute("aria-label", `Sokoban board, ${boxText}`);
    let now = 0;
    items.forEach((goal, k) => {
      const over = goal.end && frame >= goal.until && frame >= goal.from;
      const active = goal.end && !over && frame >= goal.from;
      if (goal.end && frame > goal.from) now = k;
      goal.item.className = active ? "himac-active" : over ? "himac-over" : "";
      const steps = `${goal.steps} step${goal.steps === 1 ? "" : "s"}`;
      goal.state.textContent = active ? `▸ active, step ${frame - goal.from} of ${goal.steps}`
        : over ? `${ENDED[goal.end] ?? goal.end} after ${steps}` : goal.end ? "waits" : ENDED[""];
    });
    // An executor sees one segment at a time, and so does the reader; a blueprint's tokens (no move) are always there.
    if (segment !== now) {
      segment = now;
      chips.forEach((chip, i) => (chip.hidden = (tokens[i][4] ?? now) !== now));
      above.textContent = member.planned ? "tokens of the blueprint" : `tokens of segment ${now + 1}`;
    }
    chips.forEach((chip, i) => chip.classList.toggle("himac-now", tokens[i][3] === frame - 1));
    const current = tokens.find((token) => token[3] === frame - 1);
    if (current) tell(current);
  };
  const credit = (found) => {
    const { all, p, member: values, actions: steps } = found[member.planned ? "macro" : "micro"];
    const n = Number(member.name.slice(1)) - 1;
    const out = values[n] === undefined;
    [ret, advantage, actions] = out ? [member.ret, 0, null] : [all[p][n].ret, values[n], steps[n]];
    title.textContent = member.title.split(", advantage")[0] + (out ? ", not in the group" : `, advantage ${signed(advantage)}`);
    colour();
  };
  return { draw, credit };
}

function player(data, model, el) {
  const [first, second] = model.get("shown").map((i) => data.members[i]);
  const last = Math.max(first.moves.length, second ? second.moves.length : 0);
  let frame = 0;
  let timer = null;
  const root = make("div", el, { className: "himac-rollout", tabIndex: 0 }, "Recorded episode. Arrow keys step, space plays.");
  root.setAttribute("role", "group");
  // In command mode a notebook takes the arrow keys from what has the focus, unless that very element says no.
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  make("div", root, { className: "himac-rollout-title", textContent: data.title });
  const bar = make("div", root, { className: "himac-rollout-bar" });
  const button = (text, label, onclick) => make("button", bar, { textContent: text, title: label, onclick }, label);
  button("|◀", "to the start", () => show(0));
  button("◀", "one step back", () => show(frame - 1));
  const toggle = button("▶ play", "play or pause", () => (timer ? pause() : play()));
  button("▶", "one step forward", () => show(frame + 1));
  button("▶|", "to the end", () => show(last));
  const speed = make("select", bar, { title: "steps a second" }, "speed");
  for (const rate of [2, 5, 15, 60]) make("option", speed, { value: rate, textContent: `${rate}/s`, selected: rate === 5 });
  choosers(data, model, bar);
  const slider = make("input", root, { type: "range", min: 0, max: last, value: 0, className: "himac-rollout-slider" }, "step");
  slider.oninput = () => show(Number(slider.value));
  const both = make("div", root, { className: "himac-stages" });
  const stages = [first, ...(second ? [second] : [])].map((member) => stage(data, member, both));
  // Read out when it stands still; sixty captions a second are no help to a listener.
  const quiet = (on) => both.setAttribute("aria-live", on ? "off" : "polite");

  function show(wanted) {
    frame = Math.max(0, Math.min(last, wanted));
    if (wanted !== frame || (wanted === last && timer)) pause();
    slider.value = frame;
    stages.forEach((stage) => stage.draw(frame));
  }

  function play() {
    if (frame === last) show(0);
    toggle.textContent = "❚❚ pause";
    quiet(true);
    let due = performance.now();
    const tick = (now) => {
      if (now >= due - 1) {
        due = Math.max(due, now - 250) + 1000 / Number(speed.value);
        show(frame + 1);
      }
      if (timer) timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }

  function pause() {
    cancelAnimationFrame(timer);
    timer = null;
    toggle.textContent = "▶ play";
    quiet(false);
  }

  root.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (event.key === " " && event.target === root) timer ? pause() : play();
    else if (step && event.target !== slider && event.target.tagName !== "SELECT") show(frame + step);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  // In an explorer, returns and advantages are those that its controls make, as long as both speak of the same groups.
  const channel = `himac-${data.channel}`;
  const hear = ({ detail }) => {
    if (detail.key !== data.key) return;
    for (const stage of stages) stage.credit(detail.found);
    if (!timer) show(frame);
  };
  pause();
  show(0);
  if (data.channel) {
    document.addEventListener(channel, hear);
    document.dispatchEvent(new Event(`${channel}?`));
  }
  return () => {
    pause();
    document.removeEventListener(channel, hear);
  };
}

export default {
  render({ model, el }) {
    let stop = () => {};
    let data;
    let seen = "";
    const build = async () => {
      const packed = model.get("data");
      if (packed !== seen) {
        const found = await unpack(packed);
        // Unless a newer one has come while this was unpacked.
        if (packed !== model.get("data")) return;
        [data, seen] = [found, packed];
      }
      // Otherwise the next message brings it.
      if (!data.members[Math.max(...model.get("shown"))]) return;
      stop();
      el.replaceChildren();
      stop = player(data, model, el);
    };
    build();
    model.on("change:data", build);
    model.on("change:shown", build);
    return () => {
      stop();
      model.off("change:data", build);
      model.off("change:shown", build);
    };
  },
};
