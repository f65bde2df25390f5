// <iz-strip>: a strip of pictures under a slider. Without scripts it is the row of pictures.
import { t } from "./text.js";

class Strip extends HTMLElement {
  connectedCallback() {
    if (this.querySelector("input")) return;
    this.frames = [...this.querySelectorAll(".frames li")];
    this.large = Object.assign(document.createElement("img"), { className: "strip-large picture-image", alt: "" });
    this.slider = Object.assign(document.createElement("input"), {
      type: "range", min: 1, max: this.frames.length, value: 1, ariaLabel: this.getAttribute("label"),
    });
    this.said = Object.assign(document.createElement("output"), { className: "strip-said number" });
    const stage = Object.assign(document.createElement("div"), { className: "strip-stage" });
    stage.append(this.large, this.slider, this.said);
    this.prepend(stage);
    this.slider.addEventListener("input", () => this.show(this.slider.valueAsNumber));
    for (const [i, frame] of this.frames.entries()) {
      frame.addEventListener("pointerenter", () => this.show(i + 1));
      frame.addEventListener("focusin", () => this.show(i + 1));
    }
    this.show(1);
  }

  show(number) {
    const image = this.frames[number - 1].querySelector("img");
    const { width } = this.frames[number - 1].querySelector("[data-picture]").dataset;
    const scale = Math.max(1, Math.floor(384 / Number(width)));
    this.large.src = image.src;
    this.large.alt = image.alt;
    this.large.width = Number(width) * scale;
    this.slider.value = number;
    const words = t("picture.js.frame", { n: number, count: this.frames.length });
    this.slider.setAttribute("aria-valuetext", words);
    this.said.textContent = words;
    this.frames.forEach((frame, i) => frame.classList.toggle("is-shown", i === number - 1));
  }
}
customElements.define("iz-strip", Strip);
