// Uploads the chosen file at once and shows how far it is; the rest of the form can be filled in meanwhile.
// Without this script the button "Upload" sends the file, and the answer leads back to the form.
(() => {
  const byId = (id) => document.getElementById(id);
  const upload = byId("upload");
  const form = byId("main-form");
  const file = byId("upload-file");
  const bar = byId("upload-bar");
  const token = byId("id_file");
  let request = null;
  let sendAfterwards = false;

  const UNITS = ["B", "kB", "MB", "GB"];
  function size(bytes) {
    const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
    return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${UNITS[power]}`;
  }

  function fail(text) {
    byId("upload-error").textContent = text;
    byId("upload-error").hidden = !text;
  }

  function busy(on) {
    byId("upload-progress").hidden = !on;
    file.disabled = on;
    if (!on) {
      request = null;
      file.value = "";
    }
  }

  function shown(stored) {
    token.value = stored?.file ?? "";
    byId("stored").hidden = !stored;
    byId("upload-field").hidden = byId("field-url").hidden = Boolean(stored);
    byId("stored-name").textContent = stored?.name ?? "";
    byId("stored-size").textContent = stored ? size(stored.size) : "";
    byId("stored-sha").textContent = stored ? `sha256 ${stored.sha256.slice(0, 12)}…` : "";
  }

  // Names and the mark for archives as the file suggests them, where nothing was written yet.
  function suggest(name) {
    const field = byId("id_name");
    const plain = name.replace(/(\.tar)?\.[^.]+$/, "").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 32);
    if (!field.value) field.value = plain;
    if (/\.(zip|tar|tgz|tar\.(gz|bz2|xz))$/i.test(name)) byId("id_unpack").checked = true;
  }

  function done() {
    const status = request.status;
    let answer = {};
    try {
      answer = JSON.parse(request.responseText);
    } catch { /* a proxy's page, or nothing at all */ }
    busy(false);
    if (status !== 201) {
      sendAfterwards = false;
      return fail(answer.error?.message ?? `The file couldn’t be stored (${status || "no connection"}). Try again.`);
    }
    shown(answer);
    suggest(answer.name);
    form.dispatchEvent(new Event("change", { bubbles: true }));
    if (sendAfterwards) form.requestSubmit();
  }

  function start(chosen) {
    fail("");
    if (chosen.size > Number(file.dataset.max)) {
      file.value = "";
      return fail(`“${chosen.name}” has ${size(chosen.size)}; this site takes at most ${size(Number(file.dataset.max))}.`);
    }
    const body = new FormData();
    body.append("file", chosen);
    request = new XMLHttpRequest();
    const began = performance.now();
    request.upload.addEventListener("progress", (event) => {
      const speed = event.loaded / Math.max((performance.now() - began) / 1000, 0.001);
      bar.value = (100 * event.loaded) / event.total;
      byId("upload-text").textContent = `${size(event.loaded)} of ${size(event.total)}, ${size(speed)}/s`;
    });
    request.addEventListener("load", done);
    request.addEventListener("error", done);
    request.addEventListener("abort", () => busy(false));
    request.open("POST", upload.action);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", upload.elements.csrfmiddlewaretoken.value);
    request.send(body);
    bar.value = 0;
    byId("upload-text").textContent = "";
    busy(true);
  }

  byId("upload-send").hidden = true;
  byId("stored-remove").hidden = false;
  byId("upload-field").hidden = Boolean(token.value);
  byId("field-url").hidden = Boolean(token.value) && !byId("id_url").value;
  const chosen = () => file.files.length && start(file.files[0]);
  file.addEventListener("change", chosen);
  byId("upload-stop").addEventListener("click", () => {
    sendAfterwards = false;
    request?.abort();
  });
  byId("stored-remove").addEventListener("click", () => {
    shown(null);
    form.dispatchEvent(new Event("change", { bubbles: true }));
    file.focus();
  });
  // Sent while the file is still on its way: it goes as soon as that is there.
  form.addEventListener("submit", (event) => {
    if (!request) return;
    event.preventDefault();
    sendAfterwards = true;
    byId("upload-text").textContent += " – the form will be sent when the upload finishes";
  });
  addEventListener("beforeunload", (event) => request && event.preventDefault());
  chosen(); // before this script was there, or before Back led here
})();
