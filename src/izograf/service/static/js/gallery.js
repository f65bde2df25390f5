// The gallery: choosing many, deleting with a way back, more pictures while scrolling.
import { ask, toast } from "./api.js";
import { t } from "./text.js";
import { sizePictures } from "./app.js";

const sheet = document.querySelector("[data-gallery-sheet]");
const form = document.getElementById("selection");
const count = form?.querySelector("[data-count]");
let last = null;

const boxes = () => [...sheet.querySelectorAll(".pick input")];
const chosen = () => boxes().filter((box) => box.checked);
const figureOf = (element) => element?.closest?.("[data-picture]") ?? null;

function showCount() {
  const number = chosen().length;
  count.textContent = number ? t("gallery.js.chosen", { count: number }) : "";
  sheet.classList.toggle("is-choosing", number > 0);
}

/** Chooses everything between the last box that was used and this one, as it was set. */
function chooseRange(box) {
  const all = boxes();
  const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
  if (from < 0) return;
  for (const each of all.slice(from, to + 1)) each.checked = box.checked;
}

async function remove(figures) {
  const ids = figures.map((figure) => figure.dataset.picture);
  const marks = figures.map((figure) => {
    const mark = document.createComment("");
    figure.before(mark);
    return mark;
  });
  const all = [...sheet.querySelectorAll("[data-picture]")];
  const next = all.slice(all.indexOf(figures.at(-1)) + 1).find((f) => !figures.includes(f))
    ?? all.find((f) => !figures.includes(f));
  try {
    await ask("/api/v1/images/delete", { method: "POST", body: { ids } });
  } catch (error) {
    toast(t("gallery.js.failed", { reason: error.message }));
    return;
  }
  for (const figure of figures) {
    const box = figure.querySelector(".pick input");
    if (box) box.checked = false;
    figure.remove();
  }
  next?.querySelector("a").focus();
  showCount();
  toast(t("gallery.js.deleted", { count: ids.length }), {
    label: t("gallery.js.undo"),
    run: async () => {
      try {
        await ask("/api/v1/images/restore", { method: "POST", body: { ids } });
        marks.forEach((mark, i) => mark.replaceWith(figures[i]));
        figures[0].querySelector("a").focus();
        toast(t("gallery.js.restored"));
      } catch (error) {
        toast(t("gallery.js.failed", { reason: error.message }));
      }
    },
  });
}

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) return;
  if (document.querySelector("dialog[open]")) return;
  const figure = figureOf(event.target);
  const box = figure?.querySelector(".pick input");
  if (event.key === "1") {
    document.querySelector('[data-view="true-size"]')?.click();
  } else if (event.key === "ArrowRight" && event.target === document.body) {
    sheet.querySelector("a")?.focus();
  } else if (event.key === "x" && box) {
    box.checked = !box.checked;
    last = box;
    showCount();
  } else if (event.key === "X" && box) {
    box.checked = true;
    chooseRange(box);
    showCount();
  } else if (event.key === "Delete" && !sheet.classList.contains("is-deleted")) {
    const figures = chosen().length ? chosen().map(figureOf) : [figure].filter(Boolean);
    if (figures.length) remove(figures);
  } else if (event.key === "Escape" && chosen().length) {
    form.reset();
  } else {
    return;
  }
  event.preventDefault();
}

/** Appends the next page of the sheet, as the server makes it. */
async function readMore(link) {
  if (link.ariaBusy) return;
  link.ariaBusy = "true";
  const response = await fetch(link.href, { headers: { Accept: "text/html" } });
  if (!response.ok) { link.ariaBusy = null; return; }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = [...page.querySelectorAll("[data-gallery-sheet] > [data-picture]")];
  const focused = document.activeElement === link;
  const added = fresh.map((figure) => document.importNode(figure, true));
  sheet.append(...added);
  sizePictures(sheet);
  if (focused) added[0]?.querySelector("a").focus();
  const place = link.parentElement;
  const further = page.querySelector(".further");
  if (further) place.replaceWith(document.importNode(further, true));
  else place.remove();
  watchMore();
}

function watchMore() {
  const link = document.querySelector("[data-more]");
  if (!link) return;
  link.addEventListener("click", (event) => { event.preventDefault(); readMore(link); });
  new IntersectionObserver((seen, watcher) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    watcher.disconnect();
    readMore(link);
  }, { rootMargin: "400px" }).observe(link);
}

if (sheet) {
  if (form) {
    sheet.addEventListener("click", (event) => {
      if (!event.target.matches(".pick input")) return;
      if (event.shiftKey && last) chooseRange(event.target);
      last = event.target;
      showCount();
    });
    form.addEventListener("reset", () => setTimeout(showCount));
    form.addEventListener("submit", (event) => {
      if (event.submitter?.value !== "delete") return;
      event.preventDefault();
      remove(chosen().map(figureOf));
    });
    showCount();
  }
  document.addEventListener("keydown", onKey);
  watchMore();
}
