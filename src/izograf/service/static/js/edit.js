// The page that edits pictures: choosing another model asks the server for its form.
const form = document.querySelector(".edit-form");
const stage = form?.querySelector(".edit-mask");

form?.querySelector("#picture")?.addEventListener("change", (event) => {
  if (event.target.files.length) delete stage.dataset.noPicture;
});

form?.querySelector("#model")?.addEventListener("change", () => {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && value && !name.startsWith("option.")) query.set(name, value);
  }
  location.assign(`/edit?${query}`);
});
