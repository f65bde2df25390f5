// <iz-job>: one job, live.
import { ask, fragment, toast } from "./api.js";
import { FINAL, GONE, follow } from "./events.js";
import { duration, localTimes, t } from "./text.js";

const MOST_FRAMES = 8;
const POLL_MILLISECONDS = 2000;

class Job extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", (event) => {
      if (!event.target.closest("[data-dismiss]")) return;
      event.preventDefault();
      this.remove();
    });
    if (!FINAL.includes(this.dataset.status)) {
      this.unfollow = follow(this.dataset.job, (kind, data) => this.happened(kind, data));
    }
    if (this.dataset.status === "queued") this.watchQueue();
  }

  disconnectedCallback() {
    this.unfollow?.();
    clearTimeout(this.timer);
    clearInterval(this.watching);
  }

  get url() { return `/api/v1/jobs/${this.dataset.job}`; }

  happened(kind, data) {
    if (kind === "step" || kind === "preview") this.stepped(data);
    else if (kind === "started") this.say(t("generate.js.running"), t("generate.js.preparing"));
    else if (kind === "retried") this.restarted(data);
    else if (kind === GONE) this.remove();
    else if (FINAL.includes(kind)) this.ended();
  }

  stepped({ step, num_steps: numSteps, png }) {
    this.say(t("generate.js.running"), t("generate.js.step", { step, num_steps: numSteps }));
    const bar = this.querySelector("[data-progress]");
    if (bar) { bar.max = numSteps; bar.value = step; }
    if (png) this.develop(png, step);
  }

  /** The newest preview stands large, those before it as a strip of film. */
  develop(png, step) {
    const [now, film] = [this.querySelector("[data-now]"), this.querySelector("[data-film]")];
    if (!now) return;
    const before = now.querySelector("img");
    const image = document.createElement("img");
    image.src = `data:image/png;base64,${png}`;
    image.alt = t("generate.js.preview", { step });
    image.dataset.step = step;
    now.replaceChildren(image);
    if (!before?.dataset.step) return;
    const frame = document.createElement("li");
    before.alt = "";
    frame.append(before, before.dataset.step);
    film.append(frame);
    while (film.children.length > MOST_FRAMES) film.children[1].remove();
  }

  restarted({ reason }) {
    this.say(t("generate.js.waiting"), t("generate.js.again", { reason: reason ?? "" }));
    this.querySelector("[data-film]")?.replaceChildren();
    this.querySelector("[data-now]")?.replaceChildren();
    const bar = this.querySelector("[data-progress]");
    if (bar) bar.value = 0;
  }

  /** State and detail; the icon before them is the server's, so the word changes with it. */
  say(state, detail) {
    const place = this.querySelector("[data-state]");
    if (!place) return;
    const word = place.querySelector(".status");
    const text = [...word.childNodes].find((node) => node.nodeType === Node.TEXT_NODE);
    if (text && text.data !== state) text.data = state;
    const running = state === t("generate.js.running");
    word.className = `live-status status status-${running ? "running" : "queued"}`;
    if (running) clearInterval(this.watching);
    const rest = place.querySelector(".status + span");
    if (rest.textContent.trim() !== detail) rest.textContent = detail;
  }

  watchQueue() {
    this.watching = setInterval(async () => {
      if (document.hidden) return;
      try {
        const job = await ask(this.url);
        if (job.status !== "queued" || !job.queue_position) return;
        const each = Number(this.dataset.each);
        const place = t("generate.js.position", { position: job.queue_position });
        const about = each
          ? `, ${t("generate.js.about", { duration: duration(each * job.queue_position) })}` : "";
        this.say(t("generate.js.waiting"), place + about);
      } catch { /* the stream says what is wrong */ }
    }, POLL_MILLISECONDS);
  }

  async ended() {
    clearInterval(this.watching);
    clearTimeout(this.timer);
    try {
      const piece = await fragment(`/jobs/${this.dataset.job}/card`);
      const detail = { job: this.dataset.job, piece, from: this };
      localTimes(piece);
      const event = new CustomEvent("iz-ended", { detail, bubbles: true, cancelable: true });
      if (this.dispatchEvent(event)) this.replaceWith(piece);
    } catch (error) {
      toast(t("common.js.failed", { reason: error.message }));
      this.wait = Math.min((this.wait ?? 500) * 2, 15000);
      this.timer = setTimeout(() => this.ended(), this.wait);
    }
  }
}
customElements.define("iz-job", Job);

// Forms that the interface can answer: cancel without leaving the page.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset?.api || !form.closest("iz-job")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await ask(form.dataset.api, { method: form.dataset.method });
  } catch (error) {
    button.disabled = false;
    toast(t("common.js.failed", { reason: error.message }));
  }
});
