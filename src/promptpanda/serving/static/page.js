"use strict";
// What somebody types or a model says becomes text nodes, never markup.

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

async function ask(address, kind, body) {
  let response;
  try {
    response = await fetch(address, { method: "POST", headers: { "Content-Type": kind }, body });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (response.ok) return response;
  let sentence = `The server answered ${response.status}.`;
  try {
    sentence = (await response.json()).error;
  } catch { /* not JSON */ }
  throw new Error(sentence);
}

// A form that works until its answer is there; what goes wrong is said above the answer.
function onSubmit(id, work) {
  const form = document.getElementById(id);
  if (form === null) return;
  const error = document.querySelector(".error[role=alert]");
  const button = form.querySelector("button.go");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.textContent = "";
    button.disabled = true;
    try {
      await work(form);
    } catch (problem) {
      error.textContent = problem.message;
    }
    button.disabled = false;
  });
}

// Rows of a table that have all the words.
for (const input of document.querySelectorAll("input[data-filters]")) {
  const rows = Array.from(document.getElementById(input.dataset.filters).tBodies[0].rows);
  const none = document.getElementById("none-found");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    none.hidden = rows.some((row) => !row.hidden);
  });
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function shares(pairs) {
  const items = pairs.map(([name, share]) =>
    element("li", [
      element("span", name), element("span", percent(share)),
      element("meter", "", { value: share, min: 0, max: 1, "aria-label": name }),
    ], { class: "share" }));
  return element("ol", items);
}

function marked(words, spans) {
  const parts = [];
  let place = 0;
  for (const span of spans) {
    parts.push(words.slice(place, span.start).join(" "), " ");
    parts.push(element("mark", [words.slice(span.start, span.end).join(" "), element("small", span.label)]), " ");
    place = span.end;
  }
  parts.push(words.slice(place).join(" "));
  return element("p", parts, { class: "context" });
}

// Python counts characters by code points, JavaScript by halves of some of them.
function inContext(context, answer, start) {
  const points = Array.from(context);
  const end = start + Array.from(answer).length;
  const part = (from, to) => points.slice(from, to).join("");
  return element("p", [part(0, start), element("mark", part(start, end)), part(end)], { class: "context" });
}

function shown(prediction, typed) {
  if ("label" in prediction)
    return [element("p", prediction.label, { class: "answer" }), shares(Object.entries(prediction.probabilities))];
  if ("value" in prediction) return [element("p", prediction.value.toPrecision(4), { class: "answer" })];
  if ("labels" in prediction)
    return [
      element("p", prediction.labels.join(", ") || "no label", {
        class: prediction.labels.length > 6 ? "answer long" : "answer",
      }),
      shares(Object.entries(prediction.probabilities)),
    ];
  if ("spans" in prediction) {
    const found = prediction.spans.length === 1 ? "1 span" : `${prediction.spans.length} spans`;
    return [element("p", found, { class: "answer" }), marked(typed.words, prediction.spans)];
  }
  const parts = [element("p", prediction.answer || "no answer", { class: "answer" })];
  if (prediction.start >= 0) parts.push(inContext(typed.values[1], prediction.answer, prediction.start));
  parts.push(shares(prediction.nbest.map((one) => [one.answer || "no answer", one.probability])));
  return parts;
}

onSubmit("try", async (form) => {
  const fields = Array.from(form.querySelectorAll("textarea"));
  const prompts = Array.from(form.querySelectorAll("input[name=prompt]:checked"));
  const answers = document.querySelector(".answers");
  answers.replaceChildren();
  if (prompts.length === 0) throw new Error("Choose a prompt first.");
  const lines = (field) => field.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const values = fields.map((field) => (field.dataset.many ? lines(field) : field.value));
  const typed = { values, words: Array.isArray(values[0]) ? values[0] : values[0].split(/\s+/).filter(Boolean) };
  const given = (box) => {
    if (form.dataset.asRows === "yes")
      return { rows: [Object.fromEntries(fields.map((field, place) => [field.name, values[place]]))] };
    if (box.dataset.words) return { texts: [typed.words] };
    return { texts: [values.length === 1 ? values[0] : values] };
  };
  await Promise.all(prompts.map(async (box) => {
    const prompt = box.value;
    const card = element("section", [element("h3", prompt)], { class: "box" });
    answers.append(card);
    try {
      const body = JSON.stringify({ prompt, ...given(box), top: 8 });
      const answer = await (await ask("/v1/predict", "application/json", body)).json();
      card.append(...shown(answer.predictions[0], typed));
    } catch (problem) {
      card.append(element("p", problem.message, { class: "error" }));
    }
  }));
});

onSubmit("rank", async () => {
  const box = (id) => document.getElementById(id);
  const place = box("ranking");
  place.replaceChildren(element("p", "Every prompt reads your rows; that may take a minute.", { class: "note" }));
  try {
    const asked = { rows: box("rows").value, header: box("header").checked, numbers: box("numbers").checked };
    const answer = await (await ask("/page/rank", "application/json", JSON.stringify(asked))).json();
    const names = Object.keys(answer.ranking[0].scores);
    const head = ["prompt", "task", ...names].map((name, at) =>
      element("th", name === answer.by ? `${name} (decides)` : name, { scope: "col", class: at > 1 ? "number" : "" }));
    const rows = answer.ranking.map((one) => element("tr", [
      element("th", element("a", one.prompt, { href: `/prompts/${encodeURIComponent(one.prompt)}` }), { scope: "row" }),
      element("td", one.task, { "data-name": "task" }),
      ...names.map((name) => element("td", name in one.scores ? one.scores[name].toFixed(3) : "–",
        { class: "number", "data-name": name })),
    ]));
    const table = element("table", [element("thead", element("tr", head)), element("tbody", rows)], { class: "stack" });
    place.replaceChildren(element("h2", "Best first"), element("div", table, { class: "scroll" }),
      ...answer.notes.map((note) => element("p", note, { class: "note" })));
  } catch (problem) {
    place.replaceChildren();
    throw problem;
  }
});

const drop = document.querySelector(".drop");
if (drop !== null) {
  const input = document.getElementById("chosen");
  for (const name of ["dragover", "dragleave", "drop"])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") input.files = event.dataTransfer.files;
    });
}

onSubmit("file", async (form) => {
  const file = document.getElementById("chosen").files[0];
  const result = document.getElementById("result");
  result.replaceChildren();
  if (file === undefined) throw new Error("Choose a file first.");
  if (file.size > Number(form.dataset.most)) throw new Error("The file is too large; use panda predict for it.");
  result.replaceChildren(element("p", "Predicting …", { class: "note" }));
  try {
    const prompt = document.getElementById("prompt").value;
    const response = await ask(`/page/file?prompt=${encodeURIComponent(prompt)}`, "text/csv", file);
    const blob = await response.blob();
    const unread = Number(response.headers.get("X-Unread-Rows"));
    const first = (await blob.text()).split("\n").slice(0, 6).join("\n");
    const name = `${file.name.replace(/\.csv$/i, "")}-predicted.csv`;
    result.replaceChildren(
      element("p", element("a", `Save ${name}`, { class: "go", href: URL.createObjectURL(blob), download: name })),
      element("p", unread === 0 ? "All rows have a prediction." : `${unread} rows could not be read; they have none.`),
      element("pre", first));
  } catch (problem) {
    result.replaceChildren();
    throw problem;
  }
});
