const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

// Figures of a model: what axes and columns show. `sign` is 1 if more is better.
const figures = {
  clean: { label: "clean accuracy", short: "clean", unit: "%", digits: 1, sign: 1 },
  autoattack: {
    label: "AutoAttack accuracy", short: "Auto\u00adAttack", unit: "%", digits: 1, sign: 1,
  },
  c_flash: { label: "flash as C", unit: "kB", digits: 0, sign: -1 },
  c_ram: { label: "RAM as C", unit: "kB", digits: 0, sign: -1 },
  instructions: {
    label: "instructions as C", short: "instr. as C", unit: "M", digits: 1, sign: -1,
  },
  tflm_flash: { label: "int8 file", unit: "kB", digits: 0, sign: -1 },
  tflm_ram: { label: "RAM in TFLM", unit: "kB", digits: 0, sign: -1 },
  macs: { label: "MACs", unit: "M", digits: 1, sign: -1 },
};
let sorted = { key: "autoattack", descending: true };
let chosen;  // the model that is described

const format = (key, value) => (value === null ? "–" : value.toLocaleString("en", {
  minimumFractionDigits: figures[key].digits, maximumFractionDigits: figures[key].digits,
}));
const titled = (key) => `${figures[key].label}, ${figures[key].unit}`;

// ---- filters ----

const runtime = () => element("runtime").value;
const fits = (model, flash, ram) =>
  model[`${runtime()}_flash`] !== null && model[`${runtime()}_flash`] <= flash &&
  model[`${runtime()}_ram`] !== null && model[`${runtime()}_ram`] <= ram;

function shown() {
  const board = data.boards.find((each) => each.name === element("board").value);
  const limits = ["flash", "ram"].map((id) => Number(element(id).value) || Infinity);
  const robust = element("robust").value;
  return data.models.filter((model) =>
    model.dataset === element("dataset").value &&
    (!robust || model.robust === (robust === "yes")) &&
    (limits.every((limit) => limit === Infinity) || fits(model, ...limits)) &&
    (!board || fits(model, board.flash, board.ram)));
}

// ---- plot ----

// The models of which no other one is at least as good in both figures and better in one.
function pareto(models, x, y) {
  const good = (model) => [figures[x].sign * model[x], figures[y].sign * model[y]];
  return models.filter((model) => {
    const [a, b] = good(model);
    return !models.some((other) => {
      const [c, d] = good(other);
      return c >= a && d >= b && (c > a || d > b);
    });
  });
}

// The models that have both figures, as points.
function pointsOf(models, x, y) {
  return models.filter((model) => model[x] !== null && model[y] !== null)
    .map(({ name, kind, robust, ...rest }) => ({
      name, kind, trained: robust ? "robust" : "not robust", chosen: name === chosen.name,
      [x]: rest[x], [y]: rest[y],
    }));
}

function specification(points, x, y) {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const groups = ["robust", "not robust"].map((each) =>
    points.filter((point) => point.trained === each));
  const axis = (key) => ({
    field: key, type: "quantitative", title: titled(key),
    scale: figures[key].sign > 0
      ? { zero: false, nice: true } : { type: "log", nice: false, padding: 18 },
    axis: { format: "~g", tickCount: 6, labelOverlap: true },
  });
  const trained = {
    field: "trained", title: null,
    scale: { domain: ["robust", "not robust"], range: [color("--robust"), color("--standard")] },
  };
  const tooltip = ["name", "kind", x, y].map((key) => ({
    field: key, title: figures[key] ? titled(key) : key,
    ...(figures[key] && { type: "quantitative", format: `,.${figures[key].digits}f` }),
  }));
  const place = { x: axis(x), y: axis(y) };
  return {
    background: null, width: "container", height: "container",
    autosize: { type: "fit", contains: "padding" },
    layer: [
      {
        data: { values: groups.flatMap((group) => pareto(group, x, y)) },
        mark: {
          type: "line", strokeDash: [5, 4], strokeWidth: 1.5, opacity: 0.7, tooltip: false,
          interpolate: figures[x].sign < 0 ? "step-after" : "step-before",
        },
        encoding: { ...place, color: trained },
      },
      {
        data: { values: points },
        mark: {
          type: "point", filled: false, size: 330, strokeWidth: 2, shape: "circle", tooltip: false,
        },
        encoding: {
          ...place, color: { value: color("--text") },
          opacity: { condition: { test: "datum.chosen", value: 1 }, value: 0 },
        },
      },
      {
        data: { values: points },
        mark: { type: "point", filled: true, size: 95, opacity: 0.95 },
        encoding: {
          ...place, tooltip, color: trained,
          shape: {
            field: "kind", title: null, scale: { domain: data.kinds },
            legend: { columns: element("plot").clientWidth < 560 ? 2 : data.kinds.length },
          },
          description: { field: "name" },
        },
      },
    ],
    config: {
      font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: {
        labelColor: color("--soft"), titleColor: color("--text"),
        gridColor: color("--line"), gridOpacity: 0.6,
        domainColor: color("--line"), tickColor: color("--line"),
        labelFontSize: 12, titleFontSize: 13, titleFontWeight: 600, titlePadding: 8,
      },
      legend: {
        labelColor: color("--text"), labelFontSize: 12, symbolFillColor: color("--soft"),
        symbolStrokeColor: color("--soft"), orient: "top", columnPadding: 10, padding: 0,
        layout: { top: { direction: "vertical", anchor: "start", margin: 4 } },
      },
    },
  };
}

let drawn = Promise.resolve();

function draw(models) {
  drawn = drawn.then(async () => {
    const tooltip = { theme: dark.matches ? "dark" : "light" };
    const options = { renderer: "svg", actions: false, tooltip };
    const [x, y] = [element("x").value, element("y").value];
    const points = pointsOf(models, x, y);
    if (!points.length) {
      element("plot").textContent = "No model has these figures and meets these conditions.";
      return;
    }
    const { view } = await vegaEmbed("#plot", specification(points, x, y), options);
    view.addEventListener("click", (event, item) => {
      if (item?.datum?.name) choose(item.datum.name);
    });
  });
}

// ---- table ----

function sortedModels() {
  const { key, descending } = sorted;
  return shown().sort((a, b) => {
    if (a[key] === b[key]) return a.name < b.name ? -1 : 1;
    if (a[key] === null || b[key] === null) return a[key] === null ? 1 : -1;  // unknown: last
    return (a[key] < b[key]) === descending ? 1 : -1;
  });
}

function tabulate(models) {
  element("rows").replaceChildren(...models.map((model) => {
    const row = document.createElement("tr");
    row.classList.toggle("chosen", model === chosen);
    const name = row.insertCell().appendChild(document.createElement("button"));
    name.append(dot(model), breakable(model.name));
    for (const each of Object.keys(figures)) {
      row.insertCell().textContent = format(each, model[each]);
    }
    row.onclick = () => choose(model.name);
    return row;
  }));
  for (const cell of element("columns").cells) {
    const direction = sorted.descending ? "descending" : "ascending";
    cell.ariaSort = cell.dataset.key === sorted.key ? direction : null;
  }
  element("count").textContent = `${models.length} of ${data.models.length} models`;
}

// A name that may continue on another line after each underscore.
function breakable(name) {
  const whole = document.createElement("span");
  for (const part of name.split(/(?<=_)/)) whole.append(part, document.createElement("wbr"));
  return whole;
}

function dot(model) {
  const mark = document.createElement("span");
  mark.className = `dot ${model.robust ? "robust" : "standard"}`;
  mark.title = model.robust ? "robust" : "not robust";
  return mark;
}

function makeColumns() {
  for (const key of ["name", ...Object.keys(figures)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.dataset.key = key;
    const button = cell.appendChild(document.createElement("button"));
    const { short, label, unit } = figures[key] ?? {};
    button.textContent = key === "name" ? "name" : `${short ?? label}, ${unit}`;
    button.onclick = () => {
      const first = key !== "name" && figures[key].sign > 0;  // the best on top
      sorted = { key, descending: sorted.key === key ? !sorted.descending : first };
      tabulate(sortedModels());
    };
    element("columns").append(cell);
  }
}

// ---- the chosen model ----

function choose(name) {
  const focused = element("rows").contains(document.activeElement);
  chosen = data.models.find((model) => model.name === name);
  update();
  if (focused) element("rows").querySelector(".chosen button")?.focus();  // rows are new ones
}

function describe() {
  element("name").replaceChildren(dot(chosen), breakable(chosen.name));
  element("about").textContent = chosen.about;
  const boards = data.boards.filter((board) => fits(chosen, board.flash, board.ram));
  element("boards").textContent = boards.map((board) => board.name).join(", ") || "no board";
  element("figures").replaceChildren(...chosen.facts.flatMap((row) => row.map((text, index) => {
    const cell = document.createElement(index ? "dd" : "dt");
    cell.textContent = text;
    return cell;
  })));
  element("code").textContent = chosen.code;
  element("card").textContent = chosen.card;
  element("file").href = chosen.file;
  element("json").href = chosen.json;
  element("examples").hidden = !chosen.examples;
  if (chosen.examples) showExamples();
}

// ---- adversarial examples ----

// The numbers of a picture, RGBA, once it is decoded.
const decoded = new Map();
function pixels(source) {
  if (!decoded.has(source)) {
    decoded.set(source, (async () => {
      const image = new Image();
      image.src = source;
      await image.decode();
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext("2d", { colorSpace: "srgb" });
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, image.width, image.height);
    })());
  }
  return decoded.get(source);
}

async function showExamples() {
  const model = chosen;
  const bounds = data.eps;
  const index = Number(element("eps").value);
  const { images, labels, classes } = data.datasets[model.dataset];
  const { perturbations, predicted, probability } = model.examples;
  const [clean, changes] = await Promise.all([pixels(images), pixels(perturbations)]);
  if (model !== chosen || index !== Number(element("eps").value)) return;  // it has changed
  const enlarged = element("difference").checked;
  element("bound").textContent = `${bounds[index]}/255`;
  const right = labels.filter((label, which) => predicted[index][which] === label);
  element("right").textContent = `${right.length} of ${labels.length} right`;
  element("pictures").replaceChildren(...labels.map((label, which) => {
    const found = predicted[index][which];
    const picture = document.createElement("figure");
    picture.classList.toggle("right", found === label);
    caption(picture, "class", classes[label]);
    const canvas = picture.appendChild(document.createElement("canvas"));
    paint(canvas, clean, changes, which, index, enlarged && bounds[index]);
    const percent = Math.round(100 * probability[index][which]);
    const mark = found === label ? "✓" : "✗";
    caption(picture, "prediction", `${mark} ${classes[found]}\n${percent} %`);
    return picture;
  }));
}

function caption(picture, name, text) {
  const line = picture.appendChild(document.createElement("figcaption"));
  line.className = name;
  line.textContent = text;
}

// Paints image `which` as it is under bound `index`; or, if `eps` is given, its perturbation, from
// black, -eps, to white, eps. The pictures are rows of images; the perturbations, modulo 256, have
// a row for each bound.
function paint(canvas, clean, changes, which, index, eps) {
  const size = clean.height;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(size, size);
  for (let place = 0; place < picture.data.length; place += 1) {
    const pixel = place >> 2;
    const [line, column] = [Math.floor(pixel / size), pixel % size];
    const at = (image, row) =>
      image.data[4 * ((row * size + line) * image.width + which * size + column) + (place & 3)];
    if ((place & 3) === 3) picture.data[place] = 255;
    else {
      const change = (at(changes, index) << 24) >> 24;
      picture.data[place] = eps ? 127.5 * (1 + change / eps) : at(clean, 0) + change;
    }
  }
  context.putImageData(picture, 0, 0);
}

// ---- the page ----

function update() {
  const models = sortedModels();
  if (!models.includes(chosen)) chosen = models[0] ?? chosen ?? data.models[0];
  tabulate(models);
  draw(models);
  describe();
}

function fill(id, names) {
  element(id).append(...names.map(([value, text]) => new Option(text, value)));
}

fill("dataset", Object.keys(data.datasets).map((name) => [name, name]));
fill("board", data.boards.map((board) => [board.name, `${board.name} (${board.processor})`]));
for (const id of ["x", "y"]) fill(id, Object.keys(figures).map((key) => [key, titled(key)]));
element("x").value = "c_flash";
element("y").value = "clean";
element("eps").max = data.eps.length - 1;
element("eps").value = data.eps.length - 2;
makeColumns();
update();

element("filters").oninput = update;
element("filters").onsubmit = (event) => event.preventDefault();
element("filters").onreset = () => setTimeout(update);  // after it has been reset
element("x").onchange = element("y").onchange = update;
element("eps").oninput = element("difference").oninput = showExamples;
dark.addEventListener("change", update);
