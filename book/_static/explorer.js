// The explorer: what may be lost or spent -> which network, at which threshold, at what price.
// No library and no request: the data stand in the page, see book/_ext/explorer.py. Methods, benchmarks and units are
// whatever the data hold.
(function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const DEEPEST = -12; // points below the baseline that the chart shows at most
  const MAIN = "T-RecX"; // the method that every answer is compared with
  const NBSP = "\u00a0";
  const DASH = "\u2013";

  const markers = {
    o: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
    s: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
    D: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
    d: (r) => `M0,${-1.4 * r}L${0.9 * r},0L0,${1.4 * r}L${-0.9 * r},0Z`,
    "^": (r) => `M0,${-1.2 * r}L${1.1 * r},${r}H${-1.1 * r}Z`,
    v: (r) => `M0,${1.2 * r}L${1.1 * r},${-r}H${-1.1 * r}Z`,
    "<": (r) => `M${-1.2 * r},0L${r},${-1.1 * r}V${1.1 * r}Z`,
    ">": (r) => `M${1.2 * r},0L${-r},${-1.1 * r}V${1.1 * r}Z`,
    P: (r) => `M${-r / 2},${-r}H${r / 2}V${-r / 2}H${r}V${r / 2}H${r / 2}V${r}H${-r / 2}V${r / 2}H${-r}V${-r / 2}H${-r / 2}Z`,
    x: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
    "*": (r) => "M" + Array.from({ length: 10 }, (_, k) => {
      const angle = (Math.PI * k) / 5, size = k % 2 ? 0.55 * r : 1.4 * r;
      return `${(size * Math.sin(angle)).toFixed(2)},${(-size * Math.cos(angle)).toFixed(2)}`;
    }).join("L") + "Z",
  };

  // --- Numbers ---

  const number = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
  const percent = (value, digits = 1) => number(value, digits) + NBSP + "%";
  const count = (value) => Math.round(value).toLocaleString("en-GB");
  const slug = (title) => title.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const points = (value) => (value === 1 ? "1 point" : `${value} points`);

  // A single training has no interval.
  const interval = (at) => percent(at.accuracy) + (at.low === null ? "" : ` [${number(at.low, 1)},${NBSP}${number(at.high, 1)}]`);

  // The shares of all exits; the data leave the last one out.
  const whole = (shares) => [...shares, 1 - shares.reduce((sum, share) => sum + share, 0)];
  const mean = (shares, values) => whole(shares).reduce((sum, share, k) => sum + share * values[k], 0);

  // What a method does at one place of a grid; null where no training reaches it, or the unit was not counted for it.
  function at(method, benchmark, state, data) {
    const unit = state.unit, base = benchmark.baseline;
    if (!method.cost[unit] || !base.cost[unit]) return null;
    const lose = state.by === "lose";
    const grid = lose ? method.loss : method.budget[unit];
    const place = (lose ? data.losses : data.budgets).indexOf(state.value);
    if (!grid || !grid.reached[place]) return null;
    const reached = grid.reached[place] / method.seeds; // a training that misses counts as the unmodified network
    const saved = (shares) => 100 * reached * (1 - mean(shares, method.cost[unit]) / base.cost[unit]);
    const shares = grid.shares[place];
    const last = Math.max(0, whole(shares).at(-1));
    return {
      method,
      reached: grid.reached[place],
      threshold: grid.threshold ? grid.threshold[place] : null,
      accuracy: grid.accuracy[place],
      low: grid.low[place],
      high: grid.high[place],
      lost: base.accuracy - grid.accuracy[place],
      saved: saved(shares),
      early: method.members ? null : 100 * reached * (1 - last),
      params: method.members ? mean(shares, method.params) : method.params,
      worst: method.members ? 100 - saved(shares) : (100 * method.cost[unit].at(-1)) / base.cost[unit],
      members: method.members ? method.members.filter((_, k) => whole(shares)[k] > 0.0005) : null,
      // Validation orders the methods: what is saved for a loss, the accuracy for a budget.
      rank: lose ? saved(grid.val_shares[place]) : grid.val_accuracy[place],
    };
  }

  // --- Words ---

  function oneIn(share) {
    if (share < 0.0005) return "hardly any";
    return share > 0.3 ? `${Math.round(100 * share)} in 100` : `one in ${Math.round(1 / share)}`;
  }

  function answer(point, benchmark, state, unit) {
    const loss = state.by === "lose";
    if (!point || (loss && point.saved <= 0)) {
      const limit = loss ? `to lose at most ${points(state.value)}` : `to spend at most ${state.value}${NBSP}% of its ${unit.label}`;
      return [`Use the unmodified ${benchmark.network}: nothing here saves ${unit.label} ${limit}.`, ""];
    }
    const lost = point.lost >= 0 ? `${number(point.lost, 2)} below` : `${number(-point.lost, 2)} above`;
    const right = `${interval(point)} of the test ${benchmark.samples} are right, ${lost} the unmodified network's ${percent(benchmark.baseline.accuracy)}.`;
    const seeds = point.method.seeds;
    const missed = point.reached < seeds && !point.members
      ? ` Only ${point.reached} of ${seeds} trainings reach this; the others count as the unmodified network.` : "";
    if (point.members) {
      const size = point.members.length > 1 ? `between ${point.members[0]} and ${point.members[1]}` : point.members[0];
      const what = size === "unmodified" ? `the unmodified ${benchmark.network}` : `a smaller ${benchmark.network} without any exit, ${size.replace(/unmodified/, "all")}`;
      return [`Use ${what}: ${percent(point.saved, 0)} of the ${unit.label} saved, on every ${benchmark.sample} alike.`, right];
    }
    const last = 1 - point.early / 100;
    const first = `Use ${point.method.label} on ${benchmark.network}, threshold ${number(point.threshold, 2)}: ` +
      `${percent(point.saved, 0)} of the ${unit.label} saved, ${percent(point.early, 0)} of the ${benchmark.samples} leave early, ${oneIn(last)} cost${last > 0.3 ? "" : "s"} the whole.`;
    return [first, right + missed];
  }

  function compared(best, all, benchmark, state, unit) {
    const said = [];
    const main = all.find((one) => one.label === MAIN), small = all.find((one) => one.members);
    for (const [method, name] of [[main, MAIN], [small, "a smaller network without exit"]]) {
      if (!method || (best && best.method === method)) continue;
      const point = at(method, benchmark, state, state.data);
      if (!point) said.push(`${name} does not get there`);
      else if (state.by === "lose") {
        const part = point.reached < method.seeds && !method.members ? ` (${point.reached} of ${method.seeds} trainings reach it)` : "";
        said.push(`${name} saves ${percent(point.saved, 0)}${part}`);
      } else said.push(`${name} has ${percent(point.accuracy)} right`);
    }
    if (state.by === "lose" && state.unit === "flops" && benchmark.paper) {
      const printed = benchmark.paper.find((one) => one.lost === state.value);
      if (printed) said.push(`the paper prints ${percent(printed.saved, 0)} for T-RecX`);
    }
    if (!said.length) return "";
    const text = said.length > 1 ? said.slice(0, -1).join(", ") + " and " + said.at(-1) : said[0];
    return "For comparison: " + text + ".";
  }

  // --- Elements ---

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  function draw(parent, name, attributes = {}, text = "") {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    parent.append(element);
    return element;
  }

  function mark(parent, look, x, y, size) {
    const open = look.marker === "x";
    const shape = draw(parent, "path", {
      d: (markers[look.marker] || markers.o)(size),
      transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
      class: "trecx-mark" + (look.hollow || open ? " trecx-hollow" : ""),
    });
    shape.style.setProperty("--line", look.color);
    return shape;
  }

  function swatch(look) {
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ width: 34, height: 14, "aria-hidden": "true", focusable: "false" })) svg.setAttribute(key, value);
    const line = draw(svg, "line", { x1: 1, x2: 33, y1: 7, y2: 7, class: "trecx-line", "stroke-dasharray": look.dash });
    line.style.setProperty("--line", look.color);
    mark(svg, look, 17, 7, 4);
    return svg;
  }

  // --- The page ---

  function build(host, data) {
    const id = (name) => `explorer-${name}`;
    const titles = data.benchmarks.map((benchmark) => slug(benchmark.title));
    const usual = { benchmark: titles[0], by: "lose", value: 1, unit: Object.keys(data.units)[0], method: "", all: false };
    const state = { ...usual, data };

    const group = (legend, name, choices) => {
      const set = make("fieldset", {}, make("legend", {}, legend));
      for (const [value, label] of choices) {
        const input = make("input", { type: "radio", name: id(name), value, id: id(`${name}-${value}`) });
        input.addEventListener("change", () => change({ [name]: value }));
        set.append(make("label", { for: input.id }, input, " ", label));
      }
      return set;
    };
    const slider = make("input", { type: "range", id: id("value") });
    const shown = make("output", { for: slider.id });
    const name = make("label", { for: slider.id });
    const select = make("select", { id: id("unit") }, ...Object.entries(data.units).map(([value, unit]) => make("option", { value }, unit.label)));
    const every = make("input", { type: "checkbox", id: id("all") });
    const said = make("div", { class: "trecx-answer", role: "status" });
    const chart = make("div", { class: "trecx-chart" });
    const table = make("div", { class: "trecx-scroll", role: "region", tabindex: "0", "aria-label": "Table: every method at this limit" });
    const page = make("div", { class: "trecx-explore" },
      make("form", { class: "trecx-controls", "aria-label": "What is asked for" },
        group("Benchmark", "benchmark", data.benchmarks.map((benchmark, k) => [titles[k], benchmark.title])),
        group("Set a limit to", "by", [["lose", "accuracy lost"], ["spend", "cost spent"]]),
        make("div", { class: "trecx-slide" }, name, slider, shown),
        make("div", { class: "trecx-unit" }, make("label", { for: select.id }, "Cost counted in"), select),
        make("div", {}, make("label", { for: every.id }, every, " Show every variant"))),
      said, chart, table);
    page.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    slider.addEventListener("input", () => change({ value: grid()[Number(slider.value)] }));
    select.addEventListener("change", () => change({ unit: select.value }));
    every.addEventListener("change", () => change({ all: every.checked }));

    const grid = () => (state.by === "lose" ? data.losses : data.budgets);
    const nearest = (values, wanted) => values.reduce((best, value) => (Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best));

    // The benchmark as the unit sees it: counted on a device, it has a baseline and methods of its own.
    function seen(unit) {
      const benchmark = data.benchmarks[titles.indexOf(state.benchmark)];
      return benchmark.on && benchmark.on[unit] ? { ...benchmark, ...benchmark.on[unit] } : benchmark;
    }
    const known = (label) => seen(state.unit).methods.some((method) => method.label === label);

    function change(given) {
      if ("by" in given && given.by !== state.by) given.value = given.by === "lose" ? 1 : 60;
      if ("benchmark" in given) given.method = "";
      Object.assign(state, given);
      if (!known(state.method)) state.method = "";
      history.replaceState(null, "", "#" + written());
      show();
    }

    // The state as the fragment of the address; only a fragment can be changed under file://.
    function written() {
      const parts = [`benchmark=${state.benchmark}`, `${state.by}=${state.value}`, `unit=${state.unit}`];
      if (state.method) parts.push(`method=${encodeURIComponent(state.method)}`);
      if (state.all) parts.push("all=1");
      return parts.join("&");
    }

    function restore() {
      const given = new URLSearchParams(location.hash.slice(1));
      Object.assign(state, usual);
      if (titles.includes(given.get("benchmark"))) state.benchmark = given.get("benchmark");
      if (given.has("spend")) Object.assign(state, { by: "spend", value: 60 });
      const wanted = Number.parseFloat(given.get(state.by));
      if (Number.isFinite(wanted)) state.value = nearest(grid(), wanted);
      if (given.get("unit") in data.units) state.unit = given.get("unit");
      if (known(given.get("method"))) state.method = given.get("method");
      state.all = given.get("all") === "1";
      show();
    }

    function show() {
      if (!seen(state.unit).baseline.cost[state.unit]) state.unit = Object.keys(seen("").baseline.cost)[0];
      const benchmark = seen(state.unit), unit = data.units[state.unit];
      for (const option of select.options) option.disabled = !seen(option.value).baseline.cost[option.value];
      select.value = state.unit;
      page.querySelector(`#${id(`benchmark-${state.benchmark}`)}`).checked = true;
      page.querySelector(`#${id(`by-${state.by}`)}`).checked = true;
      every.checked = state.all;
      name.textContent = state.by === "lose" ? "At most so many points of accuracy lost" : `At most so much of the unmodified network's ${unit.label} spent`;
      slider.min = 0;
      slider.max = grid().length - 1;
      slider.step = 1;
      slider.value = grid().indexOf(state.value);
      const text = state.by === "lose" ? points(state.value) : `${state.value}${NBSP}%`;
      slider.setAttribute("aria-valuetext", text);
      shown.textContent = text;

      const rows = benchmark.methods.map((method) => ({ method, point: at(method, benchmark, state, data) }));
      rows.sort((a, b) => (b.point ? b.point.rank : -Infinity) - (a.point ? a.point.rank : -Infinity));
      // Recommended is only what was trained often enough; a smaller network needs no threshold that could be luck.
      const top = rows.find((row) => row.point && (row.method.members || row.method.seeds >= (unit.seeds || data.enough_seeds))) || rows[0];
      const best = top.point;
      const picked = rows.find((row) => row.method.label === state.method);
      const used = picked ? picked.point : best;
      const visible = rows.filter((row) => state.all || row.method.first || row === picked || row === top);

      const [first, second] = picked && !used ? [`${picked.method.label} does not get there on ${benchmark.network}.`, ""] : answer(used, benchmark, state, unit);
      said.replaceChildren(make("p", {}, make("strong", {}, first)), make("p", {}, [second, compared(used, benchmark.methods, benchmark, state, unit)].filter(Boolean).join(" ")), ...(unit.note ? [make("p", {}, unit.note)] : []));
      drawChart(benchmark, visible, used, unit);
      fillTable(benchmark, visible, used, unit);
    }

    function drawChart(benchmark, visible, used, unit) {
      const width = Math.max(280, chart.clientWidth || 640), height = width < 500 ? 340 : 420;
      const box = { left: 52, right: 14, top: 14, bottom: 46 };
      const base = benchmark.baseline;
      const lines = visible.filter((row) => row.method.cost[state.unit]).map((row) => ({
        ...row,
        line: row.method.curve.shares.map((shares, k) => [
          100 * (1 - mean(shares, row.method.cost[state.unit]) / base.cost[state.unit]),
          row.method.curve.accuracy[k] - base.accuracy,
        ]),
      }));
      const depths = visible.filter((row) => row.point).map((row) => -row.point.lost);
      const lowest = Math.max(DEEPEST, Math.floor(Math.min(-4, -state.value * (state.by === "lose"), ...depths)));
      const inside = lines.flatMap((row) => row.line.filter(([, lost]) => lost >= lowest).map(([saved]) => saved));
      const range = [Math.min(-5, ...inside), Math.max(30, ...inside)].map((end, k) => (k ? Math.ceil(end / 10) : Math.floor(end / 10)) * 10);
      range[0] = Math.max(range[0], -50);
      const highest = Math.ceil(Math.max(0.5, ...lines.flatMap((row) => row.line.map(([, lost]) => lost))));
      const x = (saved) => box.left + ((saved - range[0]) / (range[1] - range[0])) * (width - box.left - box.right);
      const y = (lost) => box.top + ((highest - lost) / (highest - lowest)) * (height - box.top - box.bottom);

      const svg = document.createElementNS(SVG, "svg");
      for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${id("title")} ${id("about")}` })) svg.setAttribute(key, value);
      draw(svg, "title", { id: id("title") }, `${benchmark.title}: accuracy lost against ${unit.label} saved`);
      const summary = visible.map((row) => row.point ? `${row.method.label} saves ${percent(row.point.saved, 0)}, ${number(row.point.lost, 1)} points lost` : `${row.method.label} does not get there`);
      draw(svg, "desc", { id: id("about") }, `A line a method, from every sample through the whole network to all leaving at the first exit. At the limit that is set: ${summary.join("; ")}. The table below has the same numbers.`);
      const clip = draw(draw(svg, "defs"), "clipPath", { id: id("clip") });
      draw(clip, "rect", { x: box.left, y: box.top, width: width - box.left - box.right, height: height - box.top - box.bottom });

      const step = width < 500 ? 20 : 10;
      for (let tick = range[0]; tick <= range[1]; tick += step) {
        draw(svg, "line", { x1: x(tick), x2: x(tick), y1: box.top, y2: height - box.bottom, class: tick === 0 ? "trecx-zero" : "trecx-grid" });
        draw(svg, "text", { x: x(tick), y: height - box.bottom + 17, "text-anchor": "middle" }, number(tick, 0));
      }
      for (let tick = lowest; tick <= highest; tick += lowest < -6 ? 2 : 1) {
        draw(svg, "line", { x1: box.left, x2: width - box.right, y1: y(tick), y2: y(tick), class: tick === 0 ? "trecx-zero" : "trecx-grid" });
        draw(svg, "text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, tick > 0 ? `+${tick}` : number(tick, 0));
      }
      draw(svg, "text", { x: (box.left + width - box.right) / 2, y: height - 8, "text-anchor": "middle" }, `${unit.label} saved (%)`);
      draw(svg, "text", { transform: `translate(14,${(box.top + height - box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "test accuracy, points from the baseline");
      const limit = state.by === "lose"
        ? { x1: box.left, x2: width - box.right, y1: y(-state.value), y2: y(-state.value) }
        : { x1: x(100 - state.value), x2: x(100 - state.value), y1: box.top, y2: height - box.bottom };
      draw(svg, "line", { ...limit, class: "trecx-limit" });

      const plot = draw(svg, "g", { "clip-path": `url(#${id("clip")})` });
      const ordered = [...lines].sort((a, b) => (a.point === used) - (b.point === used)); // the answer on top
      for (const row of ordered) {
        const chosen = row.point && row.point === used;
        const look = row.method.look;
        const path = draw(plot, "polyline", {
          points: row.line.map(([saved, lost]) => `${x(saved).toFixed(1)},${y(lost).toFixed(1)}`).join(" "),
          class: "trecx-line" + (chosen ? " trecx-chosen" : ""),
          "stroke-dasharray": look.dash,
        });
        path.style.setProperty("--line", look.color);
      }
      const labels = [];
      const inRange = (saved, lost) => saved >= range[0] && saved <= range[1] && lost >= lowest && lost <= highest;
      if (state.unit === "flops") {
        for (const printed of benchmark.paper || []) {
          if (!inRange(printed.saved, -printed.lost)) continue;
          const star = mark(plot, { marker: "*", color: "#d62728" }, x(printed.saved), y(-printed.lost), 5.5);
          draw(star, "title", {}, `The paper's T-RecX: ${percent(printed.saved)} saved for ${points(printed.lost)}`);
          if (state.by === "lose" && printed.lost === nearest((benchmark.paper || []).map((one) => one.lost), state.value)) labels.push({ x: x(printed.saved), y: y(-printed.lost), text: "the paper" });
        }
      }
      for (const row of ordered) {
        if (!row.point || !inRange(row.point.saved, -row.point.lost)) continue;
        const place = [x(row.point.saved), y(-row.point.lost)];
        const chosen = row.point === used;
        const shape = mark(plot, row.method.look, ...place, chosen ? 7 : 5);
        shape.dataset.method = row.method.label;
        draw(shape, "title", {}, `${row.method.label}: ${percent(row.point.saved)} saved, ${number(row.point.lost, 2)} points lost`);
        if (chosen || row.method.label === MAIN || row.method.members) labels.push({ x: place[0], y: place[1], text: row.method.members ? "smaller network" : row.method.label, chosen });
      }
      placeLabels(svg, labels, width - box.right, box);
      chart.replaceChildren(svg);
    }

    // Beside its point, and moved up or down until it covers no other label.
    function placeLabels(svg, labels, right, box) {
      const taken = [];
      for (const label of [...labels].sort((a, b) => (b.chosen || 0) - (a.chosen || 0))) {
        const long = 7.2 * label.text.length;
        const left = label.x + 11 + long > right;
        const start = left ? label.x - 11 - long : label.x + 11;
        const free = (top) => taken.every((other) => Math.abs(other.y - top) > 15 || other.start > start + long || other.start + other.long < start);
        const moves = [0, 16, -16, 32, -32, 48, -48];
        const y = moves.map((move) => label.y + 4 + move).find((top) => top > box.top + 8 && free(top)) ?? label.y + 4;
        taken.push({ y, start, long });
        draw(svg, "text", { x: left ? label.x - 11 : label.x + 11, y, "text-anchor": left ? "end" : "start", class: "trecx-label" + (label.chosen ? " trecx-chosen" : "") }, label.text);
      }
    }

    function fillTable(benchmark, visible, used, unit) {
      const heads = ["method", "threshold", `${unit.label} saved`, "leave early", "test accuracy", "points lost", "parameters", `most ${unit.label} of one ${benchmark.sample}`];
      const limit = state.by === "lose" ? `at most ${points(state.value)} lost` : `at most ${state.value}${NBSP}% of the ${unit.label} spent`;
      const element = make("table", {}, make("caption", {}, `${benchmark.title}, ${limit}: the best on validation first.`),
        make("thead", {}, make("tr", {}, ...heads.map((head, k) => make("th", { scope: "col", class: k ? "num" : false }, head)))));
      const body = make("tbody");
      for (const { method, point } of visible) {
        const button = make("button", { type: "button", "aria-pressed": String(Boolean(point && point === used)), title: method.about }, swatch(method.look), " ", method.label);
        button.dataset.method = method.label;
        button.addEventListener("click", () => {
          change({ method: state.method === method.label ? "" : method.label });
          const again = [...table.querySelectorAll("button")].find((one) => one.dataset.method === method.label);
          if (again) again.focus();
        });
        const cells = !point ? ["not reached", DASH, DASH, DASH, DASH, count(Array.isArray(method.params) ? method.params[0] : method.params), DASH]
          : [point.threshold === null ? DASH : number(point.threshold, 2),
            percent(point.saved) + (point.reached < method.seeds ? ` (${point.reached} of ${method.seeds})` : ""),
            point.early === null ? DASH : percent(point.early, 0),
            interval(point),
            number(point.lost, 2), count(point.params), percent(point.worst, 0)];
        if (!method.cost[state.unit]) cells[0] = "not counted";
        body.append(make("tr", { class: point && point === used ? "trecx-chosen" : false }, make("th", { scope: "row" }, button), ...cells.map((cell) => make("td", { class: "num" }, cell))));
      }
      const base = benchmark.baseline;
      body.append(make("tr", {}, make("th", { scope: "row" }, `Unmodified ${benchmark.network}`),
        ...[DASH, percent(0), DASH, interval(base), number(0, 2), count(base.params), percent(100, 0)].map((cell) => make("td", { class: "num" }, cell))));
      element.append(body);
      table.replaceChildren(element);
    }

    for (const still of host.querySelectorAll(".trecx-still")) still.hidden = true;
    host.append(page);
    window.addEventListener("hashchange", () => location.hash.includes("=") && restore()); // not for an anchor of the page
    new ResizeObserver((seen) => {
      const now = Math.round(seen[0].contentRect.width);
      if (now && Math.abs(now - drawn) > 1) {
        drawn = now;
        show();
      }
    }).observe(chart);
    let drawn = Math.round(chart.clientWidth);
    restore();
  }

  function start() {
    const host = document.querySelector(".trecx-explorer");
    const data = document.getElementById("explorer-data");
    if (host && data) build(host, JSON.parse(data.textContent));
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
