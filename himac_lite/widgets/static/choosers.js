// What the players of boards and of cards share: an element, and the choice of one episode and of another beside it.

function make(tag, parent, properties = {}, label = "") {
  const node = Object.assign(document.createElement(tag), properties);
  if (label) node.setAttribute("aria-label", label);
  parent.append(node);
  return node;
}

function choosers(data, model, bar) {
  const choice = (label, from, at) => {
    const select = make("select", bar, {}, label);
    for (const [i, name] of from) make("option", select, { value: i, textContent: name, selected: i === at });
    return select;
  };
  const names = data.members.map((member, i) => [i, member.name]);
  const [mine, other] = model.get("shown");
  const one = choice("episode", names, mine);
  const two = choice("compare with", [[-1, "beside: –"], ...names.map(([i, name]) => [i, `beside: ${name}`])], other ?? -1);
  one.onchange = two.onchange = () => {
    model.set("shown", [Number(one.value), Number(two.value)].filter((i) => i >= 0));
    model.save_changes();
  };
}
