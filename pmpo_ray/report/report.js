"use strict";
// Texts come from models and data; they reach the page only through textContent.

const tip = document.getElementById("tip");
const unpacked = new Map();

function unpack(section) {
  if (!unpacked.has(section)) unpacked.set(section, read(section));
  return unpacked.get(section);
}

async function read(section) {
  const packed = atob(section.querySelector("script.data").textContent.trim());
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { candidates, examples, operators } = await new Response(stream).json();
  const names = ["id", "round", "parent", "operator", "status", "loss", "text", "reason", "shots"];
  const rows = candidates.map((row) => Object.fromEntries(names.map((name, index) => [name, row[index]])));
  return { candidates: rows, byId: new Map(rows.map((row) => [row.id, row])), examples, operators };
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function about(candidate, operators) {
  const loss = candidate.loss === null ? "" : ` · loss ${candidate.loss.toFixed(3)}`;
  const operator = operators[candidate.operator] ?? candidate.operator;
  return `${candidate.id} · round ${candidate.round} · ${operator} · ${candidate.status}${loss}`;
}

function candidateParts(candidate, operators) {
  const text = element("p", "text", candidate.text || "(empty)");
  text.dir = "auto";
  const parts = [element("p", "about", about(candidate, operators)), text];
  if (candidate.shots.length) {
    parts.push(element("p", "about", `demonstrations: ${candidate.shots.join(", ")}`));
  }
  if (candidate.reason) parts.push(element("p", "why", candidate.reason));
  return parts;
}

// Charts: the dot under the pointer, the finger or the arrow keys shows its candidate or example.

let pinned = false;
let lit = null;

function unlight() {
  lit?.classList.remove("on");
  lit = null;
  tip.hidden = true;
  pinned = false;
}

async function light(dot) {
  const section = dot.closest("section");
  lit?.classList.remove("on");
  lit = dot;
  dot.classList.add("on");
  const data = await unpack(section);
  if (lit !== dot) return;
  const id = dot.dataset.id;
  if (id.startsWith("e")) {
    const [input, target] = data.examples[Number(id.slice(1))] ?? [`example ${id.slice(1)}`, "unknown"];
    const text = element("p", "text", input);
    text.dir = "auto";
    tip.replaceChildren(text, element("p", "about", `target: ${target}`));
  } else {
    tip.replaceChildren(...candidateParts(data.byId.get(id), data.operators));
  }
  tip.hidden = false;
  const box = dot.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 16;
  const left = Math.max(16, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, room));
  const above = box.top - tip.offsetHeight - 10;
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 10) + window.scrollY}px`;
}

function centre(dot) {
  const box = dot.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}

// The nearest dot in the direction of the arrow; sideways distance counts double.
function neighbour(dots, from, [dx, dy]) {
  const [x, y] = centre(from);
  let best = null;
  let least = Infinity;
  for (const dot of dots) {
    if (dot === from) continue;
    const [u, v] = centre(dot);
    const along = (u - x) * dx + (v - y) * dy;
    const aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
    if (along > 0.5 && along + 2 * aside < least) {
      least = along + 2 * aside;
      best = dot;
    }
  }
  return best;
}

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

for (const chart of document.querySelectorAll(".chart.dots")) {
  // Only one of a chart's two widths is shown.
  const shown = () => [...chart.querySelectorAll("[data-id]")].filter((dot) => dot.getClientRects().length);
  chart.addEventListener("pointerover", (event) => {
    const dot = event.target.closest("[data-id]");
    if (dot && !pinned) light(dot);
  });
  chart.addEventListener("pointerout", (event) => {
    if (!pinned && event.pointerType === "mouse" && event.target.closest("[data-id]")) unlight();
  });
  chart.addEventListener("click", (event) => {
    const dot = event.target.closest("[data-id]");
    if (!dot) return unlight();
    light(dot);
    pinned = true;
  });
  chart.addEventListener("keydown", (event) => {
    const way = arrows[event.key];
    const dots = way ? shown() : [];
    if (!dots.length) return;
    event.preventDefault();
    const next = lit && dots.includes(lit) ? neighbour(dots, lit, way) : dots[0];
    if (next) {
      light(next);
      pinned = true;
    }
  });
  chart.addEventListener("blur", unlight);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") unlight();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest(".chart, #tip")) unlight();
});

// The list of all candidates is built when it is opened.

for (const list of document.querySelectorAll("details.candidates")) {
  const input = list.querySelector("input");
  const status = list.querySelector("[role=status]");
  const place = list.querySelector(".list");
  const fill = async () => {
    const { candidates, operators } = await unpack(list.closest("section"));
    const query = input.value.trim().toLowerCase();
    const found = candidates.filter((row) =>
      `${about(row, operators)}\n${row.text}\n${row.reason}`.toLowerCase().includes(query));
    place.replaceChildren(...found.map((row) => {
      const article = element("article");
      article.append(...candidateParts(row, operators));
      return article;
    }));
    status.textContent = `${found.length} of ${candidates.length}`;
  };
  list.addEventListener("toggle", () => list.open && fill());
  input.addEventListener("input", fill);
}

// With several tasks, one is shown at a time; the address names it.

const sections = [...document.querySelectorAll("section.task")];
const rows = [...document.querySelectorAll(".overview tbody tr")];

function show(moved) {
  const named = sections.find((section) => `#${section.id}` === location.hash);
  const current = location.hash ? sections.find((section) => !section.hidden) : undefined;
  const chosen = named ?? current ?? sections[0];
  for (const section of sections) section.hidden = section !== chosen;
  for (const row of rows) {
    const own = row.querySelector("a").hash === `#${chosen.id}`;
    row.classList.toggle("chosen", own);
    if (own) row.querySelector("a").setAttribute("aria-current", "true");
    else row.querySelector("a").removeAttribute("aria-current");
  }
  unlight();
  if (named && moved) {
    named.scrollIntoView();
    named.querySelector("h2").focus({ preventScroll: true });
  }
}

if (rows.length) {
  for (const section of sections.slice(1)) section.hidden = true;
  window.addEventListener("hashchange", () => show(true));
  show(location.hash.length > 1);
  overview();
}

function overview() {
  const body = document.querySelector(".overview tbody");
  const filter = document.getElementById("filter");
  const verdict = document.getElementById("verdict");
  const shown = document.getElementById("shown");
  document.querySelector("#overview .controls").hidden = false;

  const apply = () => {
    const query = filter.value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden = !row.dataset.name.toLowerCase().includes(query) ||
        (verdict.value !== "" && row.dataset.verdict !== verdict.value);
    }
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} tasks`;
  };
  filter.addEventListener("input", apply);
  verdict.addEventListener("change", apply);
  apply();

  for (const head of document.querySelectorAll(".overview th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.key;
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of document.querySelectorAll(".overview th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = key === "name" || key === "verdict";
      const order = (a, b) => text
        ? a.dataset[key].localeCompare(b.dataset[key], undefined, { numeric: true })
        : Number(a.dataset[key]) - Number(b.dataset[key]);
      body.append(...rows.sort((a, b) => (down ? -order(a, b) : order(a, b))));
    });
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select")) {
      event.preventDefault();
      filter.focus();
    }
  });
}
