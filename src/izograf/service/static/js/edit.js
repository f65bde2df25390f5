// The page that edits pictures: the chosen file and the painted mask outlive every answer of the
// server, so only the order beside them is exchanged.
import { toast } from "./api.js";
import { t } from "./text.js";

const form = document.querySelector(".edit-form");

function exchange(page, selector) {
  const fresh = page.querySelector(selector);
  if (fresh) form.querySelector(selector).replaceChildren(...document.importNode(fresh, true).childNodes);
}

async function pageOf(response) {
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** Another model has other options: the form for it, with what was typed. */
async function changeModel() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && value && !name.startsWith("option.")) query.set(name, value);
  }
  const response = await fetch(`/edit?${query}`, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Error(response.statusText);
  exchange(await pageOf(response), ".edit-order");
  form.querySelector("#model").focus();
}

async function send() {
  const button = form.querySelector(".submit");
  button.disabled = true;
  try {
    const body = new FormData(form);
    const response = await fetch("/edit", { method: "POST", body, headers: { Accept: "text/html" } });
    if (response.ok) {
      location.assign(response.url);
      return;
    }
    const page = await pageOf(response);
    if (!page.querySelector(".edit-form")) {  // a page of its own, for a file that is too large, say
      throw new Error(page.querySelector("h1")?.textContent.trim() || response.statusText);
    }
    exchange(page, ".edit-order");
    exchange(page, ".edit-errors");
    form.querySelector(".edit-errors").focus();
  } finally {
    form.querySelector(".submit").disabled = false;
  }
}

function failed(error) { toast(t("common.js.failed", { reason: error.message })); }

form?.addEventListener("change", (event) => {
  if (event.target.id === "model") changeModel().catch(failed);
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  send().catch(failed);
});
