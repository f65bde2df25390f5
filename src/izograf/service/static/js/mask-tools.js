// What a hand does on the stage of the mask editor, by mouse, pen, touch and keys alike: each tool
// begins at a place, moves and ends. All places are in pixels of the picture.
import { joined } from "./mask-raster.js";

const NEAR = 10;  // CSS pixels from a polygon's first corner that close it

/** A stroke, of the brush or the eraser. */
class Stroke {
  constructor(editor, at, value) {
    Object.assign(this, { editor, value, last: this.#snap(editor, at), before: editor.mask.data.slice() });
    this.move(at);
  }

  #snap(editor, [x, y]) {
    return editor.size < 2 ? [Math.floor(x) + 0.5, Math.floor(y) + 0.5] : [x, y];
  }

  move(at) {
    const next = this.#snap(this.editor, at);
    const box = this.editor.mask.line(this.last, next, this.editor.size, this.value);
    this.last = next;
    this.box = joined(this.box, box);
    if (box) this.editor.paint(box);
  }

  end() { if (this.box) this.editor.keep(this.before, this.box); }

  giveUp() {
    this.editor.mask.data.set(this.before);
    if (this.box) this.editor.paint(this.box);
  }
}

class Rectangle {
  constructor(editor, at, value) { Object.assign(this, { editor, value, from: at, to: at }); }
  move(at) { this.to = at; }
  end() { this.editor.change((mask) => mask.rectangle(this.from, this.to, this.value)); }
  giveUp() {}

  get outline() {
    const [[ax, ay], [bx, by]] = [this.from, this.to];
    return `M${ax} ${ay}H${bx}V${by}H${ax}Z`;
  }
}

/** Grows by one corner at a time, and ends when it is closed. */
class Polygon {
  constructor(editor, at, value) { Object.assign(this, { editor, value, corners: [at], to: at }); }

  move(at) { this.to = at; }

  /** Adds a corner; true if that closed the shape. */
  add(at) {
    const reach = NEAR / this.editor.view.zoom;
    const near = ([x, y]) => Math.hypot(x - at[0], y - at[1]) <= reach;
    if (this.corners.length > 2 && (near(this.corners[0]) || near(this.corners.at(-1)))) return true;
    this.corners.push(at);
    return false;
  }

  /** Takes the last corner back; false if none is left. */
  back() { return this.corners.pop() !== undefined && this.corners.length > 0; }

  end() {
    if (this.corners.length > 2) this.editor.change((mask) => mask.polygon(this.corners, this.value));
  }

  giveUp() {}

  get outline() {
    const path = [...this.corners, this.to].map(([x, y]) => `${x} ${y}`).join("L");
    const [x, y] = this.corners[0];
    const r = NEAR / 2 / this.editor.view.zoom;
    return `M${path}M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`;
  }
}

export const TOOLS = {
  brush: (editor, at, erase) => new Stroke(editor, at, erase ? 0 : 1),
  eraser: (editor, at) => new Stroke(editor, at, 0),
  rectangle: (editor, at, erase) => new Rectangle(editor, at, erase ? 0 : 1),
  polygon: (editor, at, erase) => new Polygon(editor, at, erase ? 0 : 1),
};

/** Pointers on the stage: one draws, two move and zoom, the middle button and the hand pan. */
export class Pointers {
  constructor(editor) {
    Object.assign(this, { editor, down: new Map(), panning: false });
    const { stage } = editor;
    stage.addEventListener("pointerdown", (event) => this.#begin(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#end(event));
    stage.addEventListener("pointercancel", (event) => this.#end(event, true));
    stage.addEventListener("pointerleave", () => editor.hover(null));
    stage.addEventListener("mousedown", (event) => {
      if (event.button === 1) event.preventDefault();  // the browser's own scrolling
    });
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  #begin(event) {
    const { editor } = this;
    if (!editor.mask || event.button === 2 || event.target.closest("button")) return;
    event.preventDefault();
    editor.stage.focus({ preventScroll: true });
    editor.stage.setPointerCapture(event.pointerId);
    this.down.set(event.pointerId, event);
    if (this.down.size > 1) {  // a second finger: what the first began was no stroke
      editor.giveUp({ keepShape: true });
      this.panning = true;
    } else if (event.button === 1 || editor.tool === "hand") this.panning = true;
    else editor.begin(editor.view.place(event), event.shiftKey || event.button === 5);
  }

  #move(event) {
    const { editor } = this;
    if (!editor.mask) return;
    const last = this.down.get(event.pointerId);
    if (this.panning && last) this.#gesture(last, event);
    else if (last && editor.action) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) editor.move(editor.view.place(part));
    } else editor.hover(editor.view.place(event));
    if (last) this.down.set(event.pointerId, event);
  }

  #gesture(last, event) {
    const { view } = this.editor;
    const others = [...this.down.values()].filter((one) => one.pointerId !== event.pointerId);
    const share = 1 / (others.length + 1);
    view.pan((event.clientX - last.clientX) * share, (event.clientY - last.clientY) * share);
    if (!others.length) return;
    const far = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
    const at = {
      clientX: (event.clientX + others[0].clientX) / 2, clientY: (event.clientY + others[0].clientY) / 2,
    };
    if (far(last) > 0) view.zoomTo((view.zoom * far(event)) / far(last), at);
    this.editor.zoomed();
  }

  #end(event, broken = false) {
    if (!this.down.delete(event.pointerId)) return;
    const { editor } = this;
    if (!this.panning) {
      if (broken) editor.giveUp({ keepShape: true });
      else editor.end(editor.view.place(event));
    }
    if (!this.down.size) this.panning = false;
  }

  #wheel(event) {
    if (!(event.ctrlKey || event.metaKey) || !this.editor.mask) return;  // else the page scrolls
    event.preventDefault();
    const { view } = this.editor;
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    view.zoomTo(view.zoom * 2 ** (-Math.max(-100, Math.min(100, pixels)) / 200), event);
    this.editor.zoomed();
  }
}
