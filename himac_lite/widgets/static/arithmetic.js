// The formula of an advantage with the numbers of the chosen member in it. What is chosen comes from the explorer's
// groups in the same page.

const exact = (x) => signed(x, 4);
const SYMBOL = { macro: "z", micro: "τ" };
const NAME = { u: "up", d: "down", l: "left", r: "right" };
const fig = (x) => String(Number(x.toPrecision(4))).replace("-", "−");

function lines({ r, pool, ret, a, step, d, kind, planned, count }) {
  const over = d.over === "steps";
  const base = over ? "mean" : d.baseline;
  const from = base === "batch" ? pool : r;
  const others = base === "leave_one_out";
  const b = others ? (sum(r) - ret) / (r.length - 1) : mean(from);
  const name = over ? "mean of all steps" : others ? "mean of the others" : `mean of the ${base === "mean" ? "group" : base}`;
  const how = others ? `(${fig(sum(r))} − ${fig(ret)}) / ${r.length - 1}` : `${fig(sum(from))} / ${from.length}`;
  const out = [`R = ${fig(ret)}`, `b = ${name} = ${how} = ${fig(b)}`];
  if (!a && flat(r)) out.push("all returns are equal: A = 0, exactly");
  else if (d.scale === "none") out.push(`A = R − b = ${fig(ret)} − ${fig(b)} = ${exact(a)}`);
  else {
    const of = d.scale === "batch" ? pool : r;
    const s = fig(std(of, d.ddof));
    const below = d.ddof ? `(${of.length} − ${d.ddof})` : of.length;
    out.push(`s = std of the ${d.scale === "batch" ? "batch" : over ? "steps" : "group"} = √(Σ(R_j − mean)² / ${below}) = √(${fig(squares(of))} / ${below}) = ${s}`);
    out.push(`A = (R − b) / (s + ε) = (${fig(ret)} − ${fig(b)}) / (${s} + ${d.eps.toExponential(0)}) = ${exact(a)}`);
  }
  if (step) out.push(`step ${step[0]}, ${step[1]}: A + ω · A_step = ${exact(a)} + ${fig(d.omega)} · ${exact(step[2])} = ${exact(step[3])}`);
  const what = kind === "macro" ? "blueprint tokens, in phase A" : `action tokens (with <sub_done>)${planned ? ", in phase B" : ""}`;
  out.push(`A is the credit of all its ${count} ${what}${d.omega && kind === "micro" ? "; each action has its own ω · A_step besides" : ""}.`);
  return out;
}

// What the explorer says that it shows → what goes into the formula.
function picked({ kind, n, d, found, count }) {
  const { all, p, member, steps, actions } = found[kind];
  if (member[n] === undefined) return null;
  const s = steps[n].reduce((top, a, i) => (Math.abs(a) > Math.abs(steps[n][top]) ? i : top), 0);
  const move = String(all[p][n].moves?.[s] ?? "");
  const step = d.omega && steps[n].length ? [s + 1, NAME[move.toLowerCase()] ?? move, steps[n][s], actions[n][s]] : null;
  const pool = all.flat().map((m) => m.ret);
  const r = d.over === "steps" ? perStep(all[p]) : all[p].map((m) => m.ret);
  return { name: SYMBOL[kind] + (n + 1), kind, planned: "macro" in found, count, r, pool, ret: all[p][n].ret, a: member[n], step, d };
}

export default {
  render({ model, el }) {
    const root = document.createElement("details");
    root.className = "hx hx-sum";
    root.open = true;
    const title = document.createElement("summary");
    el.append(root);
    const draw = ({ detail }) => {
      const member = detail?.found && picked(detail);
      const said = member ? lines(member) : ["Choose a member of the group."];
      title.textContent = member ? `The arithmetic of ${member.name}` : "The arithmetic";
      while (root.children.length <= said.length) root.append(document.createElement("div"));
      [...root.children].slice(1).forEach((line, i) => {
        line.hidden = i >= said.length;
        if (line.textContent !== said[i]) line.textContent = said[i] ?? "";
      });
    };
    root.append(title);
    draw({});
    const channel = `himac-${model.get("channel")}`;
    document.addEventListener(channel, draw);
    document.dispatchEvent(new Event(`${channel}?`));
    return () => document.removeEventListener(channel, draw);
  },
};
