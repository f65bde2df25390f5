// Every page: keys, theme, favourites, the picture seen large, the connection.
import { ask, toast } from "./api.js";
import { localTimes, t } from "./text.js";

const root = document.documentElement;
root.dataset.script = "";
localTimes();

// ---- theme: the links work without us, at once with us
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-theme-choice]");
  if (!link) return;
  event.preventDefault();
  root.dataset.theme = link.dataset.themeChoice;
  document.cookie = `izograf_theme=${link.dataset.themeChoice}; path=/; max-age=31536000; samesite=lax`;
  for (const other of document.querySelectorAll("[data-theme-choice]")) {
    other.toggleAttribute("aria-current", false);
  }
  link.setAttribute("aria-current", "true");
});

// ---- how pictures are shown; the choice stays in this browser
const VIEWS = { "true-size": "trueSize", pixelated: "pixelated" };

function showView(name, on) {
  root.toggleAttribute(`data-${name}`, on);
  for (const button of document.querySelectorAll(`[data-view="${name}"]`)) {
    button.setAttribute("aria-pressed", String(on));
  }
  if (name === "true-size") sizePictures(document);
}

function setView(name, on) {
  showView(name, on);
  try { localStorage.setItem(`izograf-${name}`, on ? "1" : ""); } catch { /* private window */ }
}

/** Pictures at the size the page chose, or one pixel for one. */
export function sizePictures(place) {
  const real = root.hasAttribute("data-true-size");
  for (const figure of place.querySelectorAll("[data-picture]")) {
    const image = figure.querySelector("img");
    image.dataset.shown ??= image.getAttribute("width");
    const shown = Number(image.dataset.shown);
    const width = Number(figure.dataset.width);
    image.width = real ? width : shown;
    image.height = Math.round((image.width * figure.dataset.height) / width);
  }
}

for (const name of Object.keys(VIEWS)) {
  let kept = "";
  try { kept = localStorage.getItem(`izograf-${name}`) ?? ""; } catch { /* private window */ }
  if (kept) showView(name, true);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-view]");
  if (button) setView(button.dataset.view, !root.hasAttribute(`data-${button.dataset.view}`));
});

// ---- favourites without leaving the page
async function toggleFavourite(button) {
  const id = button.closest("[data-picture]").dataset.picture;
  const favourite = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(favourite));
  try {
    await ask(`/api/v1/images/${id}`, { method: "PATCH", body: { favourite } });
    const field = button.form?.elements.favourite;
    if (field) field.value = favourite ? "no" : "yes";
    toast(t(favourite ? "common.js.favourite_on" : "common.js.favourite_off"));
    document.dispatchEvent(new CustomEvent("iz-favourite", { detail: { id, favourite } }));
  } catch (error) {
    button.setAttribute("aria-pressed", String(!favourite));
    toast(t("common.js.failed", { reason: error.message }));
  }
}
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector?.("[data-favourite]");
  if (!button || !button.closest("[data-picture]")) return;
  event.preventDefault();
  toggleFavourite(button);
});

// ---- the picture large
const viewer = document.getElementById("viewer");
let seen = null;

function fit() {
  if (!seen || !viewer.open) return;
  const image = viewer.querySelector("[data-viewer-image]");
  const [width, height] = [Number(seen.dataset.width), Number(seen.dataset.height)];
  const room = Math.min((innerWidth - 32) / width, (innerHeight - 96) / height);
  const factor = root.hasAttribute("data-true-size") ? 1 : room >= 1 ? Math.floor(room) : room;
  image.width = Math.round(width * factor);
  image.height = Math.round(height * factor);
}

function view(figure) {
  seen = figure;
  const [small, image] = [figure.querySelector("img"), viewer.querySelector("[data-viewer-image]")];
  image.src = small.currentSrc || small.src;
  image.alt = small.alt;
  viewer.querySelector("[data-viewer-caption]").textContent = t("common.js.caption", {
    what: small.alt, width: figure.dataset.width, height: figure.dataset.height,
  });
  viewer.querySelector("[data-viewer-page]").href = `/images/${figure.dataset.picture}`;
  if (!viewer.open) viewer.showModal();
  fit();
}
addEventListener("resize", fit);
viewer.addEventListener("close", () => seen?.querySelector("a")?.focus());
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

// ---- keys
const FIELDS = "input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function currentPicture() {
  if (viewer.open) return seen;
  return document.activeElement?.closest?.("[data-picture]") ?? null;
}

/** The picture beside `figure`: the next in reading order, or the nearest in the row above, below. */
function neighbour(figure, [dx, dy]) {
  const all = [...document.querySelectorAll("[data-picture]")].filter((f) => f.offsetParent);
  const place = all.indexOf(figure);
  if (dx) return all[place + dx];
  const box = figure.getBoundingClientRect();
  const away = (other) => {
    const far = other.getBoundingClientRect();
    return Math.abs(far.top - box.top) * 4 + Math.abs(far.left - box.left);
  };
  const rows = all.filter((other) => {
    const { top } = other.getBoundingClientRect();
    return dy > 0 ? top > box.top + 8 : top < box.top - 8;
  });
  return rows.sort((a, b) => away(a) - away(b))[0];
}

function move(figure, step) {
  const next = neighbour(figure, step);
  if (!next) return;
  if (viewer.open) view(next);
  else next.querySelector("a").focus();
}

function openKeys() {
  const keys = document.getElementById("keys");
  if (!keys.open) keys.showModal();
}

function search() {
  const field = document.querySelector("input[type=search]");
  if (field) field.focus();
  else location.assign("/gallery?search=1");
}

function generate() {
  const first = document.querySelector("[data-composer] input:checked, [data-composer] input");
  if (first) first.focus();
  else location.assign("/");
}

const KEYS = {
  g: generate,
  "/": search,
  "?": openKeys,
  t: () => { setView("true-size", !root.hasAttribute("data-true-size")); fit(); },
  p: () => setView("pixelated", !root.hasAttribute("data-pixelated")),
};
const PICTURE_KEYS = {
  " ": (figure) => (viewer.open ? viewer.close() : view(figure)),
  f: (figure) => { const b = figure.querySelector("[data-favourite]"); if (b) toggleFavourite(b); },
  d: (figure) => figure.querySelector("[data-download]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches?.(FIELDS) || event.target.isContentEditable) return;
  const busy = document.querySelector("dialog[open]");
  if (busy && busy !== viewer) return;
  const figure = currentPicture();
  const onButton = event.target.closest?.("button, summary, input");
  if (figure && event.key in ARROWS && !event.target.matches?.("input")) {
    event.preventDefault();
    move(figure, ARROWS[event.key]);
  } else if (figure && event.key in PICTURE_KEYS && !(event.key === " " && onButton && !viewer.open)) {
    event.preventDefault();
    PICTURE_KEYS[event.key](figure);
  } else if (event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("[data-help]") && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    openKeys();
  }
});

// ---- the connection
const banner = document.querySelector("[data-offline]");

/** Shows or hides the banner; `iz-job` calls it when a stream breaks. */
export function connection(lost) {
  if (banner.hidden === !lost) return;
  banner.hidden = !lost;
  if (!lost) toast(t("common.js.back"));
}
addEventListener("offline", () => connection(true));
addEventListener("online", () => connection(false));
