// What happens to the jobs of a page, all in one stream: a browser opens six connections to a host,
// over all its tabs, and a stream keeps one. A tab that nobody sees therefore asks now and then.
import { connection } from "./app.js";
import { ask } from "./api.js";

export const FINAL = ["done", "failed", "cancelled", "dead"];
export const GONE = "gone";
const KINDS = ["queued", "started", "step", "preview", "retried", ...FINAL, GONE];
const [SHORTEST, LONGEST, UNSEEN] = [500, 15000, 5000];

const followed = new Set();
let [source, timer, wait] = [null, null, SHORTEST];

/**
 * Calls `hear(kind, data)` for every event of the job, each once and in order; the last one is one
 * of FINAL, or GONE. Answers a function that ends it.
 */
export function follow(job, hear) {
  const own = { job, hear, last: 0 };
  followed.add(own);
  connect(0);
  return () => { if (followed.delete(own) && !followed.size) close(); };
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function connect(delay) {
  clearTimeout(timer);
  timer = setTimeout(open, delay);
}

function open() {
  close();
  if (!followed.size) return;
  if (document.hidden) { look(); return; }
  const known = new Map();
  for (const { job, last } of followed) known.set(job, Math.min(last, known.get(job) ?? last));
  const query = new URLSearchParams([...known].map(([job, last]) => ["job", `${job}:${last}`]));
  source = new EventSource(`/api/v1/events?${query}`);
  source.onopen = () => { wait = SHORTEST; connection(false); };
  source.onerror = () => { close(); look(); };
  for (const kind of KINDS) source.addEventListener(kind, (event) => happened(kind, event));
}

function happened(kind, event) {
  const data = JSON.parse(event.data);
  const number = kind === GONE ? Infinity : Number(event.lastEventId);
  for (const own of [...followed]) {
    if (own.job !== data.job || number <= own.last) continue;
    own.last = number;
    tell(own, kind, data);
  }
  if (!followed.size) close();
}

function tell(own, kind, data = {}) {
  if (kind === GONE || FINAL.includes(kind)) followed.delete(own);
  own.hear(kind, data);
}

/** Asks how each job is: streams can end before we learn of it. Then connects again. */
async function look() {
  for (const own of [...followed]) {
    try {
      const { status } = await ask(`/api/v1/jobs/${own.job}`);
      connection(false);
      if (FINAL.includes(status) && followed.has(own)) tell(own, status);
    } catch (error) {
      if (error.status === 404) {
        tell(own, GONE);
      } else {
        connection(true);
        break;
      }
    }
  }
  wait = Math.min(2 * wait, LONGEST);
  if (followed.size) connect(document.hidden ? UNSEEN : wait);
}

document.addEventListener("visibilitychange", () => { if (followed.size) connect(0); });
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => { if (event.persisted && followed.size) connect(0); });
