// Widgets on a page without a kernel. A model of ours (get, set, on, off, save_changes) holds a widget's saved state, the
// standard controls are elements of HTML with the classes of ipywidgets, and a widget of ours runs its own JavaScript.

const himacLive = { modules: {}, kernels: {} };

(() => {
  const modules = {};

  class Model {
    constructor(state, manager) {
      Object.assign(this, { state, widget_manager: manager, heard: {} });
    }
    get(name) {
      return this.state[name];
    }
    set(name, value) {
      if (JSON.stringify(value) === JSON.stringify(this.state[name])) return;
      this.state[name] = value;
      for (const event of [`change:${name}`, "change"]) for (const answer of [...(this.heard[event] ?? [])]) answer();
    }
    on(event, answer) {
      (this.heard[event] ??= []).push(answer);
    }
    off(event, answer) {
      this.heard[event] = (this.heard[event] ?? []).filter((other) => other !== answer);
    }
    save_changes() {}
  }

  const make = (tag, parent, properties = {}) => {
    const node = Object.assign(document.createElement(tag), properties);
    parent?.append(node);
    return node;
  };
  const follow = (model, names, answer) => {
    for (const name of names) model.on(`change:${name}`, answer);
    answer();
  };
  let labels = 0;

  // A label and the element of a control beside it, as ipywidgets lays them out.
  function labelled(model, parent, className, tag, properties = {}) {
    const root = make("div", parent, { className: `jupyter-widgets widget-inline-hbox ${className}` });
    const label = make("label", root, { className: "widget-label", textContent: model.get("description") });
    const width = model.style?.get("description_width");
    if (width) label.style.width = width === "initial" ? "auto" : width;
    const control = make(tag, root, { id: `himac-live-${(labels += 1)}`, ...properties });
    label.htmlFor = control.id;
    return [root, control];
  }

  function choice(several) {
    return (model, parent) => {
      const kind = several ? "widget-select-multiple" : "widget-dropdown";
      const [root, select] = labelled(model, parent, kind, "select", { multiple: several });
      follow(model, ["_options_labels"], () => {
        select.replaceChildren();
        for (const text of model.get("_options_labels")) make("option", select, { textContent: text });
        if (several) select.size = Math.min(model.get("rows") ?? 5, select.options.length);
      });
      follow(model, ["index", "_options_labels"], () => {
        const chosen = [model.get("index")].flat();
        [...select.options].forEach((option, n) => (option.selected = chosen.includes(n)));
      });
      select.onchange = () => model.set("index", several ? [...select.selectedOptions].map((o) => o.index) : select.selectedIndex);
      return root;
    };
  }

  function slider(logarithmic) {
    return (model, parent) => {
      const [root, range] = labelled(model, parent, "widget-hslider", "input", { type: "range" });
      const said = make("output", root, { className: "widget-readout" });
      const digits = /\.(\d)f/.exec(model.get("readout_format") ?? "")?.[1] ?? 0;
      follow(model, ["value", "min", "max"], () => {
        const value = model.get("value");
        Object.assign(range, { min: model.get("min"), max: model.get("max"), step: model.get("step") ?? 1 });
        range.value = logarithmic ? Math.log10(value) : value;
        said.textContent = logarithmic ? value.toExponential(0) : value.toFixed(digits);
        range.setAttribute("aria-valuetext", said.textContent);
      });
      range.oninput = () => model.set("value", logarithmic ? 10 ** Number(range.value) : Number(range.value));
      return root;
    };
  }

  const box = (className) => (model, parent, manager) => {
    const root = make("div", parent, { className: `jupyter-widgets widget-container ${className}` });
    for (const ref of model.get("children")) manager.show(ref, root);
    return root;
  };

  const VIEWS = {
    HBoxModel: box("widget-box widget-hbox"),
    VBoxModel: box("widget-box widget-vbox"),
    DropdownModel: choice(false),
    SelectMultipleModel: choice(true),
    IntSliderModel: slider(false),
    FloatSliderModel: slider(false),
    FloatLogSliderModel: slider(true),
    CheckboxModel(model, parent) {
      const root = make("label", parent, { className: "jupyter-widgets widget-checkbox" });
      const input = make("input", root, { type: "checkbox" });
      make("span", root, { textContent: model.get("description") });
      follow(model, ["value"], () => (input.checked = model.get("value")));
      input.onchange = () => model.set("value", input.checked);
      return root;
    },
    HTMLModel(model, parent) {
      const root = make("div", parent, { className: "jupyter-widgets widget-html" });
      follow(model, ["value"], () => (root.innerHTML = model.get("value")));
      return root;
    },
    AnyModel(model, parent) {
      const root = make("div", parent, { className: "jupyter-widgets" });
      const name = model.get("_esm");
      modules[name] ??= himacLive.modules[name]();
      modules[name].render({ model, el: root });
      return root;
    },
  };

  function manager({ models }) {
    const made = {};
    const found = (ref) => {
      const id = ref.replace("IPY_MODEL_", "");
      if (!made[id]) {
        made[id] = new Model({ ...models[id].state }, self);
        for (const part of ["style", "layout"]) if (made[id].get(part)) made[id][part] = found(made[id].get(part));
      }
      return made[id];
    };
    const self = {
      model: found,
      get_model: async (id) => found(id),
      show(ref, parent) {
        const model = found(ref);
        const id = ref.replace("IPY_MODEL_", "");
        const root = VIEWS[models[id].model_name](model, parent, self);
        root.classList.add(...(model.get("_dom_classes") ?? []));
        for (const [name, value] of Object.entries(model.layout?.state ?? {})) {
          if (!name.startsWith("_") && typeof value === "string") root.style.setProperty(name.replace(/^grid_gap$/, "gap").replace(/_/g, "-"), value);
        }
      },
    };
    return self;
  }

  // The explorer's part of the kernel: another puzzle, another blueprint, another member. What it sends was written down.
  himacLive.kernels.explorer = (root, { parts, iterations, episodes }) => {
    const [groups, player, iteration, level, size] = ["groups", "player", "iteration", "level", "size"].map((n) => parts[n] && root.model(parts[n]));
    const at = () => iterations[iteration ? iteration.get("index") : 0];
    const key = () => `${at().iteration}:${level.get("index")}`;
    const show = () => {
      const here = at().levels[level.get("index")];
      const own = (name) => (groups.get(name)[0] === key() ? groups.get(name).slice(1) : []);
      const plan = own("plan")[0] ?? here.best;
      const [group, n] = own("chosen").length ? own("chosen") : here.macro ? ["macro", Math.max(0, plan)] : ["micro", 0];
      player.set("shown", [group === "micro" ? here.macro + n : n]);
      player.set("data", episodes[`${key()}:${plan}`]);
    };
    iteration?.on("change:index", () => {
      groups.set("data", at().data);
      level.set("_options_labels", at().titles);
      level.set("index", 0);
      size.set("max", at().size);
      size.set("value", at().size);
      show();
    });
    level.on("change:index", show);
    for (const name of ["plan", "chosen"]) groups.on(`change:${name}`, show);
  };

  // Shows the widget of a saved state in an element of the page.
  himacLive.show = (el, saved) => {
    const root = manager(saved);
    if (saved.kernel) himacLive.kernels[saved.kernel.name](root, saved.kernel);
    root.show(saved.root, el);
  };
})();
