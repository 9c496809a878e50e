// himac_lite.advantage once more, so that a slider need not wait for the kernel: tests hold the two together.
// A member of a group is {ret, steps, states}: its return, its environment steps, a number for the state of each.

const sum = (a) => a.reduce((x, y) => x + y, 0);
const mean = (a) => sum(a) / a.length;
const squares = (a) => sum(a.map((x) => (x - mean(a)) ** 2));
const std = (a, ddof) => Math.sqrt(squares(a) / (a.length - ddof));
const flat = (a) => a.every((x) => x === a[0]);
const baselineOf = (rows, p, n, kind) => {
  const r = rows[p];
  return kind === "mean" ? mean(r) : kind === "batch" ? mean(rows.flat()) : (sum(r) - r[n]) / (r.length - 1);
};

// rows: returns [P][N]; answers with the advantages [N] of row p.
function groupAdvantage(rows, p, { baseline, scale, ddof, eps }) {
  const r = rows[p];
  const all = rows.flat();
  const pool = scale === "batch" ? all : r;
  if (baseline === "leave_one_out" && r.length < 2) throw Error("Leave one out wants a group of at least 2.");
  if (scale !== "none" && ddof >= pool.length) throw Error(`ddof ${ddof} wants more than ${ddof} returns.`);
  if (flat(baseline === "batch" && scale !== "std" ? all : r)) return r.map(() => 0);
  const below = scale === "none" ? 1 : std(pool, ddof) + eps;
  return r.map((x, n) => (x - baselineOf(rows, p, n, baseline)) / below);
}

const perStep = (group) => group.flatMap((m) => Array(Math.max(1, m.steps)).fill(m.ret));

// What each step adds by GiGPO: it is compared with the steps of the group that were taken in the same state.
function sameState(group, dials) {
  const visits = new Map();
  const returns = group.map(({ ret, states }, n) => {
    const out = Array(states.length);
    for (let s = states.length - 1, g = ret; s >= 0; s -= 1, g *= dials.gamma) out[s] = g;
    states.forEach((state, s) => visits.set(state, [...(visits.get(state) || []), [n, s]]));
    return out;
  });
  const steps = returns.map((g) => g.map(() => 0));
  for (const met of visits.values()) {
    if (met.length < 2) continue;
    groupAdvantage([met.map(([n, s]) => returns[n][s])], 0, dials).forEach((a, i) => (steps[met[i][0]][met[i][1]] = a));
  }
  return steps;
}

// groups: members [P][N]. {member: [N], actions: [N][S]}, the advantages of group p; dials: see widgets/credit.py.
export function credit(groups, p, dials) {
  const group = groups[p];
  const rows = groups.map((g) => g.map((m) => m.ret));
  let member;
  if (dials.over === "steps") {
    if (dials.scale === "batch") throw Error("The std of the batch is not defined over steps.");
    const a = groupAdvantage([perStep(group)], 0, { ...dials, baseline: "mean" });
    let end = -1;
    member = group.map((m) => a[(end += Math.max(1, m.steps))]);
  } else member = groupAdvantage(rows, p, dials);
  const steps = dials.omega ? sameState(group, dials) : group.map((m) => m.states.map(() => 0));
  return { member, actions: steps.map((s, n) => s.map((a) => member[n] + dials.omega * a)), steps };
}
