// The queue, fetched again every few seconds; the focus stays where it was.
import { connection } from "./app.js";
import { fragment } from "./api.js";
import { localTimes } from "./text.js";

const EVERY = 2000;

/** Where the focus is, in words that hold after the refresh. */
function focused() {
  return document.activeElement?.closest("form")?.getAttribute("action") ?? null;
}

async function refresh() {
  if (document.hidden || document.querySelector("dialog[open]")) return;
  try {
    const [old, fresh] = [document.querySelector("[data-queue]"), await fragment("/queue/state")];
    localTimes(fresh);
    connection(false);
    if (fresh.innerHTML === old.innerHTML) return;
    const action = focused();
    old.replaceWith(fresh);
    if (action) fresh.querySelector(`form[action="${CSS.escape(action)}"] button`)?.focus();
  } catch (error) {
    if (error instanceof TypeError || error.status >= 500) connection(true);
  }
}
setInterval(refresh, EVERY);
