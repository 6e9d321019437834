"use strict";
// Without this script the page is complete, but still: tables do not sort, and figures are pictures.

// ---- light and dark

(function theme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  function tell() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Light colors" : "Dark colors");
  }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  system.addEventListener("change", tell);
  button.hidden = false;
  tell();
})();

// ---- contents: beside the text where there is room, folded above it where there is not

if (!matchMedia("(min-width: 66rem)").matches) { document.querySelector("nav details").open = false; }

// ---- tables

function sortTable(table, column, descending) {
  const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
  // Written beside the text only where it is another.
  const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
  const compare = numeric ? (a, b) => Number(a) - Number(b) : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    // What is missing is last in both orders. Of two infinities the difference is not a number.
    if (a === b) { return 0; }
    if (a === "" || b === "") { return a === "" ? 1 : -1; }
    return descending ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows);
  Array.from(table.tHead.rows[0].cells).forEach((cell, place) => {
    if (place === column) {
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    } else {
      cell.removeAttribute("aria-sort");
    }
  });
}

document.querySelectorAll("table.sortable").forEach((table) => {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    const words = document.createElement("span");
    words.append(...cell.childNodes);
    button.append(words);
    cell.append(button);
    button.addEventListener("click", () => {
      sortTable(table, column, cell.getAttribute("aria-sort") === "ascending");
    });
  });
});

// ---- figures

const MOST_SCENES = 12; // a browser gives a page 16 drawing contexts; of more, the oldest go blank without a word
const TURN = Math.PI / 12;

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Arrays that several figures or traces have in common are in the page once.
async function withArrays(value) {
  if (value === null || typeof value !== "object") { return value; }
  if (typeof value.bdata === "string" && value.bdata.startsWith("@")) {
    value.bdata = await unpacked(value.bdata.slice(1));
    return value;
  }
  for (const inner of Object.values(value)) { await withArrays(inner); }
  return value;
}

function runScript(text) {
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
  script.remove();
}

let plotly = null;
function loadPlotly() {
  plotly = plotly || unpacked("packed-plotly").then(runScript);
  return plotly;
}

function scenesOf(plot) {
  return Object.keys(plot.layout).filter((name) => /^scene[0-9]*$/.test(name));
}

function labelled(words, control) {
  const label = document.createElement("label");
  const text = document.createElement("span");
  text.textContent = words;
  label.append(text, control);
  return label;
}

// plotly writes names as a subset of HTML; here they are text again.
function plain(words) {
  const parsed = new DOMParser().parseFromString(words.replaceAll("<br>", " "), "text/html");
  return parsed.body.textContent;
}

// A menu of the figure, which only a pointer could reach, as a list of the page.
function listFor(plot, menu) {
  const list = document.createElement("select");
  menu.buttons.forEach((button, place) => list.add(new Option(plain(button.label), String(place))));
  list.value = String(menu.active || 0);
  list.addEventListener("change", () => {
    const button = menu.buttons[Number(list.value)];
    window.Plotly[button.method](plot, ...JSON.parse(JSON.stringify(button.args)));
  });
  return labelled("Show", list);
}

function sliderFor(plot, slider) {
  const range = document.createElement("input");
  Object.assign(range, { type: "range", min: "0", max: String(slider.steps.length - 1), step: "1" });
  range.value = String(slider.active || 0);
  const value = document.createElement("output");
  const words = plain((slider.currentvalue && slider.currentvalue.prefix) || "Value: ").trim().replace(/:$/, "");
  const tell = () => {
    value.textContent = plain(slider.steps[Number(range.value)].label);
    range.setAttribute("aria-valuetext", value.textContent);
  };
  range.addEventListener("input", () => {
    const step = slider.steps[Number(range.value)];
    window.Plotly[step.method](plot, ...JSON.parse(JSON.stringify(step.args)));
    tell();
  });
  tell();
  const label = labelled(words.charAt(0).toUpperCase() + words.slice(1), range);
  label.append(value);
  return label;
}

function turned(eye, aside, upward) {
  const length = Math.hypot(eye.x, eye.y, eye.z);
  const around = Math.atan2(eye.y, eye.x) + aside;
  const above = Math.min(Math.max(Math.asin(eye.z / length) + upward, -1.4), 1.4);
  return {
    x: length * Math.cos(above) * Math.cos(around),
    y: length * Math.cos(above) * Math.sin(around),
    z: length * Math.sin(above),
  };
}

function turnButtons(plot, first) {
  const group = document.createElement("span");
  group.className = "turn";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Turn");
  const moves = [
    ["←", "Turn left", -TURN, 0], ["→", "Turn right", TURN, 0], ["↑", "Turn up", 0, TURN], ["↓", "Turn down", 0, -TURN],
    ["Reset", "Reset the view", null, null],
  ];
  moves.forEach(([sign, words, aside, upward]) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: sign, title: words });
    button.setAttribute("aria-label", words);
    button.addEventListener("click", () => {
      const scene = scenesOf(plot)[0]; // the others follow
      const eye = aside === null ? first : turned(plot._fullLayout[scene].camera.eye, aside, upward);
      window.Plotly.relayout(plot, { [`${scene}.camera.eye`]: { ...eye } });
    });
    group.append(button);
  });
  return group;
}

function addControls(figure, plot, { menus, sliders }) {
  const controls = figure.querySelector(".controls");
  controls.replaceChildren();
  menus.forEach((menu) => controls.append(listFor(plot, menu)));
  sliders.forEach((slider) => controls.append(sliderFor(plot, slider)));
  if (scenesOf(plot).length > 0) {
    const eye = plot._fullLayout[scenesOf(plot)[0]].camera.eye;
    controls.append(turnButtons(plot, { ...eye }));
  }
}

const drawn = []; // figures, the one that came into view last is last
const visible = new Set();

function putAway(figure) {
  const plot = figure.querySelector(".live");
  window.Plotly.purge(plot);
  plot.hidden = true;
  figure.querySelector(".still").hidden = false;
  figure.querySelector(".controls").replaceChildren();
  figure.dataset.state = "";
  drawn.splice(drawn.indexOf(figure), 1);
}

function makeRoom(needed) {
  const count = () => drawn.reduce((sum, figure) => sum + scenesOf(figure.querySelector(".live")).length, needed);
  for (const figure of [...drawn]) {
    if (count() <= MOST_SCENES) { return; }
    if (!visible.has(figure)) { putAway(figure); }
  }
}

async function draw(figure) {
  if (figure.dataset.state || !visible.has(figure)) { return; } // a reader may have scrolled past it meanwhile
  figure.dataset.state = "drawing";
  const plot = figure.querySelector(".live");
  const note = figure.querySelector("p.note[role=status]");
  try {
    await loadPlotly();
    const { data, layout } = await withArrays(JSON.parse(await unpacked(figure.dataset.figure)));
    const menus = layout.updatemenus || [];
    const sliders = layout.sliders || [];
    layout.updatemenus = [];
    layout.sliders = [];
    makeRoom(scenesOf({ layout }).length);
    plot.hidden = false;
    plot.style.minHeight = `${layout.height || 450}px`;
    figure.querySelector(".still").hidden = true;
    await window.Plotly.newPlot(plot, data, layout, { displaylogo: false, responsive: true });
    runScript((await unpacked("packed-cameras")).replaceAll("{plot_id}", plot.id));
    drawn.push(figure);
    addControls(figure, plot, { menus, sliders });
    figure.dataset.state = "drawn";
    note.textContent = "";
  } catch (error) {
    plot.hidden = true;
    figure.querySelector(".still").hidden = false;
    figure.dataset.state = "failed";
    note.textContent = `This browser cannot draw the figure (${error.message}); the picture is still.`;
  }
}

let queue = Promise.resolve(); // one after the other, so that contexts are counted right

const observer = new IntersectionObserver(
  (entries) => {
    entries.forEach(({ target, isIntersecting }) => {
      if (isIntersecting) {
        visible.add(target);
        queue = queue.then(() => draw(target));
      } else {
        visible.delete(target);
      }
    });
  },
  { rootMargin: "200px 0px" },
);
document.querySelectorAll("figure.interactive").forEach((figure) => observer.observe(figure));

// ---- paper: what is folded is printed, too, but for tables, which may have hundreds of rows: a reader opens those

let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = Array.from(document.querySelectorAll("details:not([open], :has(table))"));
  unfolded.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => {
  unfolded.forEach((one) => { one.open = false; });
});
