// The mask as a file: what the form's field holds, and masks that come from files.
import { Mask } from "./mask-raster.js";

const WHITE = 128;  // what is at least this light is to be repainted

function canvasOf(mask) {
  const canvas = Object.assign(document.createElement("canvas"), { width: mask.width, height: mask.height });
  canvas.getContext("2d").putImageData(mask.pixels(), 0, 0);
  return canvas;
}

function fileOf(blob) { return new File([blob], "edit-mask.png", { type: "image/png" }); }

/** The mask as a PNG file, white where it is to be repainted. */
export async function encoded(mask) {
  return fileOf(await new Promise((done) => { canvasOf(mask).toBlob(done, "image/png"); }));
}

/** The same at once, for a form that is being sent. */
function encodedNow(mask) {
  const text = atob(canvasOf(mask).toDataURL("image/png").split(",")[1]);
  return fileOf(new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))]));
}

/** The mask in a picture's file, fitted to a size; throws if it is no picture. */
export async function decoded(file, width, height) {
  const picture = await createImageBitmap(file);
  const fitted = picture.width !== width || picture.height !== height;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, width, height);  // black: what is transparent is kept
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  const { data } = context.getImageData(0, 0, width, height);
  const mask = new Mask(width, height);
  for (let i = 0; i < mask.data.length; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    mask.data[i] = 0.299 * r + 0.587 * g + 0.114 * b >= WHITE ? 1 : 0;
  }
  return { mask, fitted };
}

/** An `<input type=file>` that always holds the mask, or nothing while nothing is marked. */
export class Field {
  constructor(input) {
    Object.assign(this, { input, mask: null, version: 0, written: 0 });
    input.form?.addEventListener("formdata", (event) => this.#complete(event));
  }

  /** Takes over a mask that was changed; `changed()` is called when the field holds it. */
  async hold(mask, changed) {
    this.mask = mask;
    const version = ++this.version;
    const file = mask.data.includes(1) ? await encoded(mask) : null;
    if (version !== this.version) return;  // changed again meanwhile
    this.#put(file);
    this.written = version;
    changed();
  }

  #put(file) {
    const files = new DataTransfer();
    if (file) files.items.add(file);
    this.input.files = files.files;
  }

  /** A form that is sent before the file was ready gets it now. */
  #complete(event) {
    if (!this.mask || this.written === this.version || !this.input.name) return;
    const empty = !this.mask.data.includes(1);
    event.formData.set(this.input.name, empty ? new File([], "") : encodedNow(this.mask));
  }
}
