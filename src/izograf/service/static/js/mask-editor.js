// <iz-mask-editor>: marks what is to be repainted in a picture, by mouse, pen, touch or keys.
// The result is a PNG of the picture's own size, white where it is to be repainted, in the form's
// file field. Without scripts that field takes a mask from a file. Markup: _mask_editor.html.
import { Keys } from "./mask-keys.js";
import { Field, decoded, encoded } from "./mask-field.js";
import { History, Mask } from "./mask-raster.js";
import { Pointers, TOOLS } from "./mask-tools.js";
import { View } from "./mask-view.js";
import { t } from "./text.js";

class MaskEditor extends HTMLElement {
  connectedCallback() {
    if (this.stage) return;
    const part = (name) => this.querySelector(`[data-mask="${name}"]`);
    Object.assign(this, {
      stage: part("stage"), layer: part("layer"), picture: part("picture"), paintOn: part("paint"),
      guide: part("guide"), sizeField: part("size"), said: part("said"), spoken: part("spoken"),
      tool: "brush", action: null, mask: null, cursor: null,
    });
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.view = new View(this.stage, this.layer);
    this.field = new Field(part("file"));
    this.field.input.addEventListener("change", () => this.load(this.field.input.files[0]));
    this.field.input.form?.addEventListener("reset", () => {
      this.clear();
      setTimeout(() => this.setSize(this.size));  // the form has reset the slider too by then
    });
    new Pointers(this);
    this.keys = new Keys(this);
    this.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-do]");
      if (button) this.run(button.dataset.do, button.dataset.value);
    });
    this.sizeField.addEventListener("input", () => this.setSize(this.sizeField.valueAsNumber));
    this.picture.addEventListener("load", () => this.begun());
    this.picture.addEventListener("error", () => this.say(t("mask.js.no_picture")));
    const chosen = document.getElementById(this.dataset.pictureField ?? "");
    chosen?.addEventListener("change", () => this.open(chosen.files[0]));
    if (chosen?.files[0]) this.open(chosen.files[0]);
    else if (!this.picture.getAttribute("src")) this.hidden = true;
    else if (this.picture.complete && this.picture.naturalWidth) this.begun();
    this.setTool("brush");
  }

  /** Shows another picture: an address on this service, or a file that the user chose. */
  open(source) {
    URL.revokeObjectURL(this.address ?? "");
    this.address = source instanceof Blob ? URL.createObjectURL(source) : undefined;
    if (source) this.picture.src = this.address ?? source;
    else this.picture.removeAttribute("src");
    this.hidden = !source;
  }

  begun() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    this.hidden = false;
    this.giveUp();
    this.view.show(width, height);
    this.zoomed();
    if (this.mask?.width === width && this.mask.height === height) return;
    const chosen = this.mask ? null : this.field.input.files[0];  // before the picture was there
    this.mask = new Mask(width, height);
    this.history = new History(this.mask);
    this.cursor = [Math.floor(width / 2) + 0.5, Math.floor(height / 2) + 0.5];
    Object.assign(this.paintOn, { width, height });
    this.guide.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.sizeField.max = String(Math.max(8, Math.round(Math.max(width, height) / 2)));
    this.setSize(Math.max(1, Math.round(Math.min(width, height) / 10)));
    if (chosen) this.load(chosen);
    else this.changed();
  }

  // ---- what tools do
  begin(at, erase = false) {
    if (this.tool === "polygon" && this.action) {
      if (this.action.add(at)) this.finish();
    } else this.action = TOOLS[this.tool](this, at, erase);
    this.follow(at);
  }

  move(at) {
    this.action.move(at);
    this.follow(at);
  }

  end(at) {
    if (!this.action || this.tool === "polygon") return;
    this.action.move(at);
    this.finish();
  }

  /** Ends what was begun, as it is. */
  finish() {
    const ended = this.action;
    this.action = null;
    ended?.end();
    this.draw();
  }

  /** Takes back what was begun; of a polygon with `keepShape` only its last corner. */
  giveUp({ keepShape = false } = {}) {
    if (!this.action || (keepShape && this.action.back?.())) return this.draw();
    this.action.giveUp();
    this.action = null;
    return this.draw();
  }

  /** One step of the history, made by a function that gives back the box it changed. */
  change(make) {
    const before = this.mask.data.slice();
    const box = make(this.mask);
    if (!box) return;
    this.paint(box);
    this.keep(before, box);
  }

  keep(before, box) { if (this.history.keep(before, box)) this.changed(); }

  /** Marks from a picture's file; says so where it had another size or is no picture. */
  async load(file) {
    if (!this.mask) return;
    if (!file) { this.changed(); return; }  // the dialog was cancelled: the field keeps the mask
    try {
      const { mask, fitted } = await decoded(file, this.mask.width, this.mask.height);
      this.change((own) => { own.data.set(mask.data); return own.whole; });
      this.changed(mask.data.includes(1) ? (fitted ? t("mask.js.fitted") : "") : t("mask.js.no_white"));
    } catch {
      this.changed(t("mask.js.no_mask"));
    }
  }

  clear() { if (this.mask) this.change((mask) => { mask.data.fill(0); return mask.whole; }); }
  invert() { this.change((mask) => mask.invert()); }

  /** The mask as a PNG file. */
  toFile() { return encoded(this.mask); }

  run(what, value) {
    if (!this.mask) return;
    const step = (which) => {
      if (this.action) { this.giveUp({ keepShape: true }); return; }
      const box = this.history[which]();
      if (box) { this.paint(box); this.changed(); }
    };
    const does = {
      tool: () => this.setTool(value), undo: () => step("undo"), redo: () => step("redo"),
      clear: () => this.clear(), invert: () => this.invert(), close: () => this.finish(),
      alone: () => this.setAlone(!this.classList.contains("is-alone")),
      in: () => this.view.step(1), out: () => this.view.step(-1), fit: () => this.view.fit(),
    };
    does[what]();
    this.zoomed();
  }

  // ---- what is shown
  setTool(tool) {
    this.giveUp();
    this.tool = tool;
    this.dataset.tool = tool;
    for (const button of this.querySelectorAll('[data-do="tool"]')) {
      button.setAttribute("aria-pressed", String(button.dataset.value === tool));
    }
  }

  /** The size of the brush, in pixels of the picture. */
  setSize(size) {
    this.size = Math.min(Number(this.sizeField.max), Math.max(1, Math.round(size)));
    this.sizeField.value = String(this.size);
    const text = t("mask.js.size", { size: this.size });
    this.sizeField.setAttribute("aria-valuetext", text);
    this.querySelector('[data-mask="size-said"]').textContent = text;
    this.draw();
  }

  /** The mask by itself, white on black, or over the picture. */
  setAlone(alone) {
    this.classList.toggle("is-alone", alone);
    this.querySelector('[data-do="alone"]').setAttribute("aria-pressed", String(alone));
    this.paint(this.mask.whole);
  }

  /** Repaints a box of the mask over the picture. */
  paint([left, top, right, bottom]) {
    const context = this.paintOn.getContext("2d");
    context.clearRect(left, top, right - left, bottom - top);
    const image = context.createImageData(right - left, bottom - top);
    const words = new Uint32Array(image.data.buffer);
    const [colour] = new Uint32Array(new Uint8Array([...this.colour(), 255]).buffer);
    for (let y = top, i = 0; y < bottom; y++) {
      for (let x = left; x < right; x++, i++) {
        if (this.mask.data[y * this.mask.width + x]) words[i] = colour;
      }
    }
    context.putImageData(image, left, top);
  }

  /** What marks are painted in, as the style sheet says. */
  colour() {
    const probe = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    probe.fillStyle = getComputedStyle(this.paintOn).color;
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data.slice(0, 3);
  }

  hover(at) {
    if (this.action && at) this.action.move(at);
    this.follow(at);
  }

  follow(at) {
    this.at = at;
    this.draw();
  }

  /** The outline of the brush, of a shape that was begun, and the cursor of the keys. */
  draw() {
    if (!this.mask) return;
    const path = [this.action?.outline ?? ""];
    const ring = ([x, y], r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    const strokes = this.tool === "brush" || this.tool === "eraser";
    const at = this.keys?.active ? this.cursor : this.at;
    if (at && strokes) path.push(ring(at, this.size / 2));
    if (this.keys?.active) {
      const [x, y] = this.cursor;
      const arm = 9 / this.view.zoom;
      path.push(`M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`);
    }
    for (const line of this.guide.children) line.setAttribute("d", path.join(""));
    this.querySelector('[data-do="close"]').hidden = !(this.action?.corners?.length > 2);
  }

  zoomed() {
    this.querySelector('[data-mask="zoom"]').textContent = t("mask.js.zoom", {
      percent: Math.round(this.view.zoom * 100),
    });
    this.draw();
  }

  changed(remark = "") {
    for (const [name, steps] of [["undo", this.history.done], ["redo", this.history.undone]]) {
      // not `disabled`: a button that is pressed until nothing is left keeps the focus, and the keys
      this.querySelector(`[data-do="${name}"]`).setAttribute("aria-disabled", String(!steps.length));
    }
    const share = this.mask.share;
    const percent = Math.round(share * 1000) / 10;
    const said = share ? t("mask.js.share", { percent: percent || "< 0.1" }) : t("mask.js.nothing");
    this.say(remark ? `${remark} ${said}` : said);
    this.field.hold(this.mask, () => {
      this.dispatchEvent(new CustomEvent("iz-mask", { bubbles: true, detail: { share } }));
    });
  }

  say(text) { this.said.textContent = text; }
}

customElements.define("iz-mask-editor", MaskEditor);
