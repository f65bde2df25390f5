// The page that makes pictures: submits without leaving, and puts what comes in its place.
import { ask, fragment, toast } from "./api.js";
import { sizePictures } from "./app.js";
import { addSliders } from "./controls.js";
import { t } from "./text.js";
import "./job.js";

const form = document.querySelector("[data-composer]");
const jobs = document.querySelector("[data-jobs]");
const results = document.querySelector("[data-results]");
const BIG = Number.MAX_SAFE_INTEGER;

/** What is to be drawn: words, a class, or whatever the model likes. */
function conditionOf(fields) {
  const label = fields.get("class");
  if (!form.querySelector("[data-prompt-box]")) {
    return label && label !== "*" ? { type: "class", class: label } : { type: "none" };
  }
  const attributes = [...fields].filter(([name, value]) => name.startsWith("attribute.") && value)
    .map(([name, value]) => `${name.slice(10)}=${value}`);
  const style = fields.get("style");
  return {
    type: "text", prompt: fields.get("prompt").trim(), negative_prompt: fields.get("negative").trim(),
    attributes, ...(style ? { style } : {}),
  };
}

/** The order as JSON text; a seed may be larger than a script's numbers. */
function orderOf(fields) {
  const options = {};
  for (const [name, value] of fields) {
    if (!name.startsWith("option.") || value === "") continue;
    const field = form.querySelector(`[name="${CSS.escape(name)}"]`);
    const check = form.querySelector(`[name="${CSS.escape(name)}"][type=checkbox]`);
    const number = field.type === "number" ? Number(value.replace(",", ".")) : value;
    options[name.slice(7)] = check ? value === "true" : number;
  }
  const order = {
    task: "generate", model: fields.get("model"), num_images: Number(fields.get("number")),
    condition: conditionOf(fields), options,
  };
  const seed = fields.get("seed");
  return JSON.stringify(order).replace(/\}$/, seed === "" ? "}" : `,"seed":${BigInt(seed)}}`);
}

function complain(title, text) {
  const place = form.querySelector("[data-form-error]");
  const box = document.createElement("div");
  box.className = "notice notice-error";
  box.setAttribute("role", "alert");
  const body = document.createElement("div");
  body.className = "notice-body";
  for (const [words, style] of [[title, "notice-title"], [text, ""]]) {
    body.append(Object.assign(document.createElement("p"), { textContent: words, className: style }));
  }
  box.append(body);
  place.replaceChildren(box);
}

async function submit() {
  const seed = form.querySelector("iz-seed");
  const button = form.querySelector("[data-submit]");
  if (!/^\d*$/.test(form.elements.seed.value.trim()) || !form.checkValidity()) {
    form.submit();  // the server says what is wrong, at the field and in words
    return;
  }
  button.disabled = true;
  try {
    const body = new Blob([orderOf(new FormData(form))], { type: "application/json" });
    const job = await ask("/api/v1/jobs", {
      method: "POST", body, headers: { "Content-Type": "application/json", "Idempotency-Key": key() },
    });
    form.querySelector("[data-form-error]").replaceChildren();
    document.querySelector("[data-first]")?.remove();
    jobs.querySelector("h2").after(await fragment(`/jobs/${job.id}/card`));
    if (!seed.locked) seed.roll();
  } catch (error) {
    if (error.status === 422 || error.status === 404) { form.submit(); return; }
    complain(t("generate.js.not_sent"), t("generate.js.not_sent_why", { reason: error.message }));
  } finally {
    button.disabled = false;
  }
}

function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Pictures go to the top of the results; what failed stays where the job was. */
function place(event) {
  const { piece, from } = event.detail;
  if (!piece.matches("[data-result]")) return;
  event.preventDefault();
  const focused = from.contains(document.activeElement);
  from.remove();
  document.querySelector(`[data-result="${piece.dataset.result}"]`)?.remove();
  document.querySelector("[data-results-head]").hidden = false;
  results.prepend(piece);
  sizePictures(piece);
  if (focused) piece.querySelector("a")?.focus();
  document.title = document.title.replace(/^✓ /, "");
  if (document.hidden) document.title = `✓ ${document.title}`;
  toast(t("generate.js.done", { count: piece.querySelectorAll("[data-picture]").length }));
}
document.addEventListener("iz-ended", place);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.title = document.title.replace(/^✓ /, "");
});

function tellNumber() {
  const count = Math.max(1, Math.trunc(Number(form.elements.number.value)) || 1);
  form.querySelector("[data-submit]").textContent = t("generate.js.create", { count });
}

function tellChanges() {
  let count = 0;
  for (const option of form.querySelectorAll(".option")) {
    const field = option.querySelector("input:checked, input[type=number], select");
    const value = field ? field.value : "false";
    const same = field?.type === "number"
      ? Number(value) === Number(option.dataset.default) : value === option.dataset.default;
    option.classList.toggle("is-changed", !same);
    count += same ? 0 : 1;
  }
  const text = count ? t("generate.js.changed", { count }) : t("generate.js.as_default");
  form.querySelector("[data-more-summary]").textContent = text;
}

/** The options that `preset` names get its values, the others their defaults. */
function choose(preset) {
  for (const option of form.querySelectorAll(".option")) {
    const chosen = (field) => String(preset[field.name.slice(7)] ?? option.dataset.default);
    for (const field of option.querySelectorAll("input[type=number], select")) {
      field.value = chosen(field);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    for (const field of option.querySelectorAll("input[type=radio], input[type=checkbox]")) {
      field.checked = field.value === chosen(field);
    }
  }
  tellChanges();
}

/** A condition as the form's fields hold it. */
function asked(condition) {
  if (condition.type !== "text") return [["class", condition.class ?? "*"]];
  const negative = condition.style ? "" : condition.negative_prompt;
  return [["prompt", condition.asked ?? condition.prompt], ["negative", negative], ["style", condition.style]]
    .filter(([, value]) => value);
}

/** The same page with another form: a link that fills it. */
function fillWith(entries) {
  location.assign(`/?${new URLSearchParams(entries)}`);
}

async function openPicture(file) {
  try {
    const model = encodeURIComponent(form?.elements.model.value ?? "");
    const found = await ask(`/api/v1/infotext?model=${model}`, {
      method: "POST", body: file, headers: { "Content-Type": "image/png" },
    });
    const { request } = found;
    const entries = [
      ["model", request.model], ...asked(request.condition),
      ["number", request.num_images ?? 1], ["keep", "1"],
      ...(request.seed === undefined ? [] : [["seed", request.seed]]),
      ...Object.entries(request.options ?? {}).map(([name, value]) => [`option.${name}`, value]),
    ];
    sessionStorage.setItem("izograf-opened", [t("generate.js.opened", { name: file.name }), ...found.remarks].join(" "));
    fillWith(entries);
  } catch (error) {
    toast(t("generate.js.not_opened", { name: file.name, reason: error.message }));
  }
}

for (const field of document.querySelectorAll("[data-open]")) {
  field.addEventListener("change", () => { if (field.files[0]) openPicture(field.files[0]); });
}
document.addEventListener("dragover", (event) => {
  if (form && event.dataTransfer?.types.includes("Files")) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!form || !event.dataTransfer?.files.length) return;
  event.preventDefault();
  openPicture(event.dataTransfer.files[0]);
});

if (form) {
  addSliders(form);
  form.querySelector("[aria-invalid=true]")?.focus();
  for (const button of form.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", (event) => {
      event.preventDefault();
      choose(JSON.parse(button.dataset.preset));
    });
  }
  form.addEventListener("submit", (event) => {
    if (event.submitter && !event.submitter.matches("[data-submit]")) return;
    event.preventDefault();
    submit();
  });
  form.elements.number.addEventListener("input", tellNumber);
  form.querySelector(".more")?.addEventListener("input", tellChanges);
  form.elements.model.addEventListener("change", () => {
    const fields = [...new FormData(form)].filter(([name]) => !name.startsWith("option."));
    fillWith(fields);
  });
  const opened = sessionStorage.getItem("izograf-opened");
  sessionStorage.removeItem("izograf-opened");
  if (opened) toast(opened);
}
