// Keeps relative times on an open page true, and gives their exact time in the reader's zone.
// The words are those of dashboard/templatetags/page.py.
(() => {
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const units = [["s", 1], ["min", 60], ["h", 3600], ["d", 86400]];

  function relative(seconds) {
    const size = Math.abs(seconds);
    if (size < 2) return "now";
    const [unit, length] = units.findLast(([, length]) => size >= length);
    const text = `${Math.floor(size / length)} ${unit}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  function tick() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const then = new Date(element.dateTime);
      const seconds = (Date.now() - then) / 1000;
      element.title = exact.format(then);
      if (Math.abs(seconds) < 30 * 86400) element.textContent = relative(seconds);
    }
  }

  tick();
  setInterval(tick, 5000);
})();
