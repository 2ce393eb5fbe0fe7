"use strict";

// Orange, sky blue, bluish green, yellow, blue, vermilion, reddish purple (Okabe and Ito, 2008), then hues.
const PALETTE = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const LARGEST_CANVAS = 16e6; // pixels; phones show no larger one
const SHARP_SIDE = 1400; // small images are enlarged to about this side, so that outlines are fine
const MOST_TRIES = 30; // while the service is busy
const BINS = 40;

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), context = canvas.getContext("2d");

let model = { name: "mrcnn", classes: [], least_score: 0, max_bytes: Infinity, max_pixels: Infinity };
let shown = null; // { file, picture, width, height, answer, objects }
let chosen = null; // the highlighted object
let zoom = 1;
let request = null; // of the image that is being detected

// --- Talking to the service ---

async function readModel() {
  const answer = await fetch("model");
  if (!answer.ok) return;
  model = await answer.json();
  document.title = `${model.name} · mrcnn`;
  $("model").textContent = model.name;
  const names = model.classes.map((x) => x.name);
  $("classes").textContent = names.length > 6 ? `finds ${names.length} classes` : `finds ${names.join(", ")}`;
  $("classes").title = names.join(", ");
  const megabytes = +(model.max_bytes / 1e6).toFixed(1), megapixels = +(model.max_pixels / 1e6).toFixed(1);
  $("limits").textContent = `JPEG, PNG, TIFF, WebP · up to ${megabytes} MB and ${megapixels} MP`;
  $("score").min = Math.floor(model.least_score * 100) / 100;
}

async function post(address, file, signal) {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(address, { method: "POST", body: file, signal });
    if (answer.ok) return answer;
    if (answer.status !== 503 || tries === MOST_TRIES) throw await failure(answer);
    const seconds = Number(answer.headers.get("Retry-After")) || 2;
    say(`The service is busy. Next try in ${seconds} s.`, "busy");
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    if (signal.aborted) throw new DOMException("Aborted", "AbortError");
  }
}

async function failure(answer) {
  let text = `The service answered with the status ${answer.status}.`;
  try { text = (await answer.json()).detail || text; } catch { /* an answer of a proxy */ }
  return Object.assign(new Error(text), { status: answer.status });
}

async function openImage(file, page = null) {
  if (request) request.abort();
  const own = (request = new AbortController());
  shown = chosen = null;
  $("pages").hidden = true;
  state("working");
  $("name").textContent = file.name || "image";
  clearCanvas();
  if (file.size > model.max_bytes) {
    return fail(`The file has ${(file.size / 1e6).toFixed(1)} MB, and the service takes up to ${model.max_bytes / 1e6}.`);
  }
  say("Finding objects …", "busy");
  try {
    const query = new URLSearchParams({ masks: "polygons", name: file.name || "image" });
    const part = page === null ? "" : `page=${page}`;
    if (page !== null) query.set("page", page);
    const preview = browserPicture(file, page).then((picture) => {
      if (picture && request === own && !shown) draw((shown = plain(file, picture)));
      return picture;
    });
    const answer = await (await post(`detect?${query}`, file, own.signal)).json();
    const { width, height } = answer.images[0];
    let picture = await preview;
    if (!picture || picture.width !== width || picture.height !== height) {
      picture = await createImageBitmap(await (await post(`picture?${part}`, file, own.signal)).blob());
    }
    if (request !== own) return;
    show({ file, picture, width, height, answer, objects: objectsOf(answer) });
  } catch (error) {
    if (error.name === "AbortError" || request !== own) return;
    const isOffline = error instanceof TypeError;
    fail(isOffline ? "The service cannot be reached. Is it running?" : error.message);
    if (error.status === 422 && /pages|frames/.test(error.message)) askForPage(file);
  }
}

async function browserPicture(file, page) {
  if (page) return null; // browsers show the first page
  try { return await createImageBitmap(file); } catch { return null; }
}

function askForPage(file) {
  $("pages").hidden = false;
  $("pages").onsubmit = (event) => {
    event.preventDefault();
    openImage(file, Math.max(0, Math.floor($("page").valueAsNumber || 0)));
  };
  $("page").focus();
}

// --- What is shown ---

function plain(file, picture) {
  return { file, picture, width: picture.width, height: picture.height, answer: null, objects: [] };
}

function objectsOf(answer) {
  const names = new Map(answer.categories.map((x) => [x.id, x.name]));
  return answer.annotations.map((record, index) => {
    const path = new Path2D(), outline = new Path2D();
    for (const points of record.segmentation) {
      for (let i = 0; i < points.length; i += 2) path[i ? "lineTo" : "moveTo"](points[i], points[i + 1]);
      path.closePath();
      addOutline(outline, points);
    }
    const isOneClass = answer.categories.length < 2;
    const color = colorOf(isOneClass ? index : record.category_id - 1);
    return { record, path, outline, color, name: names.get(record.category_id), score: record.score, number: index + 1 };
  });
}

// A hole is joined to its outer ring by a line that goes there and back. It is no edge of the object.
function addOutline(outline, points) {
  const edges = [], counts = new Map();
  for (let i = 0; i < points.length; i += 2) {
    const from = [points[i], points[i + 1]], to = [points[(i + 2) % points.length], points[(i + 3) % points.length]];
    const key = [from, to].map(String).sort().join(" ");
    counts.set(key, (counts.get(key) || 0) + 1);
    edges.push([from, to, key]);
  }
  let isDrawing = false;
  for (const [from, to, key] of edges) {
    if (counts.get(key) === 1) {
      if (!isDrawing) outline.moveTo(...from);
      outline.lineTo(...to);
    }
    isDrawing = counts.get(key) === 1;
  }
}

function colorOf(index) {
  return index < PALETTE.length ? PALETTE[index] : `hsl(${Math.round(index * 222.5) % 360} 75% 55%)`;
}

function visible() {
  const least = $("score").valueAsNumber;
  return shown.objects.filter((object) => object.score >= least - 1e-9);
}

function show(next) {
  shown = next;
  state("shown");
  say("");
  zoom = 1;
  drawHistogram();
  update();
  if (next.answer.info.is_complete === false) {
    say(`The model returns at most ${model.max_objects} objects of an image. There may be more.`, "bad");
  }
}

function update() {
  if (!shown || !shown.answer) return;
  const objects = visible();
  if (chosen && !objects.includes(chosen)) chosen = null;
  $("value").textContent = $("score").valueAsNumber.toFixed(2);
  $("count").textContent = objects.length;
  $("kind").textContent = objects.length === 1 ? "object" : "objects";
  canvas.setAttribute("aria-label", `The image with ${objects.length} objects`);
  listClasses(objects);
  listObjects(objects);
  for (const bar of $("histogram").children) bar.classList.toggle("in", bar.dataset.high > $("score").valueAsNumber);
  draw(shown);
}

function listClasses(objects) {
  const counts = new Map();
  for (const object of objects) counts.set(object.name, (counts.get(object.name) || 0) + 1);
  const isOneClass = model.classes.length < 2;
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => {
    const row = document.createElement("li");
    if (!isOneClass) row.append(swatch(objects.find((x) => x.name === name).color));
    row.append(`${name}: ${count}`);
    return row;
  });
  $("legend").replaceChildren(...(isOneClass ? [] : rows));
}

function listObjects(objects) {
  $("list").replaceChildren(...objects.map((object) => {
    const row = document.createElement("li"), button = document.createElement("button");
    const name = document.createElement("span"), facts = document.createElement("small");
    name.textContent = `${object.name} ${object.number}`;
    facts.textContent = `${object.record.area.toLocaleString("en")} px · ${object.score.toFixed(2)}`;
    button.type = "button";
    button.append(swatch(object.color), name, facts);
    button.setAttribute("aria-pressed", object === chosen);
    button.onclick = () => choose(object === chosen ? null : object, false);
    object.button = button;
    row.append(button);
    return row;
  }));
}

function swatch(color) {
  const square = document.createElement("span");
  square.className = "swatch";
  square.style.background = color;
  return square;
}

function choose(object, scrolls) {
  if (chosen && chosen.button) chosen.button.setAttribute("aria-pressed", "false");
  chosen = object;
  if (object) {
    object.button.setAttribute("aria-pressed", "true");
    if (scrolls) {
      const list = $("list"), row = object.button; // not scrollIntoView, which would move the page, too
      const top = row.getBoundingClientRect().top - list.getBoundingClientRect().top;
      list.scrollTop += top - list.clientHeight / 2;
    } else {
      reveal(object);
      $("viewport").scrollIntoView({ block: "nearest" }); // on a phone it is above the list
    }
    say(`${object.name} ${object.number}, score ${object.score.toFixed(2)}, ${object.record.area} pixels`);
  } else {
    say("");
  }
  draw(shown);
}

function reveal(object) {
  const scale = canvas.clientWidth / shown.width, [x, y, width, height] = object.record.bbox, view = $("viewport");
  view.scrollTo({ left: (x + width / 2) * scale - view.clientWidth / 2, top: (y + height / 2) * scale - view.clientHeight / 2 });
}

function drawHistogram() {
  const counts = new Array(BINS).fill(0), space = "http://www.w3.org/2000/svg";
  const low = Number($("score").min);
  for (const object of shown.objects) {
    counts[Math.min(BINS - 1, Math.max(0, Math.floor(((object.score - low) / (1 - low)) * BINS)))]++;
  }
  const most = Math.max(1, ...counts);
  $("histogram").replaceChildren(...counts.map((count, bin) => {
    const bar = document.createElementNS(space, "rect"), height = (24 * count) / most;
    const values = { x: (100 * bin) / BINS + 0.3, y: 24 - height, width: 100 / BINS - 0.6, height };
    for (const [name, value] of Object.entries(values)) bar.setAttribute(name, value);
    bar.dataset.high = low + ((bin + 1) / BINS) * (1 - low);
    return bar;
  }));
}

// --- Drawing ---

function clearCanvas() {
  canvas.width = canvas.height = 1;
  canvas.style.width = canvas.style.height = "1px";
}

function canvasScale(width, height) {
  const enlarged = Math.max(1, Math.min(8, Math.floor(SHARP_SIDE / Math.max(width, height))));
  return Math.min(enlarged, Math.sqrt(LARGEST_CANVAS / (width * height)));
}

function draw(what) {
  const { picture, width, height } = what, scale = canvasScale(width, height);
  const columns = Math.round(width * scale), rows = Math.round(height * scale);
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.imageSmoothingEnabled = scale < 2;
  context.drawImage(picture, 0, 0, columns, rows);
  context.setTransform(columns / width, 0, 0, rows / height, 0, 0);
  // Lines of two pixels of the screen.
  fit();
  const line = (2 * width) / Math.max(1, canvas.clientWidth);
  if (what.answer) visible().forEach((object) => drawObject(object, line));
  if (chosen) drawChosen(chosen, line);
}

function drawObject(object, line) {
  context.strokeStyle = context.fillStyle = object.color;
  context.lineJoin = "round";
  if ($("fills").checked) {
    context.globalAlpha = chosen && chosen !== object ? 0.15 : 0.35;
    context.fill(object.path, "evenodd");
  }
  context.globalAlpha = chosen && chosen !== object ? 0.45 : 1;
  context.lineWidth = line;
  if ($("outlines").checked) context.stroke(object.outline);
  if ($("boxes").checked) {
    context.setLineDash([4 * line, 3 * line]);
    context.strokeRect(...object.record.bbox);
    context.setLineDash([]);
  }
  context.globalAlpha = 1;
}

function drawChosen(object, line) {
  for (const [color, width] of [["#000000", 5 * line], ["#ffffff", 3 * line], [object.color, line]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke(object.outline);
  }
}

function fit() {
  const view = $("viewport"), { width, height } = shown;
  const isWide = matchMedia("(min-width: 62rem)").matches;
  const space = isWide ? view.clientHeight : 0.68 * window.innerHeight;
  const factor = Math.min(view.clientWidth / width, Math.max(120, space) / height) * zoom;
  canvas.style.width = `${Math.floor(width * factor)}px`;
  canvas.style.height = `${Math.floor(height * factor)}px`;
}

function changeZoom(factor) {
  if (!shown) return;
  const view = $("viewport"), before = zoom;
  zoom = factor === 0 ? 1 : Math.min(12, Math.max(1, zoom * factor));
  const x = (view.scrollLeft + view.clientWidth / 2) * (zoom / before) - view.clientWidth / 2;
  const y = (view.scrollTop + view.clientHeight / 2) * (zoom / before) - view.clientHeight / 2;
  draw(shown);
  view.scrollTo(x, y);
}

// --- Downloads ---

function download(blob, suffix) {
  const link = document.createElement("a");
  const stem = (shown.file.name || "image").replace(/\.[^.]*$/, "");
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}${suffix}`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function downloadJson() {
  const annotations = visible().map((object) => object.record);
  const content = JSON.stringify({ ...shown.answer, annotations });
  download(new Blob([content], { type: "application/json" }), ".json");
}

function downloadPng() {
  const highlighted = chosen;
  chosen = null;
  draw(shown);
  canvas.toBlob((blob) => {
    download(blob, "-objects.png");
    chosen = highlighted;
    draw(shown);
  }, "image/png");
}

// --- Words and states ---

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = `status ${kind}`;
}

function state(name) {
  $("main").dataset.state = name;
}

function fail(text) {
  shown = chosen = null;
  state("empty");
  say(text, "bad");
}

// --- What people do ---

function take(files) {
  const file = [...(files || [])][0];
  if (file) openImage(file);
}

$("file").onchange = (event) => { take(event.target.files); event.target.value = ""; };
$("another").onclick = () => $("file").click();
$("score").oninput = update;
for (const id of ["fills", "outlines", "boxes"]) $(id).onchange = () => shown && draw(shown);
$("json").onclick = downloadJson;
$("png").onclick = downloadPng;
$("smaller").onclick = () => changeZoom(1 / 1.5);
$("larger").onclick = () => changeZoom(1.5);
$("fit").onclick = () => changeZoom(0);
canvas.onclick = (event) => {
  if (!shown || !shown.answer) return;
  const x = (event.offsetX / canvas.clientWidth) * canvas.width, y = (event.offsetY / canvas.clientHeight) * canvas.height;
  const hits = visible().filter((object) => context.isPointInPath(object.path, x, y, "evenodd"));
  const smallest = hits.sort((a, b) => a.record.area - b.record.area)[0] || null;
  choose(smallest === chosen ? null : smallest, true);
};
$("viewport").addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  changeZoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
}, { passive: false });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen) choose(null, false); });
document.addEventListener("paste", (event) => take(event.clipboardData && event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
window.addEventListener("resize", () => { if (shown) draw(shown); });

readModel().catch(() => say("The service cannot be reached. Is it running?", "bad"));
