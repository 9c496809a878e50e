// Plays recorded trajectories in words, one or two side by side. Text from a model or a shop is set as textContent only.

const ENDED = {
  sub_done: "✓ <sub_done>", budget: "◷ budget used up", success: "★ solved", over: "■ the episode ended",
  truncated: "✂ out of steps", "": "not reached",
};

// One trajectory. Answers with what draws a step.
function stage(member, parent) {
  const root = make("div", parent, { className: "himac-card-stage" });
  make("div", root, { className: "himac-card-title", textContent: member.title });
  const action = make("div", root, { className: "himac-card-action" });
  const card = make("div", root, { className: "himac-card", tabIndex: 0 }, "what was seen");
  const list = make("ol", root, { className: "himac-card-plan" });
  const items = member.goals.map((goal) => make("li", list, { textContent: `${goal.text} · ${ENDED[goal.end] ?? goal.end}` }));
  if (member.note) make("div", root, { className: "himac-card-note", textContent: `✗ not executed: ${member.note}` });
  return (wanted) => {
    const frame = Math.min(member.steps.length, wanted);
    const step = member.steps[frame - 1];
    action.textContent = step ? `step ${frame} of ${member.steps.length}: ${step.action || "(empty)"}` : "start";
    const lines = (step ? step.seen : []).map((text) => Object.assign(document.createElement("div"), { textContent: text }));
    card.replaceChildren(...lines);
    items.forEach((item, k) => (item.className = step && step.goal === k ? "himac-active" : ""));
  };
}

function player(data, model, el) {
  const chosen = model.get("shown").map((i) => data.members[i]);
  const last = Math.max(...chosen.map((member) => member.steps.length));
  let frame = 0;
  const root = make("div", el, { className: "himac-cards", tabIndex: 0 }, "Recorded episode in words. Arrow keys step.");
  root.setAttribute("role", "group");
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  make("div", root, { className: "himac-card-title", textContent: data.title });
  const bar = make("div", root, { className: "himac-card-bar" });
  const button = (text, label, onclick) => make("button", bar, { textContent: text, title: label, onclick }, label);
  button("|◀", "to the start", () => show(0));
  button("◀", "one step back", () => show(frame - 1));
  button("▶", "one step forward", () => show(frame + 1));
  button("▶|", "to the end", () => show(last));
  choosers(data, model, bar);
  const slider = make("input", root, { type: "range", min: 0, max: last, value: 0 }, "step");
  slider.oninput = () => show(Number(slider.value));
  const both = make("div", root, { className: "himac-card-stages" });
  both.setAttribute("aria-live", "polite");
  const stages = chosen.map((member) => stage(member, both));

  function show(wanted) {
    frame = Math.max(0, Math.min(last, wanted));
    slider.value = frame;
    stages.forEach((draw) => draw(frame));
  }

  root.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (!step || event.target === slider || event.target.tagName === "SELECT") return;
    show(frame + step);
    event.preventDefault();
    event.stopPropagation();
  };
  show(0);
}

export default {
  render({ model, el }) {
    const build = () => {
      const data = model.get("data");
      if (!data.members[Math.max(...model.get("shown"))]) return; // the next message brings it
      el.replaceChildren();
      player(data, model, el);
    };
    build();
    model.on("change:data", build);
    model.on("change:shown", build);
    return () => {
      model.off("change:data", build);
      model.off("change:shown", build);
    };
  },
};
