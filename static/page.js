// Keeps relative times on an open page true, gives their exact time in the reader's zone, and says when a request of
// the reader's failed. The words for times are those of dashboard/templatetags/page.py.
(() => {
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const behind = 1000 * document.body.dataset.now - Date.now(); // of the reader's clock; pages take a moment to come
  const offset = Math.abs(behind) > 10000 ? behind : 0;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

  function relative(seconds) {
    const size = Math.abs(seconds);
    if (size < 2) return "now";
    const [unit, length] = units.find(([, length]) => size >= length);
    const text = `${Math.floor(size / length)} ${unit}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  function tick() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const then = new Date(element.dateTime);
      const since = (Date.now() + offset - then) / 1000;
      const seconds = "due" in element.dataset ? Math.min(since, 0) : since; // a next attempt is never in the past
      element.title = exact.format(then);
      if (Math.abs(seconds) < 30 * 86400) element.textContent = relative(seconds);
    }
  }

  function wordsFor(status) {
    if (!status) return "The site didn’t respond. Check your connection and try again.";
    if (status === 413) return "This request is too large, so nothing was sent. Shorten it and try again.";
    if (status === 503) return "The site is temporarily unavailable. Check whether your change was made, and try again in a moment.";
    return `The site could not do that (${status}). Reload the page and try again.`;
  }

  function ofTheReader(event) {
    return event.detail.requestConfig?.triggeringEvent?.type !== "refresh"; // else live.js tries again by itself
  }

  function tell(event) {
    if (!ofTheReader(event)) return;
    const status = event.detail.xhr?.status;
    const note = document.getElementById("request-error");
    note.textContent = wordsFor(status);
    note.hidden = false;
  }

  document.addEventListener("htmx:responseError", tell);
  document.addEventListener("htmx:sendError", tell);
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (ofTheReader(event)) document.getElementById("request-error").hidden = true;
  });
  document.addEventListener("htmx:afterSettle", tick);
  tick();
  setInterval(tick, 5000);
})();
