// Interactive curves, drawn from the page's numbers in place of each picture. Without scripts the picture stays.
const SVG = "http://www.w3.org/2000/svg";
const FEW = 8; // with more arms, only the baseline, the best and the chosen are drawn in full
const DASHES = ["", "", "8 3", "2 2.5", "9 3 2 3", "5 2.5", "13 4", "5 2.5 2 2.5 2 2.5"];
const MARGIN = { left: 58, right: 10, top: 30, bottom: 40 };
const HEIGHT = 300;

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function evenTicks(low, high, n) {
  const raw = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  for (const digits of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) { // the fewest that make a scale
    const ticks = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) {
      for (const m of digits) if (m * 10 ** k >= low && m * 10 ** k <= high) ticks.push(m * 10 ** k);
    }
    if (ticks.length > 2) return ticks;
  }
  return evenTicks(low, high, 5).filter((t) => t > 0); // so narrow a range that the axis is nearly linear
}

// What all charts of one data set share: its arms, how each is drawn now, and the two switches.
class Arms {
  constructor(of, numbers) {
    Object.assign(this, { of, arms: numbers.arms, base: numbers.base, best: numbers.best, bands: true, charts: [] });
    const ends = (kept.get(of) ?? "").split("-").map((epoch) => numbers.epochs.indexOf(Number(epoch)));
    this.view = ends.length === 2 && ends[0] >= 0 && ends[1] > ends[0] ? ends : null; // all charts show the same epochs
    this.epochs = numbers.epochs;
  }
  zoom(view) {
    this.view = view;
    keep(this.of, view === null ? "" : view.map((i) => this.epochs[i]).join("-"));
    for (const chart of this.charts) chart.draw();
  }
  isFull(arm) {
    const keys = chosen.get(this.of);
    if (keys.size > 0) return keys.has(String(arm.key));
    return this.arms.length <= FEW || arm.key === this.base || arm.key === this.best;
  }
  // An arm without a colour of its own, once chosen, is drawn in ink, with a dash that sets it apart.
  colour(arm) {
    return arm.key < DASHES.length ? `var(--arm${arm.key})` : "var(--ink)";
  }
  dash(arm) {
    return DASHES[arm.key % DASHES.length];
  }
}

class Chart {
  // series[i]: [mean, lowest, highest] of arm i by epoch, [mean] without a band, or null.
  constructor(box, arms, { epochs, clock }, { name, share, log, unit, higher, series, isDifference }) {
    Object.assign(this, { box, arms, epochs, clock, name, share, unit, higher, series, isDifference, isWhole: false, at: null });
    this.isLog = log && !isDifference;
    this.isCounted = epochs[0] === 1 && epochs.every(Number.isInteger) && clock === "epoch";
    this.svg = draw(box, "svg", { role: "img", "aria-label": name });
    this.cut = document.createElement("p");
    this.cut.className = "cut";
    this.readout = document.createElement("div");
    this.readout.className = "readout";
    this.readout.setAttribute("role", "status");
    this.readout.hidden = true;
    box.append(this.cut, this.readout);
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${name}: arrow keys move, plus and minus enlarge, Escape shows all`);
    box.addEventListener("chosen", () => this.draw());
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("blur", () => this.point(null));
    this.listen();
    new ResizeObserver(() => box.clientWidth !== this.width && this.draw()).observe(box);
  }
  get view() {
    return this.arms.view;
  }
  number(v, digits) {
    const text = this.share ? (100 * v).toFixed(digits ?? 2) : digits === undefined ? v.toFixed(4) : String(+v.toPrecision(4));
    if (+text === 0) return text.replace("-", "");
    return (this.isDifference && v > 0 ? "+" : "") + text.replace("-", "−");
  }
  x(i) {
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const share = to > from ? (i - from) / (to - from) : 0.5;
    return MARGIN.left + share * (this.width - MARGIN.left - MARGIN.right);
  }
  y(v) {
    const warp = this.isLog ? Math.log : (u) => u;
    const share = (warp(v) - warp(this.low)) / (warp(this.high) - warp(this.low));
    return HEIGHT - MARGIN.bottom - share * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }
  // The range of the visible values of the arms in full: those since the first quarter, unless the whole is asked for.
  fit() {
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    // The first epoch, in which networks differ most, would flatten all later ones.
    const early = this.epochs.length > 3 ? Math.max(1, Math.floor(this.epochs.length / 4)) : 0;
    const settled = this.view !== null || this.isWhole ? from : early;
    // If only the baseline is in full, it has no difference: then all arms are in view.
    const hasFull = this.series.some((s, n) => s !== null && this.arms.isFull(this.arms.arms[n]));
    const isRest = (n) => hasFull && !this.arms.isFull(this.arms.arms[n]);
    const range = (start) => {
      const values = this.series.flatMap((s, n) =>
        s !== null && (this.isWhole || !isRest(n))
          ? (this.arms.bands && hasFull && s.length > 1 ? s : s.slice(0, 1)).flatMap((c) => c.slice(start, to + 1))
          : [],
      );
      const known = values.filter((v) => v !== null && (!this.isLog || v > 0));
      return [Math.min(...known), Math.max(...known)];
    };
    let [low, high] = range(settled);
    const [lowest, highest] = range(from);
    if (!Number.isFinite(low)) [low, high] = Number.isFinite(lowest) ? [lowest, highest] : [0.5, 1];
    if (this.isDifference) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    if (this.isLog) {
      const room = Math.max((high / low) ** 0.06, 1.0005);
      [this.low, this.high] = [low / room, high * room];
    } else {
      const room = Math.max(0.06 * (high - low), high > low && !this.share ? 1e-5 : 5e-4);
      [this.low, this.high] = [low - room, high + room];
      if (this.share) [this.low, this.high] = [Math.max(this.low, this.isDifference ? -1 : 0), Math.min(this.high, 1)];
    }
    this.outside = lowest < this.low || highest > this.high;
    const isBeyond = (c, i) => c[i] !== null && (c[i] < this.low || c[i] > this.high);
    const full = this.series.filter((s, n) => s !== null && !isRest(n));
    const isOut = (i) => full.some((s) => s.some((c) => isBeyond(c, i)));
    this.isFirstWhole = full.every((s) => isBeyond(s[0], from)); // or a line or a band of it is in view
    this.lastCut = from - 1;
    for (let i = from; this.outside && i <= to; i++) if (isOut(i)) this.lastCut = i;
    const later = Array.from({ length: to - this.lastCut }, (_, i) => this.lastCut + 1 + i);
    this.nCut = this.series.filter((s, n) => s !== null && isRest(n) && later.some((i) => isBeyond(s[0], i))).length;
  }
  draw() {
    this.width = Math.max(this.box.clientWidth, 260);
    this.fit();
    const { svg, width } = this;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const clip = `${this.arms.of}-clip-${this.box.dataset.n}`;
    const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
    const frame = { x: MARGIN.left, y: MARGIN.top, width: right - MARGIN.left, height: bottom - MARGIN.top };
    draw(draw(svg, "clipPath", { id: clip }), "rect", frame);
    this.title = width < 380 ? this.name.replace(" from the baseline", "") : this.name;
    draw(svg, "text", { class: "title", x: 4, y: 16 }, this.title);
    this.drawAxes(right, bottom);
    const plot = draw(svg, "g", { "clip-path": `url(#${clip})` });
    const order = this.arms.arms.map((arm, n) => [arm, this.series[n]]).filter(([, s]) => s !== null);
    for (const [arm, s] of order) if (!this.arms.isFull(arm)) this.drawArm(plot, arm, s, false);
    for (const [arm, s] of order) if (this.arms.isFull(arm)) this.drawArm(plot, arm, s, true);
    this.cursor = draw(plot, "line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
    this.drag = draw(plot, "rect", { class: "drag", y: MARGIN.top, height: bottom - MARGIN.top, visibility: "hidden" });
    this.tellCut();
    if (this.at !== null) this.point(this.at);
  }
  drawAxes(right, bottom) {
    const { svg } = this;
    const factor = this.share ? 100 : 1;
    const ticks = this.isLog ? logTicks(this.low, this.high) : evenTicks(this.low * factor, this.high * factor, 5).map((t) => t / factor);
    const step = ticks.length > 1 ? (ticks[1] - ticks[0]) * factor : 1;
    const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
    let precise = 4; // digits of a log axis's ticks: more where two would read alike
    while (precise < 9 && new Set(ticks.map((t) => t.toPrecision(precise))).size < ticks.length) precise += 1;
    for (const t of ticks) {
      draw(svg, "line", { class: "grid", x1: MARGIN.left, x2: right, y1: this.y(t), y2: this.y(t) });
      const text = this.isLog ? String(+t.toPrecision(precise)) : ((this.isDifference && t > 0 ? "+" : "") + (t * factor).toFixed(digits)).replace("-", "−");
      draw(svg, "text", { x: MARGIN.left - 7, y: this.y(t) + 4, "text-anchor": "end" }, text);
    }
    if (this.isDifference) draw(svg, "line", { class: "zero", x1: MARGIN.left, x2: right, y1: this.y(0), y2: this.y(0) });
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const n = Math.max(2, Math.floor((right - MARGIN.left) / 70));
    const every = Math.max(1, Math.ceil((to - from + 1) / n / 5) * (to - from >= n ? 5 : 1));
    for (let i = from; i <= to; i++) {
      const isEnd = i === from || i === to;
      const isFree = (i - from) * 2 >= every && (to - i) * 2 >= every;
      if (isEnd || ((this.isCounted ? this.epochs[i] : i - from) % every === 0 && isFree)) draw(svg, "text", { x: this.x(i), y: bottom + 17, "text-anchor": "middle" }, this.epochs[i]);
    }
    draw(svg, "text", { x: (MARGIN.left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, this.clock);
    const unit = this.isDifference ? this.unit : this.share ? "%" : this.isLog ? "log axis" : "";
    if (7.6 * this.title.length + 6.5 * unit.length + 20 < right) draw(svg, "text", { x: right, y: 16, "text-anchor": "end" }, unit);
  }
  drawArm(plot, arm, [mean, low, high], isFull) {
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const places = [];
    for (let i = Math.max(from - 1, 0); i <= Math.min(to + 1, mean.length - 1); i++) {
      if (mean[i] !== null && (!this.isLog || mean[i] > 0)) places.push(i);
    }
    if (places.length === 0) return;
    const point = (c) => (i) => `${this.x(i).toFixed(1)} ${this.y(this.isLog ? Math.max(c[i], this.low / 10) : c[i]).toFixed(1)}`;
    const colour = this.arms.colour(arm);
    if (isFull && this.arms.bands && low !== undefined) {
      const d = `M${places.map(point(low)).join("L")}L${places.toReversed().map(point(high)).join("L")}Z`;
      draw(plot, "path", { class: "band", d, "data-key": arm.key, style: `fill:${colour}` });
    }
    const style = isFull ? `stroke:${colour};stroke-dasharray:${this.arms.dash(arm) || "none"}` : "";
    draw(plot, "path", { class: isFull ? "line" : "line rest", d: `M${places.map(point(mean)).join("L")}`, "data-key": arm.key, style });
    if (isFull && places.length < 3) for (const i of places) draw(plot, "circle", { cx: this.x(i), cy: this.y(mean[i]), r: 3, style: `fill:${colour}` });
  }
  // Says what the axis leaves out, and offers to show it.
  tellCut() {
    this.cut.replaceChildren();
    const add = (text, act) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.addEventListener("click", act);
      this.cut.append(button);
    };
    if (this.view !== null) add("Show all epochs", () => this.whole());
    else if (this.outside || this.nCut > 0) {
      const isOne = this.lastCut === 0 && this.nCut === 0;
      const lies = isOne && this.isFirstWhole ? "lies" : isOne || !(this.outside || this.nCut > 1) ? "lies, in part," : "lie, in part,";
      const span = this.lastCut < 1 ? `${this.clock} ${this.epochs[0]}` : `${this.clock}s ${this.epochs[0]} to ${this.epochs[this.lastCut]}`;
      const rest = this.nCut > 0 ? `${this.nCut} grey ${this.nCut === 1 ? "arm" : "arms"}` : "";
      const what = [this.outside ? span : "", rest].filter(Boolean).join(" and ");
      this.cut.append(`Axis cut: ${what} ${lies} outside.`);
      add("Show the whole range", () => { this.isWhole = true; this.draw(); });
    } else if (this.isWhole) add("Show the later epochs larger", () => { this.isWhole = false; this.draw(); });
  }
  // All arms' values at an epoch: those in full, the baseline and the best, the best value first.
  point(i) {
    this.at = i;
    if (i === null) {
      this.readout.hidden = true;
      this.cursor?.setAttribute("visibility", "hidden");
      return;
    }
    const x = this.x(i);
    this.cursor.setAttribute("visibility", "visible");
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const { arms } = this.arms;
    const isTold = (arm) => arms.length <= 14 || this.arms.isFull(arm) || arm.key === this.arms.base || arm.key === this.arms.best;
    const told = arms.map((arm, n) => [arm, this.series[n]]).filter(([arm, s]) => s !== null && (s[0][i] ?? null) !== null && isTold(arm));
    const up = this.higher ? -1 : 1;
    told.sort(([, a], [, b]) => up * (a[0][i] - b[0][i]));
    const rows = told.map(([arm, s]) => {
      const row = document.createElement("span");
      const swatch = document.createElement("i");
      swatch.style.color = arm.key < DASHES.length ? this.arms.colour(arm) : "var(--muted)";
      const value = this.number(s[0][i]) + (s.length > 1 ? ` (${this.number(s[1][i])} to ${this.number(s[2][i])})` : "");
      row.append(swatch, arm.label, " ", value);
      return row;
    });
    const head = document.createElement("b");
    head.textContent = `${this.clock[0].toUpperCase()}${this.clock.slice(1)} ${this.epochs[i]}`;
    this.readout.replaceChildren(head, ...rows);
    if (arms.length > told.length && arms.length > 14) this.readout.append(`${arms.length - told.length} more: choose them by name`);
    this.readout.hidden = false;
    this.readout.style.top = `${this.svg.getBoundingClientRect().height - 22}px`; // below the curves, covering none
  }
  epochAt(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const share = (x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    return Math.round(from + Math.min(Math.max(share, 0), 1) * (to - from));
  }
  zoom(from, to) {
    if (to - from < 1) return;
    const isAll = from <= 0 && to >= this.epochs.length - 1;
    this.arms.zoom(isAll ? null : [Math.max(from, 0), Math.min(to, this.epochs.length - 1)]);
  }
  whole() {
    this.isWhole = false;
    this.arms.zoom(null);
  }
  listen() {
    let start = null;
    const { svg } = this;
    svg.addEventListener("pointerdown", (event) => {
      start = this.epochAt(event);
      if (event.pointerType !== "touch") svg.setPointerCapture(event.pointerId);
      this.point(start);
    });
    svg.addEventListener("pointermove", (event) => {
      const at = this.epochAt(event);
      this.point(at);
      if (start === null || at === start) return;
      const [a, b] = [this.x(Math.min(start, at)), this.x(Math.max(start, at))];
      this.drag.setAttribute("visibility", "visible");
      this.drag.setAttribute("x", a);
      this.drag.setAttribute("width", b - a);
    });
    svg.addEventListener("pointerup", (event) => {
      const [from, to] = [start, this.epochAt(event)];
      start = null;
      this.drag.setAttribute("visibility", "hidden");
      if (from !== null && from !== to) this.zoom(Math.min(from, to), Math.max(from, to));
    });
    svg.addEventListener("pointercancel", () => {
      start = null;
      this.drag.setAttribute("visibility", "hidden");
    });
    svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.point(null));
    svg.addEventListener("dblclick", () => this.whole());
  }
  key(event) {
    if (event.target !== this.box) return;
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const at = Math.min(Math.max(this.at ?? to, from), to);
    const acts = {
      ArrowRight: () => this.point(this.at === null ? from : Math.min(at + 1, to)),
      ArrowLeft: () => this.point(this.at === null ? to : Math.max(at - 1, from)),
      Home: () => this.point(from),
      End: () => this.point(to),
      "+": () => this.enlarge(at, 0.5),
      "=": () => this.enlarge(at, 0.5),
      "-": () => this.enlarge(at, 2),
      Escape: () => { this.point(null); this.whole(); },
    };
    if (!(event.key in acts) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  }
  enlarge(at, factor) {
    const [from, to] = this.view ?? [0, this.epochs.length - 1];
    const half = Math.max(1, Math.round(((to - from) * factor) / 2));
    const middle = Math.min(Math.max(at, half), this.epochs.length - 1 - half);
    this.zoom(Math.max(0, middle - half), Math.min(this.epochs.length - 1, middle + half));
  }
}

// An arm's curves as the page packs them: a scale, the mean's steps, how far lowest and highest lie from the mean.
function unpacked(curves) {
  if (curves === null || curves[0] === 0) return curves && curves.slice(1);
  const [scale, steps, below, above] = curves;
  let sum = 0;
  const mean = steps.map((step) => (step === null ? null : (sum += step)));
  const beside = (offsets, sign) => offsets.map((v, i) => (v === null ? null : (mean[i] + sign * v) / scale));
  const values = mean.map((v) => (v === null ? null : v / scale));
  return below ? [values, beside(below, -1), beside(above, 1)] : [values];
}

for (const figures of document.querySelectorAll("[data-charts]")) {
  const numbers = JSON.parse(document.getElementById(figures.dataset.charts).textContent);
  const section = figures.closest("section");
  const arms = new Arms(partOf(figures), numbers);
  const { charts } = arms;
  const replaced = [...figures.querySelectorAll("figure")];
  const add = (figure, options) => {
    const box = document.createElement("div");
    box.className = "chart";
    box.dataset.n = charts.length;
    figure.prepend(box);
    arms.charts.push(new Chart(box, arms, numbers, options));
  };
  numbers.charts.forEach(({ name, share, log, unit, higher, values, differences }, n) => {
    const figure = replaced[n];
    figure.querySelector(".box").hidden = true;
    add(figure, { name, share, log, unit, higher, series: values.map(unpacked), isDifference: false });
    if (differences.every((s) => s === null)) return;
    const beside = document.createElement("figure");
    beside.className = "difference";
    figure.after(beside);
    add(beside, { name: `${name}: difference from the baseline`, share, log, unit, higher, series: differences.map(unpacked), isDifference: true });
  });
  for (const part of section.querySelectorAll(".chart-help, .chart-switches")) part.hidden = false;
  if (numbers.arms.length > FEW) for (const note of section.querySelectorAll(".without-choice")) note.hidden = true;
  section.querySelector(".bands")?.addEventListener("change", (event) => {
    arms.bands = event.target.checked;
    for (const chart of charts) chart.draw();
  });
  section.querySelector(".beside")?.addEventListener("change", (event) => {
    for (const figure of section.querySelectorAll(".difference")) figure.hidden = !event.target.checked;
  });
}
