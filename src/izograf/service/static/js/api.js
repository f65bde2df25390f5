// Requests to the service, errors as sentences, and short messages at the edge of the page.
import { t } from "./text.js";

export class Refused extends Error {
  constructor(message, status, problem = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

/** The JSON that the service answers (null for an empty answer). Throws `Refused` with a sentence. */
export async function ask(url, { method = "GET", body, headers = {}, signal } = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers }, signal };
  if (body instanceof Blob) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(t("common.js.unreachable"), 0);
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null;
  }
  if (!response.ok) {
    throw new Refused(answer?.detail ?? response.statusText, response.status, answer ?? {});
  }
  return answer;
}

/** A piece of a page, made by the server. */
export async function fragment(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Refused(response.statusText, response.status);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return document.importNode(page.body.firstElementChild, true);
}

/** Says `message` for some seconds, with one thing that can be done about it. */
export function toast(message, action = null) {
  const place = document.querySelector("[data-toasts]");
  const box = document.createElement("div");
  box.className = "toast";
  box.append(Object.assign(document.createElement("span"), { textContent: message }));
  if (action) {
    const button = Object.assign(document.createElement("button"), {
      type: "button", textContent: action.label,
    });
    button.addEventListener("click", () => { box.remove(); action.run(); });
    box.append(button);
  }
  place.replaceChildren(box);
  setTimeout(() => box.remove(), action ? 10000 : 4000);
}
