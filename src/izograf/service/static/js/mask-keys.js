// The keys of the mask editor's stage: a cursor that the arrows move, and what the tools do there.
import { t } from "./text.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LETTERS = { b: "brush", e: "eraser", r: "rectangle", p: "polygon", h: "hand" };

export class Keys {
  constructor(editor) {
    Object.assign(this, { editor, active: false, holding: false });
    const { stage } = editor;
    stage.addEventListener("keydown", (event) => this.#stageKey(event));
    stage.addEventListener("keyup", (event) => { if (event.key === " ") this.#release(); });
    stage.addEventListener("blur", () => { this.#release(); this.#show(false); });
    stage.addEventListener("pointerdown", () => { this.#release(); this.#show(false); }, true);
    editor.addEventListener("keydown", (event) => this.#editorKey(event));
  }

  #show(active) {
    if (this.active === active) return;
    this.active = active;
    this.editor.draw();
  }

  /** What works wherever the focus is in the editor. */
  #editorKey(event) {
    if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();  // not sent
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    this.editor.run(key === "y" || event.shiftKey ? "redo" : "undo");
  }

  #stageKey(event) {
    const { editor } = this;
    if (!editor.mask || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = this.#meaning(event);
    if (!does) return;
    event.preventDefault();
    does();
  }

  #meaning(event) {
    const { editor } = this;
    const { key } = event;
    const lower = key.length === 1 ? key.toLowerCase() : key;
    if (key in ARROWS) return () => this.#arrow(ARROWS[key], event.shiftKey);
    if (lower in LETTERS) return () => editor.run("tool", LETTERS[lower]);
    const meanings = {
      " ": () => { if (!event.repeat) this.#press(event.shiftKey); },
      "+": () => editor.setSize(Math.max(editor.size + 1, editor.size * 1.2)),
      "-": () => editor.setSize(Math.min(editor.size - 1, editor.size / 1.2)),
      z: () => this.#zoom("in"), x: () => this.#zoom("out"), 0: () => this.#zoom("fit"),
      i: () => editor.run("invert"), m: () => editor.run("alone"), Delete: () => editor.run("clear"),
    };
    meanings["="] = meanings["+"];
    if (editor.action) {
      meanings.Escape = () => editor.giveUp();
      meanings.Backspace = () => editor.giveUp({ keepShape: true });
      meanings.Enter = () => editor.finish();
    }
    return meanings[lower];
  }

  #zoom(what) {
    this.editor.run(what);
    if (what !== "fit") this.editor.view.reveal(this.editor.cursor);
  }

  #arrow([dx, dy], fine) {
    const { editor } = this;
    const { width, height } = editor.mask;
    const step = fine ? 1 : Math.max(1, Math.round(editor.size / 2));
    const moved = (at, by, room) => Math.min(room - 0.5, Math.max(0.5, at + by * step));
    editor.cursor = [moved(editor.cursor[0], dx, width), moved(editor.cursor[1], dy, height)];
    editor.view.reveal(editor.cursor);
    if (editor.action) editor.action.move(editor.cursor);
    this.active = true;
    editor.draw();
    this.#speak();
  }

  /** Space: a stroke while it is held, the first or second corner of a rectangle, a polygon's next. */
  #press(erase) {
    const { editor } = this;
    this.#show(true);
    if (editor.tool === "hand") return;
    if (editor.tool === "rectangle" && editor.action) editor.end(editor.cursor);
    else {
      editor.begin(editor.cursor, erase);
      this.holding = editor.tool === "brush" || editor.tool === "eraser";
    }
    this.#speak();
  }

  #release() {
    if (!this.holding) return;
    this.holding = false;
    this.editor.finish();
  }

  #speak() {
    const { cursor, mask, spoken } = this.editor;
    const place = { x: Math.floor(cursor[0]), y: Math.floor(cursor[1]) };
    spoken.textContent = t(mask.at(cursor) ? "mask.js.marked" : "mask.js.kept", place);
  }
}
