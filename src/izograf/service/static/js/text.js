// Texts and numbers in the page's language. The texts come with the page as blocks of JSON.
const language = document.documentElement.lang;
const texts = {};
for (const block of document.querySelectorAll("script[data-strings]")) {
  Object.assign(texts, JSON.parse(block.textContent));
}
const plural = new Intl.PluralRules(language);
const whole = new Intl.NumberFormat(language);

/** The text of `key` with `values` in it; `count` chooses the plural form. */
export function t(key, values = {}) {
  let text = texts[key];
  if (text === undefined) return key;
  if (typeof text === "object") text = text[plural.select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? whole.format(value) : String(value);
  });
}

const UNITS = language === "ru" ? ["с", "мин", "ч"] : ["s", "min", "h"];

/** `0.4 s`, `18 s`, `3 min 5 s`: as the server writes it. */
export function duration(seconds) {
  if (seconds < 9.95) {
    const digits = seconds < 0.995 ? 2 : 1;
    const text = seconds.toLocaleString(language, {
      minimumFractionDigits: digits, maximumFractionDigits: digits,
    });
    return `${text}\u00a0${UNITS[0]}`;
  }
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded}\u00a0${UNITS[0]}`;
  const hours = rounded >= 3600;
  const small = hours ? Math.floor(rounded / 60) : rounded;
  const rest = small % 60;
  const large = `${whole.format(Math.floor(small / 60))}\u00a0${UNITS[hours ? 2 : 1]}`;
  return rest ? `${large} ${rest}\u00a0${UNITS[hours ? 1 : 0]}` : large;
}

/** Turns every <time> below `root` into the reader's own time zone. */
export function localTimes(root = document) {
  const format = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    time.textContent = format.format(at);
    time.dataset.local = "";
  }
}
