// <iz-compare>: two pictures over each other, a line between them that moves by pointer and keys.
// Without scripts the two stand side by side.
class Compare extends HTMLElement {
  connectedCallback() {
    if (this.slider) return;
    [this.left, this.right] = this.querySelectorAll(".overlay-stage figure");
    this.stage = this.querySelector(".overlay-stage");
    this.slider = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: 100, value: 50, className: "overlay-slider",
      ariaLabel: this.getAttribute("label"),
    });
    this.line = Object.assign(document.createElement("span"), { className: "overlay-line", ariaHidden: "true" });
    this.stage.append(this.line, this.slider);
    this.classList.add("is-over");
    this.slider.addEventListener("input", () => this.show());
    this.show();
  }

  /** What lies left and right: each an <img> to take after, and its model's name. */
  lay(left, right) {
    for (const [figure, [image, name]] of [[this.left, left], [this.right, right]]) {
      const own = figure.querySelector("img");
      own.src = image.src;
      own.alt = `${name}: ${image.alt}`;
      figure.querySelector("figcaption").textContent = name;
    }
  }

  show() {
    const share = this.slider.valueAsNumber;
    this.slider.setAttribute("aria-valuetext", `${share} %`);
    this.left.querySelector("img").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    this.line.style.left = `${share}%`;
  }
}
customElements.define("iz-compare", Compare);
