// Plays one recorded trajectory. The kernel sends the positions once; from then on nothing needs it, so it plays while
// the kernel trains. The rules stay in Python (every position was computed there). Text from a model is set as
// textContent only; the one innerHTML is the empty board, drawn by himac_lite.sokoban.render.

const UNIT = 20; // side of a tile in the board's SVG
const NAMES = { u: "up", d: "down", l: "left", r: "right" };
const HAPPENED = { moved: "moved", pushed: "pushed a box", blocked: "blocked" };
const ENDED = {
  sub_done: "✓ <sub_done>", budget: "◷ budget used up, no <sub_done>", success: "★ level solved",
  truncated: "✂ episode out of steps", "": "not reached",
};

function make(tag, parent, properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  parent.append(node);
  return node;
}

function shape(tag, parent, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

function player(data, el) {
  const { frames, targets, width, subgoals } = data;
  const last = frames.length - 1;
  const place = (cell) => `translate(${(cell % width) * UNIT} ${Math.floor(cell / width) * UNIT})`;
  let frame = 0;
  let timer = null;

  const root = make("div", el, { className: "himac-rollout", tabIndex: 0 });
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Recorded episode. Arrow keys step, space plays.");
  make("div", root, { className: "himac-rollout-title", textContent: data.title });
  const stage = make("div", root, { className: "himac-rollout-board", innerHTML: data.board });
  const svg = stage.querySelector("svg");
  svg.querySelectorAll("title, desc").forEach((node) => node.remove());
  const pawn = svg.querySelector("g[transform]"); // on an empty board the pawn alone is placed
  const rings = targets.map((cell) => {
    const ring = shape("circle", svg, { cx: 10, cy: 10, r: 4.6, class: "himac-ring", transform: place(cell) });
    pawn.before(ring);
    return ring;
  });
  const boxes = frames[0].slice(1).map(() => {
    const box = shape("g", svg, {});
    shape("rect", box, { x: 2.6, y: 2.6, width: 14.8, height: 14.8, rx: 2 });
    shape("path", box, { d: "M6 6l8 8M14 6l-8 8", class: "himac-cross" });
    shape("path", box, { d: "M5.8 10.4l3 3.2 5.4-7", class: "himac-tick" });
    pawn.before(box);
    return box;
  });

  const bar = make("div", root, { className: "himac-rollout-bar" });
  const button = (text, label, onclick) => {
    const node = make("button", bar, { textContent: text, title: label, onclick });
    node.setAttribute("aria-label", label);
    return node;
  };
  button("|◀", "to the start", () => show(0));
  button("◀", "one step back", () => show(frame - 1));
  const toggle = button("▶ play", "play or pause", () => (timer ? pause() : play()));
  button("▶", "one step forward", () => show(frame + 1));
  button("▶|", "to the end", () => show(last));
  const speed = make("select", bar, { title: "steps a second" });
  speed.setAttribute("aria-label", "speed");
  for (const rate of [2, 5, 15, 60]) make("option", speed, { value: rate, textContent: `${rate}/s`, selected: rate === 5 });
  const slider = make("input", root, { type: "range", min: 0, max: last, value: 0, className: "himac-rollout-slider" });
  slider.setAttribute("aria-label", "step");
  slider.oninput = () => show(Number(slider.value));
  const caption = make("div", root, { className: "himac-rollout-caption" });
  caption.setAttribute("aria-live", "polite");
  const list = make("ol", root, { className: "himac-rollout-plan" });
  let from = 0;
  const goals = subgoals.map((goal) => {
    const item = make("li", list);
    make("div", item, { textContent: goal.text });
    const state = make("div", item, { className: "himac-rollout-state" });
    const entry = { ...goal, from, until: from + goal.steps, item, state };
    from = entry.until;
    return entry;
  });
  if (data.note) make("div", root, { className: "himac-rollout-note", textContent: data.note });

  function show(wanted) {
    frame = Math.max(0, Math.min(last, wanted));
    if (wanted !== frame || (wanted === last && timer)) pause();
    slider.value = frame;
    const [at, ...cells] = frames[frame];
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
    const happened = frame ? `${NAMES[data.moves[frame - 1].toLowerCase()]}, ${HAPPENED[data.happened[frame - 1]]}` : "start";
    caption.textContent = `step ${frame} of ${last}: ${happened} · ${boxText}`;
    svg.setAttribute("aria-label", `Sokoban board, ${boxText}`);
    goals.forEach((goal) => {
      const over = goal.end && frame >= goal.until && frame >= goal.from;
      const active = goal.end && !over && frame >= goal.from;
      goal.item.className = active ? "himac-active" : over ? "himac-over" : "";
      const steps = `${goal.steps} step${goal.steps === 1 ? "" : "s"}`;
      goal.state.textContent = active ? `▸ active, step ${frame - goal.from} of ${goal.steps}`
        : over ? `${ENDED[goal.end]} after ${steps}` : goal.end ? "waits" : ENDED[""];
    });
  }

  function play() {
    if (frame === last) show(0);
    toggle.textContent = "❚❚ pause";
    let due = performance.now();
    const tick = (now) => {
      if (now >= due) {
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
  }

  root.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    const inside = event.target === root;
    if (event.key === " " && inside) timer ? pause() : play();
    else if (step && event.target !== slider && event.target !== speed) show(frame + step);
    else return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has its own arrow keys
  };
  show(0);
  return pause;
}

export default {
  render({ model, el }) {
    let stop = () => {};
    const build = () => {
      stop();
      el.replaceChildren();
      stop = player(model.get("data"), el);
    };
    build();
    model.on("change:data", build);
    return () => {
      stop();
      model.off("change:data", build);
    };
  },
};
