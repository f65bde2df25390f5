// Sections that show a job: read again from the server when the job has ended. The server alone
// writes what they say; forms marked `data-in-place` change only their section of the page.
import { toast } from "./api.js";
import { FINAL, GONE, follow } from "./events.js";
import { localTimes, t } from "./text.js";
import { sizePictures } from "./app.js";

const listening = new Set();

/** Puts the section `id` of another version of this page in place of ours. */
function replaceSection(page, id) {
  const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
  if (!old || !fresh) return;
  const focused = old.contains(document.activeElement);
  // what announces changes must stay the same element, so its content is exchanged
  const [said, news] = [old.querySelector("[aria-live]"), fresh.querySelector("[aria-live]")];
  if (said && news && said.parentElement === old && news.parentElement === fresh) {
    const kept = [...fresh.childNodes].map((node) => (node === news ? said : document.importNode(node, true)));
    said.replaceChildren(...[...news.childNodes].map((node) => document.importNode(node, true)));
    old.replaceChildren(...kept);
  } else {
    old.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  }
  if (focused) old.querySelector("button, a, input, select")?.focus();
  localTimes(old);
  sizePictures(old);
  document.dispatchEvent(new CustomEvent("iz-section", { detail: old }));
  watch();
}

async function readAgain(id) {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) {
    toast(t("common.js.failed", { reason: response.statusText }));
    return;
  }
  replaceSection(new DOMParser().parseFromString(await response.text(), "text/html"), id);
}

/** Listens to every job on the page that is not listened to yet. */
export function watch() {
  for (const place of document.querySelectorAll("[data-job]")) {
    const job = place.dataset.job;
    if (listening.has(job)) continue;
    const section = place.closest("[data-live]").id;
    listening.add(job);
    follow(job, (kind, { step, num_steps: total }) => {
      const bar = document.querySelector(`[data-job="${job}"] progress`);
      if (bar && total) { bar.max = total; bar.value = step; }
      if (kind !== GONE && !FINAL.includes(kind)) return;
      listening.delete(job);
      readAgain(section);
    });
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-in-place]");
  if (!form || event.defaultPrevented) return;
  event.preventDefault();
  const id = form.dataset.inPlace;
  const buttons = form.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const problem = page.querySelector('[role="alert"]');
    if (!response.ok) throw new Error(problem?.textContent.trim() || response.statusText);
    const url = new URL(response.url);
    const here = new URL(location.href);
    const search = id === "rows" ? url.searchParams : here.searchParams;
    for (const [name, value] of url.searchParams) if (id !== "rows") search.set(name, value);
    history.replaceState(null, "", `${here.pathname}?${search}#${id}`);
    replaceSection(page, id);
  } catch (error) {
    toast(t("common.js.failed", { reason: error.message }));
  } finally {
    for (const button of buttons) button.disabled = false;
  }
});
watch();
