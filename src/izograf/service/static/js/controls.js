// Small controls of the form. Each wraps an ordinary field, which holds the value.
import { t } from "./text.js";

function button(label, text, run) {
  const made = Object.assign(document.createElement("button"), {
    type: "button", className: "icon-button", textContent: text, title: label,
  });
  made.setAttribute("aria-label", label);
  made.addEventListener("click", run);
  return made;
}

function changed(field) {
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

/** A number with a button for one less and one for one more. */
class Count extends HTMLElement {
  connectedCallback() {
    const field = this.querySelector("input");
    const by = (step) => () => {
      const [low, high] = [Number(field.min), Number(field.max)];
      field.value = Math.min(high, Math.max(low, (Number(field.value) || 0) + step));
      changed(field);
    };
    this.prepend(button(t("generate.js.fewer"), "−", by(-1)));
    this.append(button(t("generate.js.more"), "+", by(1)));
  }
}

/** A seed with dice, and a lock that keeps it for the next pictures. */
class Seed extends HTMLElement {
  connectedCallback() {
    this.field = this.querySelector("input[name=seed]");
    this.lock = this.querySelector("input[name=keep]");
    const dice = this.querySelector("[data-dice]");
    dice.type = "button";
    dice.addEventListener("click", () => this.roll());
  }

  get locked() { return this.lock.checked; }

  roll() {
    const [random] = crypto.getRandomValues(new Uint32Array(1));
    this.field.value = String(random % 100000);
    changed(this.field);
  }
}

/** Adds a slider to every number whose useful range is known; both hold the same value. */
export function addSliders(form) {
  for (const place of form.querySelectorAll("[data-slider]")) {
    const field = place.querySelector("input");
    const [min, max, step] = place.dataset.slider.split(" ");
    const slider = Object.assign(document.createElement("input"), { type: "range", min, max, step });
    slider.tabIndex = -1;  // the field beside it does the same by keyboard
    slider.setAttribute("aria-hidden", "true");
    const follow = () => { slider.value = field.value; };
    slider.addEventListener("input", () => { field.value = slider.value; changed(field); });
    field.addEventListener("input", follow);
    follow();
    place.append(slider);
  }
}

customElements.define("iz-count", Count);
customElements.define("iz-seed", Seed);
